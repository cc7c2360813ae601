"""Tries in a process of its own what a C library may not survive, with little time and memory to do it in.

HDF5 1.14 trusts its metadata: a damaged file can make it loop for ever, crash, or allocate all there is. So a file is
read by a forked child first. What ends the child would have ended this process.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import stat
import warnings
from collections.abc import Callable
from pathlib import Path

from converter import errors
from converter.errors import ConverterError, CorruptCheckpoint

MAX_SECONDS = 4  # of the processor; 10,000 tensors of HDF5 take two
MAX_BYTES = 256 * 2**20  # beyond what this process has mapped already
_DEADLY = (signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT, signal.SIGXCPU)


def rehearse(path: Path, read: Callable[[], object]) -> None:
    """Runs ``read`` in a child; returns if the child survived it.

    Args:
        path: what is read, for messages.
        read: reads a file and changes nothing; its result is thrown away.

    Raises:
        ConverterError: what ``read`` raised, if it was one. Any other exception is left for the caller to meet.
        CorruptCheckpoint: the child crashed, or needed more time or memory than any file should.
    """
    most = _mapped() + MAX_BYTES
    inlet, outlet = os.pipe()
    # In the child they stay blocked: the caller answers them, and ends the child.
    unblocked = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of threads, none of which holds what the child needs
            child = os.fork()
    except OSError:
        signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
        raise
    if child == 0:
        _run(path, read, outlet, most)
    status: int | None = None
    try:
        signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
        os.close(outlet)
        with open(inlet, "rb") as pipe:  # noqa: PTH123
            answer = pipe.read().decode(errors="replace")
        _, status = os.waitpid(child, 0)
    finally:
        if status is None:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    kind, _, message = answer.partition("\n")
    if message:
        raise _error(kind, message)
    if os.WIFSIGNALED(status):
        name = signal.Signals(os.WTERMSIG(status)).name
        what = f"takes more than {MAX_SECONDS} s" if name in ("SIGXCPU", "SIGKILL") else f"crashes ({name})"
        raise CorruptCheckpoint(
            f"{path}: not a valid file: the library that reads it {what}; download or save it again"
        )


def _run(path: Path, read: Callable[[], object], outlet: int, most: int) -> None:
    """The child: never returns, and leaves no trace but what it writes to the pipe."""
    try:
        _let_go_of_folders()
        _limit(resource.RLIMIT_AS, most)
        _limit(resource.RLIMIT_CPU, MAX_SECONDS)
        _limit(resource.RLIMIT_CORE, 0)
        for number in _DEADLY:
            signal.signal(number, signal.SIG_DFL)
        read()
    except ConverterError as error:
        with contextlib.suppress(BaseException):
            os.write(outlet, f"{type(error).__name__}\n{error}".encode(errors="backslashreplace")[:60_000])
    except MemoryError:
        message = f"{path}: not a valid file: reading its header takes too much memory; download or save it again"
        os.write(outlet, f"CorruptCheckpoint\n{message}".encode(errors="backslashreplace"))
    except BaseException:  # noqa: S110 - the caller meets it again, with its traceback
        pass
    finally:
        os._exit(0)


def _let_go_of_folders() -> None:
    """Closes what is open of folders: a lock on one (see ``folders``) must end with the process that took it."""
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - names, not paths
        with contextlib.suppress(OSError):  # the listing's own is closed by now
            if stat.S_ISDIR(os.fstat(int(name)).st_mode):
                os.close(int(name))


def _limit(what: int, amount: int) -> None:
    _, hard = resource.getrlimit(what)
    resource.setrlimit(what, (amount if hard == resource.RLIM_INFINITY else min(amount, hard), hard))


def _mapped() -> int:
    pages = Path("/proc/self/statm").read_text("ascii").split()[0]
    return int(pages) * resource.getpagesize()


def _error(kind: str, message: str) -> ConverterError:
    found: type[ConverterError] = getattr(errors, kind, ConverterError)
    return found(message)

"""Tries in another process what a C library may not survive, with little time and memory.

HDF5 1.14 trusts its metadata: a damaged file can make it loop forever, crash, or allocate all memory. So a child
process reads a file first: forked if that is safe, else newly started. What ends the child would have ended this
process.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import logging
import os
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

from converter import errors
from converter.errors import ConverterError, CorruptCheckpoint
from converter.system.processes import (
    CAN_FORK,
    DEADLY,
    STOPPING,
    let_go_of_folders,
    limit_memory,
    limit_time,
    mapped_memory,
)
from converter.system.starting import LOAD

MAX_SECONDS = 4  # of the processor; 10,000 tensors of HDF5 take two
MAX_SECONDS_IN_ALL = 60  # of the clock, for a child that is started afresh, imports included
MAX_BYTES = 256 * 2**20  # beyond what this process has mapped already
Read = Callable[[Path], object]
_BEGAN = "the child begins\n"
_UNLIMITED = "memory has no limit"
_OF_WINDOWS = 2**16  # its statuses of crashes, such as 0xc0000005, are above
_PROGRAM = f"{LOAD}from converter.checkpoints.rehearsal import answer_afresh\nanswer_afresh(*sys.argv[1:])\n"
_log = logging.getLogger(__name__)


def rehearse(path: Path, read: Read) -> None:
    """Runs ``read`` in a child; returns if the child survived it.

    Args:
        path: what is read.
        read: a function of a module, called with ``path``, which it reads, and changes nothing; its result is thrown away.

    Raises:
        ConverterError: what ``read`` raised, if it was one. Any other exception is left for the caller to meet.
        CorruptCheckpoint: the child crashed, or needed more time or memory than any file should.
    """
    found = _forked(path, read) if CAN_FORK else _started(path, read)
    if found is None:
        _say_once(
            "cannot start a process to test HDF5 files first: a damaged file can crash this one (see SECURITY.md)"
        )
        return
    fault, answer = found
    kind, _, message = answer.partition("\n")
    if kind == _UNLIMITED:
        _say_once(
            "this system cannot limit a process's memory: a damaged HDF5 file can use up all of it (see SECURITY.md)"
        )
        kind, _, message = message.partition("\n")
    if message:
        raise _error(kind, message)
    if fault is not None:
        raise CorruptCheckpoint(
            f"{path}: not a valid file: the library that reads it {fault}; download or save it again"
        )


def _forked(path: Path, read: Read) -> tuple[str | None, str]:
    """The fault, from how the child ended and what it wrote."""
    inlet, outlet = os.pipe()
    mapped = mapped_memory()
    # In the child they stay blocked: the caller answers them, and ends the child.
    unblocked = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of threads, none of which holds what the child needs
            child = os.fork()
    except OSError:
        signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
        raise
    if child == 0:
        _run(path, read, outlet, mapped)
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
    return _fault(os.waitstatus_to_exitcode(status)), answer


def _run(path: Path, read: Read, outlet: int, mapped: int | None) -> None:
    """The child: never returns, and leaves no trace but what it writes to the pipe."""
    try:
        let_go_of_folders()
        _answer(path, read, outlet, MAX_SECONDS, mapped)
    finally:
        os._exit(0)


def _started(path: Path, read: Read) -> tuple[str | None, str] | None:
    """As ``_forked``, with a child that imports the reader again; None if it does not get that far."""
    import subprocess  # 2 ms, only for systems without fork

    command = [sys.executable, "-c", _PROGRAM, read.__module__, read.__qualname__, str(path), str(MAX_SECONDS)]
    environment = {**os.environ, "PYTHONSAFEPATH": "1"}
    try:
        child = subprocess.Popen(  # noqa: S603 -- this very interpreter
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
        )
    except (OSError, ValueError):
        return None
    with child:
        try:
            said, _ = child.communicate(timeout=MAX_SECONDS_IN_ALL)
            fault = _fault(child.returncode)
        except subprocess.TimeoutExpired:
            child.kill()
            said, _ = child.communicate()
            fault = f"takes more than {MAX_SECONDS_IN_ALL} s"
        except BaseException:
            child.kill()
            raise
    _, began, answer = said.decode(errors="replace").replace("\r\n", "\n").partition(_BEGAN)
    return (fault, answer) if began else None


def answer_afresh(module: str, name: str, path: str, seconds: str) -> None:
    """The program of a started child: a function of a module reads a file.

    Args:
        module: of the function.
        name: of the function.
        path: of the file.
        seconds: of the processor that it may take.
    """
    read: Read = getattr(importlib.import_module(module), name)
    os.write(1, _BEGAN.encode())
    _answer(Path(path), read, 1, int(seconds), mapped_memory())


def _answer(path: Path, read: Read, outlet: int, seconds: int, mapped: int | None) -> None:
    """Reads, with little time and memory, and reports the result."""
    try:
        limit_time(seconds)
        if not limit_memory(MAX_BYTES, mapped):
            os.write(outlet, f"{_UNLIMITED}\n".encode())
        for number in DEADLY:
            signal.signal(number, signal.SIG_DFL)
    except BaseException as error:
        # An untested file counts as failed.
        message = f"{path}: cannot be tried with little memory before it is read ({type(error).__name__}); report this"
        os.write(outlet, f"CorruptCheckpoint\n{message}".encode(errors="backslashreplace"))
        return
    try:
        read(path)
    except ConverterError as error:
        with contextlib.suppress(BaseException):
            os.write(outlet, f"{type(error).__name__}\n{error}".encode(errors="backslashreplace")[:60_000])
    except MemoryError:
        message = f"{path}: not a valid file: reading its header takes too much memory; download or save it again"
        os.write(outlet, f"CorruptCheckpoint\n{message}".encode(errors="backslashreplace"))
    except BaseException:  # noqa: S110 - the caller meets it again, with its traceback
        pass


def _fault(status: int) -> str | None:
    """The fault of a file on which a child ended with this status (negative for a signal), or None if it ended normally."""
    if 0 <= status < _OF_WINDOWS:
        return None
    if status > 0:
        return f"crashes ({status:#x})"
    name = signal.Signals(-status).name
    return f"takes more than {MAX_SECONDS} s" if name in ("SIGXCPU", "SIGKILL") else f"crashes ({name})"


@functools.cache
def _say_once(what: str) -> None:
    """Warns of a guard that is weaker here; once, not of every file."""
    _log.warning("%s", what)


def _error(kind: str, message: str) -> ConverterError:
    found: type[ConverterError] = getattr(errors, kind, ConverterError)
    return found(message)

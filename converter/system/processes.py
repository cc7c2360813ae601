"""Processors, memory, signals and limits: what the system says of them, and what it lacks."""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import stat
import sys
from pathlib import Path
from types import ModuleType

_resource: ModuleType | None
try:
    _resource = importlib.import_module("resource")
except ImportError:
    _resource = None


def _those_of(*names: str) -> tuple[signal.Signals, ...]:
    return tuple(getattr(signal, name) for name in names if hasattr(signal, name))


# A person, or the system, asks a program to end. The last is Windows' for Ctrl-Break and for a window that is closed.
STOPPING = _those_of("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")
# A program ends by these through its own fault.
DEADLY = _those_of("SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGABRT", "SIGXCPU")
# Libraries of macOS, once used, do not survive it in the child: its Python starts children afresh as well.
CAN_FORK = hasattr(os, "fork") and sys.platform != "darwin"


def processors() -> int:
    """How many of them this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def free_memory() -> int | None:
    """Bytes that the system can give without swapping; None if it does not report it."""
    try:
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, ValueError, IndexError, StopIteration):
        return None


def peak_memory() -> int | None:
    """The peak memory of this process so far, in bytes; None if the system does not report it."""
    with contextlib.suppress(OSError, ValueError, IndexError, StopIteration):
        # Not Linux' getrusage, which counts in what the process that started this one had held by then.
        lines = Path("/proc/self/status").read_text("ascii", "replace").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    if _resource is None:
        return None
    peak: int = _resource.getrusage(_resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def mapped_memory() -> int | None:
    """Bytes of address space of this process; None if the system does not report it."""
    try:
        return int(Path("/proc/self/statm").read_text("ascii").split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError):
        return None


def limit_memory(more: int, mapped: int | None) -> bool:
    """Lets this process map this many bytes beyond those that it has; False if the system has no such limit.

    Args:
        more: bytes.
        mapped: the result of ``mapped_memory`` for this process, or for the one that it was forked from.
    """
    return mapped is not None and _limit("RLIMIT_AS", mapped + more)


def limit_time(seconds: int) -> bool:
    """Ends this process, without a core dump, after this many seconds of CPU time; False if that is not possible."""
    _limit("RLIMIT_CORE", 0)
    return _limit("RLIMIT_CPU", seconds)


def _limit(name: str, amount: int) -> bool:
    what = getattr(_resource, name, None)
    if _resource is None or what is None:
        return False
    _, hard = _resource.getrlimit(what)
    try:
        _resource.setrlimit(what, (amount if hard == _resource.RLIM_INFINITY else min(amount, hard), hard))
    except (OSError, ValueError):
        return False
    return True


def let_go_of_folders() -> None:
    """Closes what is open of folders, in a child: a lock on one (see ``locks``) must end with the process that took it."""
    for name in os.listdir("/proc/self/fd" if Path("/proc/self/fd").exists() else "/dev/fd"):  # noqa: PTH208 - names
        with contextlib.suppress(OSError):  # the listing's own is closed by now
            if stat.S_ISDIR(os.fstat(int(name)).st_mode):
                os.close(int(name))

"""Python finds this before anything else and then lacks what macOS lacks: a pretended Mac, on the kernel of Linux.

Taken away are ``/proc``, calls and flags that are Linux's alone, and limits of memory. ``renamex_np`` is there. When a
process forks
fails: on a Mac it would be sound only now and then.
"""

import builtins
import collections
import ctypes
import errno
import io
import os
import resource
import shutil
import signal
import sys
import types

_LINUX_ONLY = (
    "copy_file_range eventfd memfd_create posix_fadvise posix_fallocate preadv pwritev sched_getaffinity "
    "sched_setaffinity splice pidfd_open getrandom setresuid setresgid unshare O_DIRECT O_LARGEFILE O_NOATIME O_PATH "
    "O_TMPFILE O_RSYNC"
)
_SIGNALS = "SIGPWR SIGSTKFLT SIGPOLL SIGRTMIN SIGRTMAX sigtimedwait sigwaitinfo"


def _hide_proc() -> None:
    """``/proc`` does not exist, for any caller."""

    def guarded(real):
        def call(path=".", *arguments, **options):
            named = os.fspath(path) if isinstance(path, (str, os.PathLike)) else ""
            if named == "/proc" or named.startswith("/proc/"):
                raise FileNotFoundError(errno.ENOENT, "No such file or directory", named)
            return real(path, *arguments, **options)

        return call

    for name in ("open", "listdir", "scandir", "stat", "lstat", "readlink", "access"):
        setattr(os, name, guarded(getattr(os, name)))
    builtins.open = io.open = guarded(open)


def _no_fork() -> int:
    raise AssertionError("forked")


class _Library(ctypes.CDLL):
    """The C library with what Apple's has in place of renameat2."""

    def __getattr__(self, name):
        if name in ("renameat2", "copy_file_range", "prctl"):
            raise AttributeError(name)
        if name == "renamex_np":
            rename = ctypes.CDLL.__getattr__(self, "renameat2")
            return lambda old, new, flags: rename(-100, old, -100, new, {0: 0, 4: 1}[flags])
        return super().__getattr__(name)


def _limits_no_memory(what, limits, real=resource.setrlimit):
    if what == resource.RLIMIT_AS:
        raise ValueError("current limit exceeds maximum limit")
    real(what, limits)


_uname = collections.namedtuple("uname_result", "sysname nodename release version machine")
sys.platform = "darwin"
os.uname = lambda: _uname("Darwin", "mac", "23.6.0", "Darwin Kernel Version 23.6.0", "arm64")
sys.modules["_scproxy"] = types.SimpleNamespace(_get_proxies=dict, _get_proxy_settings=dict)  # urllib asks it on a Mac
ctypes.CDLL = _Library
resource.setrlimit = _limits_no_memory
os.fork = _no_fork
shutil._USE_CP_SENDFILE = False  # its sendfile takes no files to write to
for _name in _LINUX_ONLY.split():
    if hasattr(os, _name):
        delattr(os, _name)
for _name in _SIGNALS.split():
    if hasattr(signal, _name):
        delattr(signal, _name)
_hide_proc()

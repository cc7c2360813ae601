"""Python finds this before anything else and then lacks what Windows lacks: a pretended Windows, on the kernel of Linux.

Modules and calls that Windows does not have are gone. What is open or mapped is neither renamed nor removed, a rename
replaces nothing, folders are not opened, links not made. Locks are msvcrt's; a temporary file goes with its descriptor.
Text is written in cp1252 where nobody says how. ``os.name`` stays, for paths are Linux's.
"""

import asyncio  # noqa: F401 - as click, numpy and others below: it decides by sys.platform while it is imported
import builtins
import contextlib
import ctypes
import errno
import fcntl
import io
import os
import platform
import shutil
import signal
import stat
import subprocess
import sys
import tempfile  # noqa: F401
import types
import warnings

import click.shell_completion  # noqa: F401
import h5py  # noqa: F401
import numpy  # noqa: F401
import rich.console
import rich.progress  # noqa: F401

_MODULES = "fcntl resource pwd grp termios tty pty syslog"
_CALLS = (
    "copy_file_range chown chroot eventfd fchown fork forkpty fstatvfs getegid geteuid getgid getgrouplist getgroups "
    "getpgid getpgrp getpriority getsid getuid killpg lchown lockf major makedev memfd_create minor mkfifo mknod nice "
    "openpty posix_fadvise posix_fallocate posix_spawn pread preadv pwrite pwritev register_at_fork sched_getaffinity "
    "sched_setaffinity sched_yield sendfile setegid seteuid setgid setpgid setsid setuid splice statvfs sync sysconf "
    "uname wait wait3 wait4 O_CLOEXEC O_DIRECT O_DIRECTORY O_DSYNC O_LARGEFILE O_NOATIME O_NOCTTY O_NOFOLLOW O_NONBLOCK "
    "O_PATH O_RSYNC O_SYNC O_TMPFILE"
)
_SIGNALS = (
    "SIGALRM SIGBUS SIGCHLD SIGCLD SIGCONT SIGHUP SIGIO SIGIOT SIGKILL SIGPIPE SIGPOLL SIGPROF SIGPWR SIGQUIT SIGSTOP "
    "SIGSTKFLT SIGSYS SIGTRAP SIGTSTP SIGTTIN SIGTTOU SIGURG SIGUSR1 SIGUSR2 SIGVTALRM SIGWINCH SIGXCPU SIGXFSZ alarm "
    "getitimer pause pthread_kill pthread_sigmask setitimer siginterrupt sigpending sigtimedwait sigwait sigwaitinfo"
)
_KEPT = "open close _exit stat lstat listdir readlink rename replace unlink rmdir fstat"
_real = types.SimpleNamespace(**{name: getattr(os, name) for name in _KEPT.split()})
_read = open
_BINARY, _NOINHERIT, _TEMPORARY = 1 << 27, 1 << 28, 1 << 29
_temporary: dict[int, str] = {}


def _refused(path, code=errno.EACCES):
    error = PermissionError(
        code, "The process cannot access the file because it is being used by another process", path
    )
    error.winerror = 32
    return error


def _in_use() -> dict[tuple[int, int], str]:
    """Files that this process has open or mapped, by device and inode."""
    found = {}
    for name in _real.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            held = _real.fstat(int(name))
            if int(name) not in _temporary and not stat.S_ISCHR(held.st_mode):
                found[held.st_dev, held.st_ino] = _real.readlink(f"/proc/self/fd/{name}")
    with _read("/proc/self/maps", encoding="utf-8") as maps:
        for line in maps:
            path = line.split(maxsplit=5)[5:]
            if path and path[0].startswith("/"):
                with contextlib.suppress(OSError):
                    held = _real.stat(path[0].rstrip("\n"))
                    found[held.st_dev, held.st_ino] = path[0].rstrip("\n")
    return found


def _check_free(path) -> None:
    """Refuses what is open or mapped, and a folder that such a file lies in."""
    used, real = _in_use(), os.path.realpath(path)
    with contextlib.suppress(FileNotFoundError):
        held = _real.lstat(path)
        if (held.st_dev, held.st_ino) in used or any(name.startswith(f"{real}/") for name in used.values()):
            raise _refused(os.fspath(path))


def _rename(old, new):
    _check_free(old)
    if os.path.lexists(new):
        raise FileExistsError(errno.EEXIST, "Cannot create a file when that file already exists", old, None, new)
    _real.rename(old, new)


def _replace(old, new):
    _check_free(old)
    if os.path.lexists(new):
        _check_free(new)
        if os.path.isdir(new):
            raise PermissionError(errno.EACCES, "Access is denied", new)
    _real.replace(old, new)


def _unlink(path):
    _check_free(path)
    _real.unlink(path)


def _rmdir(path):
    _check_free(path)
    _real.rmdir(path)


def _open(path, flags, mode=0o777):
    if os.path.isdir(path):
        raise PermissionError(errno.EACCES, "Permission denied", path)
    descriptor = _real.open(path, flags & ~(_BINARY | _NOINHERIT | _TEMPORARY), mode)
    if flags & _TEMPORARY:
        _temporary[descriptor] = os.path.realpath(path)
    return descriptor


def _close(descriptor):
    path = _temporary.pop(descriptor, None)
    if path is not None:
        with contextlib.suppress(FileNotFoundError):
            _real.unlink(path)
    _real.close(descriptor)


def _exit(status):
    for descriptor in list(_temporary):
        _close(descriptor)
    _real._exit(status)


def _locking(descriptor, mode, count, flock=fcntl.flock):
    assert (mode, count) == (2, 1), (mode, count)
    try:
        flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise PermissionError(errno.EACCES, "Permission denied") from None


def _no_link(*_, **__):
    raise OSError(errno.EPERM, "A required privilege is not held by the client")


def _no_library(*_, **__):
    raise TypeError("bad argument type for built-in operation")  # what ctypes says there of the name None


def _hidden(real):
    def call(path=".", *arguments, **options):
        if isinstance(path, (str, os.PathLike)) and os.fspath(path).startswith(("/proc", "/dev/fd")):
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", path)
        return real(path, *arguments, **options)

    return call


def _disk_usage(path, statvfs=os.statvfs):
    held = statvfs(path)
    return shutil._ntuple_diskusage(*(blocks * held.f_frsize for blocks in (held.f_blocks, 0, held.f_bavail)))


os.open, os.close, os._exit = _open, _close, _exit
os.rename, os.replace, os.unlink, os.remove, os.rmdir = _rename, _replace, _unlink, _unlink, _rmdir
os.symlink, ctypes.CDLL = _no_link, _no_library
os.O_BINARY, os.O_NOINHERIT, os.O_TEMPORARY = _BINARY, _NOINHERIT, _TEMPORARY
os.supports_dir_fd, os.supports_fd, os.supports_follow_symlinks = set(), set(), set()
shutil._use_fd_functions = shutil._USE_CP_SENDFILE = False
shutil.disk_usage = _disk_usage
signal.SIGBREAK = signal.SIGTTIN
subprocess.Popen.kill = lambda child, number=signal.SIGKILL: child.send_signal(number)
for _name in ("open", "listdir", "scandir", "stat", "lstat", "readlink"):
    setattr(os, _name, _hidden(getattr(os, _name)))
builtins.open = io.open = _hidden(open)
for _name in _MODULES.split():
    sys.modules[_name] = None
for _module, _names in ((os, _CALLS), (signal, _SIGNALS)):
    for _name in _names.split():
        if hasattr(_module, _name):
            delattr(_module, _name)
sys.modules["msvcrt"] = types.SimpleNamespace(locking=_locking, LK_NBLCK=2)
platform.system = lambda: "Windows"
# A file that is opened as text in the encoding of the machine is written differently there.
warnings.filterwarnings("error", category=EncodingWarning, module=r"converter\b")
sys.platform = "win32"

"""Locks a folder for one process at a time. The system takes a lock back when the process ends, however it ends.

Where a folder can be opened, it itself is locked by flock(2), which leaves no trace and stays with it through a rename.
Windows opens no folder, and renames none that holds an open file. There a file beside it is locked, ``.<name>.lock``,
which goes with its last descriptor.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_fcntl: Any
try:
    _fcntl = importlib.import_module("fcntl")
except ImportError:
    _fcntl = None
_POLL = 0.02


class FolderLock:
    """A lock that is taken once, and given back once."""

    def __init__(self) -> None:
        self._descriptor = -1
        self._folder: Path | None = None

    def take(self, folder: Path, *, wait: bool = False, follow: bool = True) -> None:
        """Takes the lock of a folder.

        Args:
            folder: an existing one.
            wait: whether to wait for another process that has it.
            follow: whether it may be a link to a folder.

        Raises:
            BlockingIOError: another process has it.
            FileNotFoundError: there is no such folder.
            NotADirectoryError: it is not a folder, or is a link where it must not be.
            OSError: the file system has no locks, or the folder may not be opened.
        """
        self._folder = folder
        if _fcntl is None:
            _check_folder(folder, follow)
            self._take_name(folder, wait)
        else:
            self._take_folder(folder, wait, follow)

    def is_of(self, folder: Path) -> bool:
        """Whether it is held, and its folder is still the one in that place."""
        if self._descriptor < 0:
            return False
        if _fcntl is None:
            return self._folder == folder and folder.is_dir()
        return os.path.samestat(os.fstat(self._descriptor), folder.stat())

    def give_back(self) -> None:
        """Gives it back, once."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _take_folder(self, folder: Path, wait: bool, follow: bool) -> None:
        try:
            self._descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | (0 if follow else os.O_NOFOLLOW))
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
            raise _no_folder(folder) from None
        try:
            _fcntl.flock(self._descriptor, _fcntl.LOCK_EX | (0 if wait else _fcntl.LOCK_NB))
        except BaseException:
            self.give_back()
            raise

    def _take_name(self, folder: Path, wait: bool) -> None:
        msvcrt = importlib.import_module("msvcrt")
        place = folder.with_name(f"{'' if folder.name.startswith('.') else '.'}{folder.name}.lock")
        flags = sum(getattr(os, name) for name in ("O_RDWR", "O_CREAT", "O_BINARY", "O_NOINHERIT", "O_TEMPORARY"))
        while True:
            try:
                self._descriptor = os.open(place, flags, 0o666)
                msvcrt.locking(self._descriptor, msvcrt.LK_NBLCK, 1)
                return
            except PermissionError:  # locked, or about to go with the one who has it
                self.give_back()
                if not os.access(folder.parent, os.W_OK):
                    raise
                if not wait:
                    raise BlockingIOError(errno.EWOULDBLOCK, os.strerror(errno.EWOULDBLOCK), str(folder)) from None
                time.sleep(_POLL)
            except BaseException:
                self.give_back()
                raise


@contextlib.contextmanager
def reserved(folder: Path) -> Iterator[None]:
    """Holds the lock of a name that a locked folder is about to be renamed to. A lock on a folder moves with it by itself."""
    lock = FolderLock()
    if _fcntl is None:
        lock._take_name(folder, wait=True)
    try:
        yield
    finally:
        lock.give_back()


def _check_folder(folder: Path, follow: bool) -> None:
    if not os.path.lexists(folder):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(folder))
    if not folder.is_dir() or (folder.is_symlink() and not follow):
        raise _no_folder(folder)


def _no_folder(folder: Path) -> NotADirectoryError:
    return NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))

"""Renames to a free name: in one step if the system has that, else after a check."""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from pathlib import Path

_AT_FDCWD, _NOREPLACE = -100, 1  # of renameat2(2)
_EXCL = 4  # of renamex_np(2), which macOS has instead


def rename_to_fresh(old: Path, new: Path) -> None:
    """Renames a file or folder.

    Raises:
        FileExistsError: the new name exists.
        OSError: the system refuses.
    """
    if not _in_kernel(old, new):
        _by_looking(old, new)


def _in_kernel(old: Path, new: Path) -> bool:
    """False where the system or the file system has no such call."""
    try:
        library = ctypes.CDLL(None, use_errno=True)
        if sys.platform == "darwin":
            failed = library.renamex_np(os.fsencode(old), os.fsencode(new), _EXCL)
        else:
            failed = library.renameat2(_AT_FDCWD, os.fsencode(old), _AT_FDCWD, os.fsencode(new), _NOREPLACE)
    except (OSError, AttributeError, TypeError):  # the last on Windows, which renames in this manner anyway
        return False
    if not failed:
        return True
    code = ctypes.get_errno()
    if code in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):
        return False
    raise OSError(code, os.strerror(code), str(new))


def _by_looking(old: Path, new: Path) -> None:
    if new.exists():
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(new))
    try:
        old.rename(new)
    except OSError as error:
        if error.errno == errno.ENOTEMPTY:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(new)) from None
        raise

"""Reads and writes at an offset of an open file, and copies from file to file within the kernel if possible."""

from __future__ import annotations

import errno
import io
import os
import threading
from typing import Any

# The open files of Windows translate line ends, and are inherited by children, unless they are opened with these.
_PLAIN = getattr(os, "O_BINARY", 0) | getattr(os, "O_NOINHERIT", 0)
_HAS_PREADV, _HAS_PREAD = hasattr(os, "preadv"), hasattr(os, "pread")
# Errors of file systems and kernels that cannot copy from file to file.
_NO_COPY = {errno.EXDEV, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EPERM, errno.EBADF, errno.ETXTBSY}
_turn = threading.Lock()  # where reading at an offset is to go there and then to read


def open_plain(path: str | os.PathLike[str], write: bool = False) -> int:
    """The descriptor of an existing file, for ``read_at``, and for ``write_at`` as well."""
    return os.open(path, (os.O_RDWR if write else os.O_RDONLY) | _PLAIN)


def read_at(descriptor: int, into: Any, offset: int) -> int:
    """Reads into a buffer from an offset; any thread may. Gives how many bytes came, 0 at the end of the file."""
    if _HAS_PREADV:
        return os.preadv(descriptor, [into], offset)
    if _HAS_PREAD:
        held = os.pread(descriptor, len(into), offset)
        into[: len(held)] = held
        return len(held)
    with _turn, io.FileIO(descriptor, closefd=False) as file:
        file.seek(offset)
        return file.readinto(into)


def write_at(descriptor: int, data: Any, offset: int) -> int:
    """Writes a buffer at an offset; any thread may. Gives how many of its bytes went."""
    if _HAS_PREAD:
        return os.pwrite(descriptor, data, offset)
    with _turn:
        os.lseek(descriptor, offset, os.SEEK_SET)
        return os.write(descriptor, data)


def copy_within_kernel(reader: int, writer: int, count: int, begin: int, place: int) -> int:
    """Copies up to ``count`` bytes from ``begin`` of one file to ``place`` of another.

    Returns:
        How many; 0 where system or file system do not copy from file to file.
    """
    try:
        return os.copy_file_range(reader, writer, count, begin, place)
    except AttributeError:
        return 0
    except OSError as error:
        if error.errno not in _NO_COPY:
            raise
        return 0

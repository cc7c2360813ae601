"""A remote file that looks like a path to the readers of headers, which then check it like any other.

Reads are served from blocks, each fetched once, up to a limit. A header that makes its reader jump all over a file of
gigabytes is refused.
"""

from __future__ import annotations

import io
import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path, PosixPath
from typing import Any

from converter.errors import SourceError

BLOCK_BYTES = 64 * 2**10
MAX_FETCHED_BYTES = 96 * 2**20

# Returns ``nbytes`` bytes from an offset inside the file.
Fetch = Callable[[int, int], bytes]


class RemoteFile(PosixPath):
    """A file by its name for messages, its size, and a function that fetches ranges of it.

    Paths derived from it (``parent``, ``with_name``) are for messages; there is nothing at them.
    """

    def __new__(cls, path: str, size: int = 0, fetch: Fetch | None = None) -> RemoteFile:  # noqa: ARG004
        """Makes it; takes what ``__init__`` does."""
        return super().__new__(cls, path)

    def __init__(self, path: str, size: int = 0, fetch: Fetch | None = None) -> None:
        """Makes it.

        Args:
            path: its name, for example ``"org/name@main/model.safetensors"``.
            size: in bytes.
            fetch: called with an offset and how many bytes are wanted.
        """
        if sys.version_info >= (3, 12):
            super().__init__(path)
        self._size = size
        self._fetch = fetch
        self._held: dict[int, bytes] = {}
        self.failure: Exception | None = None  # HDF5 makes its own errors of what a file raises

    def __str__(self) -> str:
        """What it is called; of a URL with both of its slashes."""
        return super().__str__().replace(":/", "://", 1)

    def with_segments(self, *segments: str | os.PathLike[str]) -> Path:
        """What Python 3.12 and later make derived paths with."""
        return Path(*segments)

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:  # noqa: ARG002 - as Path has it
        """Size and kind; nothing else is known."""
        return os.stat_result((stat.S_IFREG | 0o444, 0, 0, 1, 0, 0, self._size, 0, 0, 0))

    def is_file(self, **_: Any) -> bool:
        """Always."""
        return True

    def open(self, mode: str = "r", *_: Any, **__: Any) -> Any:
        """Opens it for reading bytes."""
        if mode != "rb":
            raise ValueError(f"{self}: mode {mode!r}; a remote file is opened with 'rb'")
        return io.BufferedReader(_Content(self), BLOCK_BYTES)

    def block(self, number: int) -> bytes:
        """One block, fetched at its first use.

        Raises:
            SourceError: more would be fetched than any header needs.
        """
        if number not in self._held:
            if (len(self._held) + 1) * BLOCK_BYTES > MAX_FETCHED_BYTES or self._fetch is None:
                self.failure = SourceError(
                    f"{self}: its header spans more than {MAX_FETCHED_BYTES:,} bytes, too many to read remotely; "
                    "download it and name its folder"
                )
                raise self.failure
            start = number * BLOCK_BYTES
            try:
                self._held[number] = self._fetch(start, min(BLOCK_BYTES, self._size - start))
            except Exception as error:
                self.failure = error
                raise
        return self._held[number]


class _Content(io.RawIOBase):
    """The bytes of a remote file."""

    def __init__(self, file: RemoteFile) -> None:
        self._file = file
        self._size = file.stat().st_size
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise OSError(f"{self._file}: a place before its beginning")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        wanted = memoryview(buffer).cast("B")
        if self._position >= self._size or not wanted:
            return 0
        number, offset = divmod(self._position, BLOCK_BYTES)
        piece = self._file.block(number)[offset : offset + len(wanted)]
        wanted[: len(piece)] = piece
        self._position += len(piece)
        return len(piece)

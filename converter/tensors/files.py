"""The open files of a conversion: reads, writes and copies at an offset, from any thread, or maps what a model keeps."""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from converter.errors import CorruptCheckpoint
from converter.specs import Extent
from converter.system.bytes_at import copy_within_kernel, open_plain, read_at, write_at

Array = np.ndarray[Any, Any]


class Files:
    """Open files by path, one descriptor each, shared by all threads. Reads and writes name their offset."""

    def __init__(self) -> None:
        self._descriptors: dict[tuple[Path, bool], int] = {}
        self._mapped: dict[Path, mmap.mmap] = {}

    def __enter__(self) -> Files:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for descriptor in self._descriptors.values():
            os.close(descriptor)
        self._descriptors.clear()
        self._mapped.clear()  # what is in use stays mapped

    def open(self, path: Path, write: bool = False) -> int:
        """The descriptor of a file; call it before threads start."""
        if (path, write) not in self._descriptors:
            self._descriptors[path, write] = open_plain(path, write)
        return self._descriptors[path, write]

    def read(self, extent: Extent, start: int, into: Array) -> None:
        """Fills a contiguous array with the bytes from ``start`` of an extent."""
        view = into.reshape(-1).view(np.uint8).data
        descriptor, done = self._descriptors[extent.path, False], 0
        for position, nbytes in extent.runs(start, start + len(view)):
            end = done + nbytes
            while done < end:
                count = read_at(descriptor, view[done:end], position + done - (end - nbytes))
                if count == 0:
                    raise shorter(extent.path)
                done += count

    def some(self, path: Path, position: int, into: Array) -> int:
        """Reads some bytes from a position of an open file into ``(n,)``, uint8; gives how many, 0 at its end."""
        return read_at(self._descriptors[path, False], into.data, position)

    def mapped(self, extent: Extent, dtype: Any) -> Array:
        """The bytes of an extent, mapped: nothing is read before it is used, and writes stay in memory.

        If another process shortens or changes the file meanwhile, that ends this process or changes the array. So this is for
        processes that may end, and not for models that stay.
        """
        if extent.path not in self._mapped:
            descriptor = self._descriptors[extent.path, False]
            self._mapped[extent.path] = mmap.mmap(descriptor, 0, access=mmap.ACCESS_COPY)
        held = self._mapped[extent.path]
        if extent.offset + extent.nbytes > len(held):
            raise shorter(extent.path)
        found: Array = np.frombuffer(held, np.uint8, extent.nbytes, extent.offset).view(dtype)
        return found

    def write(self, extent: Extent, start: int, data: Array) -> None:
        """Writes a contiguous array to the bytes from ``start`` of an extent."""
        view = data.reshape(-1).view(np.uint8).data
        descriptor, done = self._descriptors[extent.path, True], 0
        for position, nbytes in extent.runs(start, start + len(view)):
            end = done + nbytes
            while done < end:
                done += write_at(descriptor, view[done:end], position + done - (end - nbytes))

    def copy(self, source: Extent, target: Extent, start: int, stop: int) -> None:
        """Copies bytes ``start:stop`` of one extent to another, in the kernel if possible."""
        if source.pieces or target.pieces:
            self._copy_pieces(source, target, start, stop)
            return
        reader, writer = self._descriptors[source.path, False], self._descriptors[target.path, True]
        while start < stop:
            count = copy_within_kernel(reader, writer, stop - start, source.offset + start, target.offset + start)
            if count == 0:  # also what some kernels say of file systems that they cannot copy from
                piece = np.empty(stop - start, np.uint8)
                self.read(source, start, piece)
                self.write(target, start, piece)
                return
            start += count

    def _copy_pieces(self, source: Extent, target: Extent, start: int, stop: int) -> None:
        """Copies if one side has several runs: separately for each stretch that is one run on both sides."""
        for begin, nbytes in source.runs(start, stop):
            for into, length in target.runs(start, start + nbytes):
                self.copy(Extent(source.path, begin, length), Extent(target.path, into, length), 0, length)
                begin += length
            start += nbytes


def shorter(path: Path) -> CorruptCheckpoint:
    """The error of a file that ends before where it was to be read."""
    return CorruptCheckpoint(f"{path}: shrank while it was being read; convert it again")

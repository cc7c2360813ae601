"""The sum of a file, taken while threads read the file for another purpose, so that it is read once."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

import blake3
import numpy as np

from converter.folder.records import FileRecord
from converter.specs import Extent
from converter.tensors.files import Files, shorter

Array = np.ndarray[Any, Any]
# What is read at once: it is still in the second-level cache when it is summed.
PIECE_BYTES = 2**19


class PassingSum:
    """Reads parts of a file for any thread, one after the other in the order of their numbers, and sums the file.

    What lies between the parts is read for the sum alone. A thread that holds a number must read, or stop the others.
    """

    def __init__(self, path: Path, files: Files, summed: bool) -> None:
        """Begins at the first byte.

        Args:
            path: of the file.
            files: with the file open.
            summed: whether the sum is wanted; else the order is kept and nothing is summed.
        """
        self._path, self._files = path, files
        self._digest: Any = blake3.blake3() if summed else None
        self._position = self._next = 0
        self._failed: BaseException | None = None
        self._condition = threading.Condition()

    def read(self, number: int, begin: int, into: Array, also: Any = None) -> None:
        """Fills an array of bytes with those from ``begin`` when all parts with lower numbers have been read.

        Args:
            number: from 0, without a gap; parts with higher numbers lie further back in a file that is summed.
            begin: offset in the file.
            into: ``(n,)``, uint8.
            also: a digest to update with the same bytes.
        """
        extent = Extent(self._path, begin, len(into))
        digests = [digest for digest in (self._digest, also) if digest is not None]
        with self._turn(number):
            if self._digest is not None:
                self._skip_to(begin)
                self._position = begin + len(into)
            for start in range(0, len(into), PIECE_BYTES):
                piece = into[start : start + PIECE_BYTES]
                self._files.read(extent, start, piece)
                for digest in digests:
                    digest.update(piece.data)

    def stop(self, error: BaseException) -> None:
        """Ends all waiting with an error; to be called where one of the parts will not be read."""
        with self._condition:
            self._failed = error
            self._condition.notify_all()

    def finish(self) -> FileRecord:
        """Reads what is left of a file that is summed, when all parts were read."""
        self._skip_to(None)
        return FileRecord(self._path.name, self._position, blake3=self._digest.hexdigest())

    @contextlib.contextmanager
    def _turn(self, number: int) -> Iterator[None]:
        with self._condition:
            self._condition.wait_for(lambda: self._next == number or self._failed is not None)
            if self._failed is not None:
                raise self._failed
        yield
        with self._condition:
            self._next += 1
            self._condition.notify_all()

    def _skip_to(self, end: int | None) -> None:
        """Sums from where the last part ended to another place, or to the end of the file."""
        if self._position == end:
            return
        buffer = np.empty(PIECE_BYTES if end is None else min(PIECE_BYTES, end - self._position), np.uint8)
        while end is None or self._position < end:
            piece = buffer if end is None else buffer[: end - self._position]
            count = self._files.some(self._path, self._position, piece)
            if count == 0:
                if end is None:
                    return
                raise shorter(self._path)
            self._digest.update(piece[:count].data)
            self._position += count


def together(tasks: Iterable[Callable[[], int]], sums: Collection[PassingSum]) -> list[Callable[[], int]]:
    """Tasks that read by some sums; where one of them fails, none of the others waits for it."""

    def guarded(task: Callable[[], int]) -> Callable[[], int]:
        def run() -> int:
            try:
                return task()
            except BaseException as error:
                for taken in sums:
                    taken.stop(error)
                raise

        return run

    return [guarded(task) for task in tasks]

"""Reads tensors whose elements are not one run of bytes: transposed, sliced or expanded views into a storage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from converter.errors import CorruptCheckpoint
from converter.specs import ReadRows, Shape
from converter.system.bytes_at import read_at
from converter.tensors.casts import numpy_dtype

Array = np.ndarray[Any, Any]
# An expanded tensor repeats its storage: a few bytes could claim any size.
MAX_EXPANDED_BYTES = 64 * 2**20
# The most that one read fetches; it is split if it is long and less than a quarter of it is wanted.
_MOST_BYTES = 16 * 2**20
_LEAST_BYTES = 64 * 2**10


def contiguous(shape: Shape, stride: Shape) -> bool:
    """Whether elements follow one another in C order (strides in elements; those of axes of size 1 do not matter)."""
    expected = 1
    for size, step in zip(reversed(shape), reversed(stride), strict=True):
        if size != 1 and step != expected:
            return False
        expected *= size
    return True


def reach(shape: Shape, stride: Shape) -> int:
    """How many elements of a storage a tensor spans, from its first to its last; 0 if it has none."""
    if 0 in shape:
        return 0
    return 1 + sum((size - 1) * step for size, step in zip(shape, stride, strict=True))


def row_reader(path: Path, offset: int, dtype: str, shape: Shape, stride: Shape) -> ReadRows:
    """Gives a reader of the rows of a tensor. It may be called from several threads at once.

    Args:
        path: file with the storage; the caller has checked that the whole ``reach`` is inside it.
        offset: of the tensor's first element, in bytes from the start of the file.
        dtype: one of ``casts.DTYPES``.
        shape: of at least one axis.
        stride: in elements, none negative.
    """
    kind = numpy_dtype(dtype)

    def read_rows(start: int, stop: int) -> Array:
        rows = np.empty((stop - start, *shape[1:]), kind)
        with path.open("rb", buffering=0) as file:
            _fill(path, file.fileno(), rows, offset + start * stride[0] * kind.itemsize, stride)
        return rows

    return read_rows


def _fill(path: Path, descriptor: int, into: Array, offset: int, stride: Shape) -> None:
    """Fills an array by as few reads as fetch little else, halving the longest way through the storage as needed."""
    if into.size == 0:
        return
    width = into.dtype.itemsize
    span = reach(into.shape, stride) * width
    wanted = width * int(np.prod([size for size, step in zip(into.shape, stride, strict=True) if step], dtype=np.int64))
    if span > _MOST_BYTES or span > max(_LEAST_BYTES, 4 * wanted):
        axis = max(range(into.ndim), key=lambda index: (into.shape[index] - 1) * stride[index])
        half = into.shape[axis] // 2
        first, second = np.split(into, [half], axis)
        _fill(path, descriptor, first, offset, stride)
        _fill(path, descriptor, second, offset + half * stride[axis] * width, stride)
        return
    held = np.empty(span // width, into.dtype)
    view, done = held.view(np.uint8).data, 0
    while done < span:
        count = read_at(descriptor, view[done:], offset + done)
        if count == 0:
            raise CorruptCheckpoint(f"{path}: shrank while it was being read; convert it again")
        done += count
    into[...] = np.lib.stride_tricks.as_strided(held, into.shape, [step * width for step in stride], writeable=False)

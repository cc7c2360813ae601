"""Cuts rows out of stored tensors and joins such parts, by the places of their bytes, without copies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from converter.specs import Extent, StoredTensor
from converter.tensors.casts import DTYPES, numpy_dtype

Array = np.ndarray[Any, Any]


def rows_of(tensor: StoredTensor, start: int, stop: int) -> StoredTensor:
    """Rows ``start:stop`` of a tensor, as a tensor."""
    name, shape = f"{tensor.name}[{start}:{stop}]", (stop - start, *tensor.shape[1:])
    if tensor.extent is not None:
        width = math.prod(tensor.shape[1:]) * DTYPES[tensor.dtype]
        return StoredTensor(name, tensor.dtype, shape, _cut(tensor.extent, start * width, stop * width))

    def read_rows(first: int, last: int) -> Array:
        return _read(tensor, start + first, start + last)

    return StoredTensor(name, tensor.dtype, shape, None, read_rows)


def joined(name: str, parts: Sequence[StoredTensor]) -> StoredTensor:
    """One tensor from parts that follow one another along the first axis; an extent if all are runs of one file."""
    rows = [part.shape[0] for part in parts]
    shape = (sum(rows), *parts[0].shape[1:])
    extents = [part.extent for part in parts if part.extent is not None]
    if len(extents) == len(parts) and len({extent.path for extent in extents}) == 1:
        pieces = tuple(piece for extent in extents for piece in extent.runs(0, extent.nbytes))
        extent = Extent(extents[0].path, extents[0].offset, sum(extent.nbytes for extent in extents), pieces)
        return StoredTensor(name, parts[0].dtype, shape, extent)

    def read_rows(start: int, stop: int) -> Array:
        found, before = [], 0
        for part, count in zip(parts, rows, strict=True):
            first, last = max(start - before, 0), min(stop - before, count)
            if first < last:
                found.append(_read(part, first, last))
            before += count
        return np.concatenate(found)

    return StoredTensor(name, parts[0].dtype, shape, None, read_rows)


def _cut(extent: Extent, start: int, stop: int) -> Extent:
    runs = tuple(extent.runs(start, stop))
    offset = runs[0][0] if runs else extent.offset
    return Extent(extent.path, offset, stop - start, runs if len(runs) > 1 else ())


def _read(tensor: StoredTensor, start: int, stop: int) -> Array:
    if tensor.read_rows is not None:
        return tensor.read_rows(start, stop)
    extent, dtype = tensor.extent, numpy_dtype(tensor.dtype)
    if not isinstance(extent, Extent):
        raise ValueError(f"{tensor.name} has neither an extent nor a reader")
    width = math.prod(tensor.shape[1:])
    runs = _cut(extent, start * width * dtype.itemsize, stop * width * dtype.itemsize).runs(0, extent.nbytes)
    found = [np.fromfile(extent.path, dtype, nbytes // dtype.itemsize, offset=offset) for offset, nbytes in runs]
    return (np.concatenate(found) if found else np.empty(0, dtype)).reshape(stop - start, *tensor.shape[1:])

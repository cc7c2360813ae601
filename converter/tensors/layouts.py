"""The layout of a tensor in each framework: a pair of inverse moves, on shapes and on arrays.

All are derived from PyTorch's, which is called plain. In each other one whose elements change their order, PyTorch's
first axis (out) is the last one. Moves therefore work on blocks of PyTorch rows, which are blocks of columns elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from converter.specs import Shape

Array = np.ndarray[Any, Any]
Make = Callable[[Shape, Any], Array]

# A tile of the transpose: one cache line of each of its rows fits into the first-level cache, and all of it into the second.
# It is copied first, to rows that are an odd number of lines apart; those whose distance is a multiple of 4096 bytes evict
# each other. Larger tiles are fewer calls of NumPy, at each of which threads may wait for one another.
_TILE_ROWS = 384
TILE_BYTES = 512
_LINE_BYTES = 64
# Numbers, up to which NumPy's own transpose takes no longer than the calls for tiles.
SMALL = 8192
# The alignment that frameworks need to use a tensor in place; NumPy's own begin 16 bytes into a page.
ALIGNMENT = 64


@dataclass(frozen=True)
class Layout:
    """A pair of inverse moves.

    Attributes:
        name: as rule files call it.
        axes: its axes in terms of PyTorch's; None where the elements keep their order.
        flat_shape: its shape if that differs although the elements keep their order.
    """

    name: str
    axes: tuple[int, ...] | None = None
    flat_shape: Shape | None = None

    def shape_from_pt(self, shape: Shape) -> Shape:
        """The shape in this layout, from ``shape`` in PyTorch."""
        if self.axes is not None:
            return tuple(shape[axis] for axis in self.axes)
        return shape if self.flat_shape is None else self.flat_shape

    def shape_to_pt(self, shape: Shape) -> Shape:
        """The shape in PyTorch, from ``shape`` in this layout: the inverse of ``shape_from_pt``."""
        if self.axes is not None:
            return tuple(shape[self.axes.index(axis)] for axis in range(len(shape)))
        return shape if self.flat_shape is None else ()

    def from_pt(self, rows: Array, make: Make | None = None) -> Array:
        """Moves a block of PyTorch rows ``(rows, ...)`` to this layout ``(..., rows)``; matrices as ``transpose``."""
        if self.axes is None:
            return rows if self.flat_shape is None else rows.reshape(self.flat_shape)
        if rows.size <= SMALL:
            return np.ascontiguousarray(rows.transpose(self.axes))
        turned = transpose(rows.reshape(len(rows), math.prod(rows.shape[1:])), make).reshape(*rows.shape[1:], len(rows))
        # The rest to move are whole runs of PyTorch's first axis; for matrices, nothing.
        return np.ascontiguousarray(turned.transpose(*(axis - 1 for axis in self.axes[:-1]), -1))

    def to_pt(self, columns: Array, make: Make | None = None) -> Array:
        """Moves a block of columns ``(..., rows)`` to PyTorch's layout ``(rows, ...)``: undoes ``from_pt``."""
        if self.axes is None:
            return columns if self.flat_shape is None else columns.reshape(())
        if columns.size <= SMALL:
            return np.ascontiguousarray(columns.transpose([self.axes.index(axis) for axis in range(columns.ndim)]))
        inner = np.argsort(self.axes[:-1])
        runs = np.ascontiguousarray(columns.transpose(*(int(axis) for axis in inner), -1))
        turned = transpose(runs.reshape(math.prod(runs.shape[:-1]), runs.shape[-1]), make)
        return turned.reshape(runs.shape[-1], *runs.shape[:-1])


def transpose(matrix: Array, make: Make | None = None) -> Array:
    """Transposes a matrix ``(m, n)`` into a contiguous ``(n, m)``, some four times as fast as NumPy's own.

    Args:
        matrix: of any dtype.
        make: returns the array for the result, with a shape and a dtype; by default a new one.
    """
    rows, columns = matrix.shape
    result = (make or empty_array)((columns, rows), matrix.dtype)
    width = max(1, TILE_BYTES // matrix.dtype.itemsize)
    scratch = np.empty((min(rows, _TILE_ROWS), width + _LINE_BYTES // matrix.dtype.itemsize), matrix.dtype)
    for left in range(0, columns, width):
        right = min(left + width, columns)
        for top in range(0, rows, _TILE_ROWS):
            bottom = min(top + _TILE_ROWS, rows)
            tile = scratch[: bottom - top, : right - left]
            np.copyto(tile, matrix[top:bottom, left:right])
            np.copyto(result[left:right, top:bottom], tile.T)
    return result


def empty_array(shape: Shape, dtype: Any) -> Array:
    """A new array of any values that a framework can use without a copy: aligned to 64 bytes."""
    return _aligned(shape, dtype, np.empty)


def untouched(shape: Shape, dtype: Any) -> Array:
    """An array of zeros like ``empty_array``'s; a large one takes no memory before it is written to."""
    return _aligned(shape, dtype, np.zeros)


def _aligned(shape: Shape, dtype: Any, make: Callable[..., Array]) -> Array:
    dtype = np.dtype(dtype)
    held = make(math.prod(shape) * dtype.itemsize + ALIGNMENT, np.uint8)
    begin = -held.__array_interface__["data"][0] % ALIGNMENT
    found: Array = held[begin : begin + held.size - ALIGNMENT].view(dtype).reshape(shape)
    return found


def way(source: Layout, target: Layout) -> tuple[Layout, bool]:
    """The pair of moves that leads from one framework's layout to another's, and whether it is ``from_pt``.

    Raises:
        ValueError: both differ from PyTorch's and from one another, for which there is no pair (a mistake in the rules).
    """
    if source == target:
        return LAYOUTS["plain"], True
    if source == LAYOUTS["plain"]:
        return target, True
    if target == LAYOUTS["plain"]:
        return source, False
    raise ValueError(f"no way leads from layout {source.name} to {target.name}")


def shared(source: Layout, target: Layout) -> Layout:
    """The layout that a tensor keeps because both sides have it; PyTorch's if they differ."""
    return source if source == target else LAYOUTS["plain"]


LAYOUTS: Mapping[str, Layout] = {
    layout.name: layout
    for layout in (
        Layout("plain"),  # ``(...)`` in both, PyTorch's own
        Layout("scalar", flat_shape=(1,)),  # ``()`` in PyTorch, ``(1,)`` elsewhere
        Layout("dense", axes=(1, 0)),  # ``(out, in)`` in PyTorch, ``(in, out)`` elsewhere
        Layout("conv1d", axes=(2, 1, 0)),  # ``(out, in, k)`` in PyTorch, ``(k, in, out)`` elsewhere
        Layout("conv2d", axes=(2, 3, 1, 0)),  # ``(out, in, kh, kw)`` in PyTorch, ``(kh, kw, in, out)`` elsewhere
    )
}

"""Moves tensors from extent to extent: in the kernel if nothing changes, else by blocks of rows.

Every thread owns its blocks, and reads and writes at an offset. So a conversion maps no file, and its memory is
independent of the checkpoint's size.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from converter.specs import Extent, Shape, StoredTensor
from converter.tensors.casts import DTYPES, numpy_dtype
from converter.tensors.files import Files
from converter.tensors.layouts import LAYOUTS, SMALL, TILE_BYTES, Layout, Make, transpose
from converter.tensors.parallel import THREADS

Array = np.ndarray[Any, Any]

# Both ends of one tensor per thread; all threads together stay below 100 MB.
BLOCK_BYTES = 96 * 2**20 // (2 * THREADS)
COPY_BYTES = 32 * 2**20
STRIP_BYTES = 2**19


@dataclass(frozen=True, slots=True)
class Move:
    """One tensor from ``source`` to ``target``; both have an extent.

    Attributes:
        name: nested PyTorch name, for messages and hashes.
        from_pt: True towards the layout, False from it back to PyTorch's.
        shared: the layout of both ends, if nothing moves; hashes are of PyTorch's.
    """

    name: str
    source: StoredTensor
    target: StoredTensor
    layout: Layout
    from_pt: bool
    shared: Layout = LAYOUTS["plain"]

    @property
    def copies(self) -> bool:
        """Whether the bytes stay unchanged."""
        return self.layout.axes is None and self.source.dtype == self.target.dtype

    @property
    def pt_shape(self) -> tuple[int, ...]:
        """Shape in PyTorch's layout, with at least one axis."""
        shape = self.source.shape if self.from_pt else self.target.shape
        return shape or (1,)


@dataclass(frozen=True, slots=True)
class Block:
    """Some rows of a move: those of PyTorch's first axis where the layout changes, else of the flat tensor."""

    move: Move
    start: int
    stop: int


class _Kept(threading.local):
    """Memory that a thread reuses for block after block: getting new pages costs as much as filling them."""

    def __init__(self) -> None:
        self._held: dict[str, Array] = {}

    def maker(self, role: str) -> Make:
        """Makes arrays of any values for one role, each of them good until the next one is made."""

        def make(shape: Shape, dtype: Any) -> Array:
            dtype = np.dtype(dtype)
            nbytes = math.prod(shape) * dtype.itemsize
            held = self._held.get(role)
            if held is None or held.nbytes < nbytes:
                self._held.pop(role, None)
                held = self._held[role] = np.empty(nbytes, np.uint8)
            found: Array = held[:nbytes].view(dtype).reshape(shape)
            return found

        return make


kept = _Kept()


def blocks(moves: Iterable[Move], limit: int = BLOCK_BYTES // 2, copy_limit: int = COPY_BYTES) -> Iterator[Block]:
    """Cuts moves into blocks of at most ``limit`` bytes on either side (but at least one row).

    Args:
        moves: to be cut.
        limit: for what passes through memory.
        copy_limit: for what is copied in the kernel.
    """
    for move in moves:
        if move.layout.axes is None:
            rows, width = move.source.size, max(DTYPES[move.source.dtype], DTYPES[move.target.dtype])
            limit_here = copy_limit if move.copies else limit
        else:
            rows = move.pt_shape[0]
            width = move.source.size // max(rows, 1) * max(DTYPES[move.source.dtype], DTYPES[move.target.dtype])
            limit_here = limit
        step = max(1, limit_here // max(width, 1))
        for start in range(0, rows, step):
            yield Block(move, start, min(start + step, rows))


def write_block(files: Files, block: Block) -> int:
    """Carries out one block; gives how many finite values the target's dtype could only hold as infinite."""
    move = block.move
    source, target = extent_of(move.source), extent_of(move.target)
    if move.copies:
        width = DTYPES[move.source.dtype]
        files.copy(source, target, block.start * width, block.stop * width)
        return 0
    held = read_rows(files, move.source, block, not move.from_pt, "source")
    data, overflowed = cast_and_count(held, move)
    if move.layout.axes is not None:
        data = (move.layout.from_pt if move.from_pt else move.layout.to_pt)(data, kept.maker("turned"))
    _write_rows(files, move.target, block, data, columns=move.from_pt)
    return overflowed


def read_rows(files: Files, tensor: StoredTensor, block: Block, columns: bool, role: str) -> Array:
    """Reads the part of a stored tensor that a block is about.

    Args:
        files: with the tensor's file open.
        tensor: source or target of the block's move.
        block: which rows.
        columns: whether PyTorch's rows are this tensor's last axis.
        role: whose memory the thread uses for it.

    Returns:
        An array, flat for plain layouts, ``(rows, ...)`` or ``(..., rows)`` for the others; good until this thread reads
        for the same role again.
    """
    move, count, make = block.move, block.stop - block.start, kept.maker(role)
    extent, dtype = extent_of(tensor), numpy_dtype(tensor.dtype)
    if move.layout.axes is None:
        flat = make((count,), dtype)
        files.read(extent, block.start * dtype.itemsize, flat)
        return flat
    rest = move.pt_shape[1:]
    rows = move.pt_shape[0]
    if not columns:
        held = make((count, *rest), dtype)
        files.read(extent, block.start * (held.nbytes // count), held)
        return held
    held = make((*(move.pt_shape[axis] for axis in move.layout.axes[:-1]), count), dtype)
    if count == rows:
        files.read(extent, 0, held)
        return held
    for line, into in enumerate(held.reshape(-1, count)):
        files.read(extent, (line * rows + block.start) * dtype.itemsize, into)
    return held


def read_turned(files: Files, matrix: StoredTensor, into: Array) -> None:
    """Reads a matrix and transposes it on the way, so that little of it is ever in memory twice.

    Args:
        files: with the matrix's file open.
        matrix: ``(m, n)``, a run of bytes.
        into: ``(n, m)`` of its dtype, contiguous.
    """
    rows, columns = matrix.shape
    step = max(1, 4 * STRIP_BYTES // max(1, columns * into.itemsize))
    for start in range(0, rows, step):
        held = kept.maker("turned from")((min(step, rows - start), columns), into.dtype)
        files.read(extent_of(matrix), start * columns * into.itemsize, held)
        transpose(held, partial(_given, into[:, start : start + len(held)]))


def _given(part: Array, shape: Shape, dtype: Any) -> Array:
    """A maker of an array that is there already."""
    del shape, dtype
    return part


def _write_rows(files: Files, tensor: StoredTensor, block: Block, data: Array, columns: bool) -> None:
    extent, width = extent_of(tensor), DTYPES[tensor.dtype]
    rows, count = block.move.pt_shape[0], block.stop - block.start
    if block.move.layout.axes is None or not columns or count == rows:
        files.write(extent, block.start * (data.nbytes // count), data)
        return
    for line, values in enumerate(data.reshape(-1, count)):
        files.write(extent, (line * rows + block.start) * width, values)


def strips(data: Array, layout: Layout, from_pt: bool) -> Iterator[tuple[int, Array]]:
    """Moves a whole tensor to another layout, or back, some of the result at a time.

    Args:
        data: the tensor; a large matrix comes in strips, whole tiles wide, and all else in one.
        layout: with axes.
        from_pt: True towards it, False from it back to PyTorch's.

    Returns:
        Where each strip begins along the result's first axis, and the strip; good until this thread asks for the next.
    """
    if data.ndim != 2 or data.size <= SMALL:
        yield 0, (layout.from_pt if from_pt else layout.to_pt)(data, kept.maker("turned"))
        return
    rows, columns = data.shape
    step = max(1, STRIP_BYTES // (TILE_BYTES * max(1, rows))) * (TILE_BYTES // data.dtype.itemsize)
    for start in range(0, columns, step):
        yield start, transpose(data[:, start : start + step], kept.maker("turned"))


def cast_and_count(held: Array, move: Move) -> tuple[Array, int]:
    """Casts some of a move's numbers; says how many finite ones became infinite."""
    data = cast(held, move.target.dtype)
    if DTYPES[move.target.dtype] < DTYPES[move.source.dtype] or move.source.dtype == "bfloat16":
        return data, int(np.count_nonzero(np.isinf(data) & np.isfinite(held)))
    return data, 0


def cast(data: Array, dtype: str) -> Array:
    """Casts a block; between the floats, rounding is to nearest, ties to even."""
    wanted = numpy_dtype(dtype)
    if data.dtype == wanted:
        return data
    with np.errstate(over="ignore", invalid="ignore"):  # infinity and NaN are what they shall become
        return data.astype(wanted)


def extent_of(tensor: StoredTensor) -> Extent:
    """The place of a tensor that is known to be a run of bytes."""
    if tensor.extent is None:
        raise ValueError(f"{tensor.name} has no extent")
    return tensor.extent

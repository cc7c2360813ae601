"""Cuts moves into batches: what lies close together at one end of them is read at once, in the order of its file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from converter.specs import Extent, StoredTensor
from converter.tensors.casts import DTYPES, numpy_dtype
from converter.tensors.moves import BLOCK_BYTES, Block, Move, extent_of, kept

Array = np.ndarray[Any, Any]
End = Literal["source", "target"]
# Small tensors are read together up to this many bytes, and large ones that nobody turns in parts of as many.
GATHERED_BYTES = 2**19


@dataclass(frozen=True, slots=True)
class Batch:
    """Blocks that are read at once from one end of their moves.

    Attributes:
        extent: from the first byte of the first block to the last of the last, with what lies between them.
        blocks: in the order of the file.
        number: how many batches of the same file come before it.
    """

    extent: Extent
    blocks: tuple[Block, ...]
    number: int

    def room(self) -> Array:
        """Memory of this thread for the bytes, aligned as they are in the file: ``(extent.nbytes,)``, uint8."""
        held: Array = kept.maker("batch")((self.extent.nbytes + 64,), np.uint8)
        begin = (self.extent.offset - held.__array_interface__["data"][0]) % 64
        return held[begin : begin + self.extent.nbytes]

    def part(self, room: Array, block: Block, end: StoredTensor) -> Array:
        """One block's numbers among the bytes that were read: as the end's shape where it is whole, else flat."""
        width = DTYPES[end.dtype]
        whole = block.stop - block.start == rows_of(block.move)
        begin = extent_of(end).offset - self.extent.offset + (0 if whole else block.start * width)
        nbytes = end.size * width if whole else (block.stop - block.start) * width
        found: Array = room[begin : begin + nbytes].view(numpy_dtype(end.dtype))
        return found.reshape(end.shape or (1,)) if whole else found


@dataclass(frozen=True, slots=True)
class Order:
    """What a pass over some files reads.

    Attributes:
        batches: all of a file one after the other, in its order.
        loose: moves whose end is too large to be held, or lies in several runs: they are read by rows.
        in_order: files whose batches follow one another, so that they can be summed on the way.
    """

    batches: tuple[Batch, ...]
    loose: tuple[Move, ...]
    in_order: frozenset[Path]


def rows_of(move: Move) -> int:
    """How many rows the blocks of a move count: PyTorch's where the layout changes, else numbers."""
    return move.source.size if move.layout.axes is None else move.pt_shape[0]


def in_order(moves: Iterable[Move], end: End, hashed: bool, part_bytes: int | None = None) -> Order:
    """Puts moves in the order in which one of their ends lies in its file.

    Args:
        moves: all of the files that may be summed.
        end: which one is read.
        hashed: whether each tensor's bytes are needed as PyTorch has them, so that one in another layout is held whole.
        part_bytes: what is read at most of a tensor that need not be held whole; None: as much as of small ones together.
    """
    ends = [(move, extent_of(getattr(move, end))) for move in moves]
    ends.sort(key=lambda pair: (str(pair[1].path), pair[1].offset, pair[1].nbytes))
    most = part_bytes or GATHERED_BYTES
    loose: list[Move] = []
    unordered: set[Path] = set()
    placed: list[tuple[Block, int, int, Path]] = []
    reached: dict[Path, int] = {}
    for move, extent in ends:
        whole = move.layout.axes is not None or (hashed and move.shared.axes is not None)
        if extent.nbytes == 0:
            loose.append(move)
        elif extent.pieces or (whole and _largest(move) > BLOCK_BYTES):
            loose.append(move)
            unordered.add(extent.path)
        else:
            if extent.offset < reached.get(extent.path, 0):
                unordered.add(extent.path)
            reached[extent.path] = max(reached.get(extent.path, 0), extent.offset + extent.nbytes)
            rows = rows_of(move)
            placed += _parts(move, extent, rows if whole else max(1, most // (extent.nbytes // rows)))
    return Order(tuple(_gathered(placed)), tuple(loose), frozenset(reached) - unordered)


def _largest(move: Move) -> int:
    return move.source.size * max(DTYPES[move.source.dtype], DTYPES[move.target.dtype])


def _parts(move: Move, extent: Extent, step: int) -> Iterator[tuple[Block, int, int, Path]]:
    rows = rows_of(move)
    width = extent.nbytes // rows
    for start in range(0, rows, step):
        stop = min(start + step, rows)
        yield Block(move, start, stop), extent.offset + start * width, extent.offset + stop * width, extent.path


def _gathered(placed: Iterable[tuple[Block, int, int, Path]]) -> Iterator[Batch]:
    """Joins blocks that lie close together; ``placed`` has them in the order of their files."""
    blocks: list[Block] = []
    number = begin = end = 0
    path, split = Path(), False
    for block, first, last, where in placed:
        alone = block.stop - block.start != rows_of(block.move)  # a part of a tensor, whose hash is taken as it is read
        if blocks and (alone or split or where != path or first < end or last - begin > GATHERED_BYTES):
            yield Batch(Extent(path, begin, end - begin), tuple(blocks), number)
            blocks, number = [], number + 1 if where == path else 0
        if not blocks:
            begin, path = first, where
        blocks.append(block)
        end, split = last, alone
    if blocks:
        yield Batch(Extent(path, begin, end - begin), tuple(blocks), number)

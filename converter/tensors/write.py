"""Carries out moves: reads each source once, in the order of its file, and writes every tensor where it belongs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from converter.folder.records import FileRecord
from converter.tensors.batches import Batch, in_order, rows_of
from converter.tensors.casts import DTYPES
from converter.tensors.files import Files
from converter.tensors.moves import COPY_BYTES, Block, Move, blocks, cast_and_count, extent_of, strips, write_block
from converter.tensors.parallel import in_parallel
from converter.tensors.passing import PassingSum, together

Array = np.ndarray[Any, Any]
Overflows = list[tuple[str, int]]


def write_moves(
    files: Files, moves: Iterable[Move], summed: Collection[Path], advance: Callable[[int], None]
) -> tuple[Mapping[str, int], Mapping[Path, FileRecord]]:
    """Moves every tensor.

    Args:
        files: with every source opened for reading and every target for writing.
        moves: source and target of every tensor.
        summed: files of the source to sum on the way; none where nothing is checked.
        advance: told how many bytes were dealt with.

    Returns:
        By tensor, how many values became infinite in the requested dtype; and the sums of those of ``summed`` that
        could be read in order.
    """
    order = in_order(moves, "source", hashed=False, part_bytes=None if summed else COPY_BYTES)
    sums = {path: PassingSum(path, files, True) for path in order.in_order.intersection(summed)}
    counts: Overflows = []  # blocks of one tensor may finish at the same time: only appended to

    def batch_task(batch: Batch) -> Callable[[], int]:
        return lambda: _write_batch(files, batch, sums.get(batch.extent.path), counts)

    def loose_task(block: Block) -> Callable[[], int]:
        return lambda: _counted(counts, block, write_block(files, block))

    tasks = [*map(batch_task, order.batches), *map(loose_task, blocks(order.loose))]
    in_parallel(together(tasks, sums.values()), advance)
    records = {path: taken.finish() for path, taken in sums.items()}
    overflowed: dict[str, int] = {}
    for name, count in sorted(counts):
        overflowed[name] = overflowed.get(name, 0) + count
    return overflowed, records


def _write_batch(files: Files, batch: Batch, sums: PassingSum | None, counts: Overflows) -> int:
    first = batch.blocks[0]
    if sums is None and len(batch.blocks) == 1 and first.move.copies:
        return _counted(counts, first, write_block(files, first))
    room = batch.room()
    if sums is None:
        files.read(batch.extent, 0, room)
    else:
        sums.read(batch.number, batch.extent.offset, room)
    return sum(
        _counted(counts, block, _write_part(files, block, batch.part(room, block, block.move.source)))
        for block in batch.blocks
    )


def _write_part(files: Files, block: Block, held: Array) -> int:
    """Writes numbers that have been read; gives how many finite ones became infinite."""
    move, target = block.move, extent_of(block.move.target)
    width = DTYPES[move.target.dtype]
    if move.layout.axes is None:
        data, overflowed = cast_and_count(held, move)
        files.write(target, block.start * width, data)
        return overflowed
    overflowed = 0
    for start, strip in strips(held, move.layout, move.from_pt):
        data, count = cast_and_count(strip, move)
        files.write(target, start * (data.nbytes // len(data)), data)
        overflowed += count
    return overflowed


def _counted(counts: Overflows, block: Block, overflowed: int) -> int:
    """Notes what overflowed; gives how many bytes of the source the block is."""
    if overflowed:
        counts.append((block.move.name, overflowed))
    rows = max(1, rows_of(block.move))
    return block.move.source.size * DTYPES[block.move.source.dtype] * (block.stop - block.start) // rows

"""Re-opens what was written and compares it with the source bit for bit; takes the hashes on the way.

A tensor is compared by bringing the target back into PyTorch's layout, which is the inverse of the move that wrote it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import blake3
import numpy as np

from converter.errors import CheckError
from converter.folder.manifest import TensorRecord
from converter.folder.records import USUAL, FileRecord, hash_file
from converter.specs import StoredTensor
from converter.tensors.batches import Batch, in_order, rows_of
from converter.tensors.casts import DTYPES, numpy_dtype
from converter.tensors.files import Files
from converter.tensors.moves import BLOCK_BYTES, Block, Move, blocks, cast, extent_of, kept, read_rows, strips
from converter.tensors.parallel import in_parallel
from converter.tensors.passing import PassingSum, together

Array = np.ndarray[Any, Any]
_COMPARED = 2**16


def check_moves(
    files: Files,
    moves: Iterable[Move],
    hashed: Mapping[Path, tuple[str, ...]],
    advance: Callable[[int], None],
) -> tuple[tuple[TensorRecord, ...], Mapping[Path, FileRecord]]:
    """Compares every tensor of a finished conversion with its source, and hashes tensors and files.

    Args:
        files: with every source and target opened for reading.
        moves: source and target of every tensor; the target as its container's reader found it.
        hashed: files to hash, each with the kinds of sums to take. A file of targets that needs BLAKE3 alone is hashed
            while it is read for the comparison.
        advance: called with the number of bytes done.

    Raises:
        CheckError: a tensor differs; says which and where first.
    """
    moves = list(moves)
    order = in_order(moves, "target", hashed=True)
    on_the_way = {path for path in order.in_order if hashed.get(path) == USUAL}
    sums = {path: PassingSum(path, files, path in on_the_way) for path in {b.extent.path for b in order.batches}}
    found = _Found({}, {}, {})

    def hash_task(path: Path) -> Callable[[], int]:
        def run() -> int:
            found.files[path] = hash_file(path, hashed[path])
            return 0  # progress counts tensors

        return run

    def batch_task(batch: Batch) -> Callable[[], int]:
        return lambda: _check_batch(files, batch, sums[batch.extent.path], found)

    def loose_task(move: Move) -> Callable[[], int]:
        def run() -> int:
            found.tensors[move.name] = _check_by_rows(files, move)
            return move.source.size * DTYPES[move.source.dtype]

        return run

    alone = (path for path in hashed if path not in on_the_way)
    tasks = [*map(hash_task, alone), *map(batch_task, order.batches), *map(loose_task, order.loose)]
    in_parallel(together(tasks, sums.values()), advance)
    found.files.update((path, sums[path].finish()) for path in on_the_way)
    return tuple(found.tensors[move.name] for move in moves), found.files


@dataclass(frozen=True, slots=True)
class _Found:
    """What threads have found so far; ``begun`` are the hashes of tensors that are read in parts."""

    tensors: dict[str, TensorRecord]
    files: dict[Path, FileRecord]
    begun: dict[str, Any]


def _check_batch(files: Files, batch: Batch, sums: PassingSum, found: _Found) -> int:
    room, first = batch.room(), batch.blocks[0]
    in_parts = first.stop - first.start != rows_of(first.move)
    begun = found.begun.setdefault(first.move.name, blake3.blake3()) if in_parts else None
    sums.read(batch.number, batch.extent.offset, room, also=begun)
    done = 0
    for block in batch.blocks:
        move, theirs = block.move, batch.part(room, block, block.move.target)
        digest = begun or blake3.blake3()
        for start, ours, part in _pairs(files, block, theirs):
            _compare(move, start, ours, part)
            if begun is None and move.shared.axes is None:
                digest.update(part.reshape(-1).view(np.uint8).data)
        if move.shared.axes is not None:
            # Its bytes were copied unchanged; the manifest's hash is of PyTorch's rows, for any container.
            for _, strip in strips(theirs, move.shared, False):
                digest.update(strip.reshape(-1).view(np.uint8).data)
        if block.stop == rows_of(move):
            found.tensors[move.name] = TensorRecord(move.name, move.target.dtype, _pt_shape(move), digest.hexdigest())
        done += move.source.size * DTYPES[move.source.dtype] * (block.stop - block.start) // rows_of(move)
    return done


def _pairs(files: Files, block: Block, theirs: Array) -> Iterator[tuple[int, Array, Array]]:
    """Reads the source of what was read of the target; gives both in PyTorch's order, in parts that the cache holds."""
    move, source, dtype = block.move, extent_of(block.move.source), numpy_dtype(block.move.source.dtype)
    make = kept.maker("source")
    if move.layout.axes is None:
        ours = make((block.stop - block.start,), dtype)
        files.read(source, block.start * dtype.itemsize, ours)
        yield block.start, ours, theirs.reshape(-1)
    elif move.from_pt:
        for start, strip in strips(theirs, move.layout, False):
            ours = make(strip.shape, dtype)
            files.read(source, start * (ours.nbytes // len(strip)), ours)
            yield start, ours, strip
    else:
        ours = make(move.source.shape, dtype)
        files.read(source, 0, ours)
        for start, strip in strips(ours, move.layout, False):
            yield start, strip, theirs[start : start + len(strip)]


def differing(moves: Iterable[Move]) -> set[str]:
    """Names of the moves whose target does not hold its source bit for bit, cast where the dtypes differ.

    Args:
        moves: source and target of every tensor, in files that are both there.
    """
    moves, found = list(moves), set[str]()
    order = in_order(moves, "target", hashed=False)

    def batch_task(batch: Batch) -> Callable[[], int]:
        def run() -> int:
            room = batch.room()
            files.read(batch.extent, 0, room)
            for block in batch.blocks:
                theirs = batch.part(room, block, block.move.target)
                note(block.move, all(_are_equal(block.move, *pair[1:]) for pair in _pairs(files, block, theirs)))
            return 0

        return run

    def loose_task(move: Move) -> Callable[[], int]:
        def run() -> int:
            pairs = (
                (_read(files, move.source, block, "source"), _read(files, move.target, block, "target"))
                for block in blocks([move], copy_limit=BLOCK_BYTES // 2)
            )
            note(move, all(_are_equal(move, *pair) for pair in pairs))
            return 0

        return run

    def note(move: Move, equal: bool) -> None:
        if not equal:
            found.add(move.name)

    with Files() as files:
        for move in moves:
            files.open(extent_of(move.source).path)
            files.open(extent_of(move.target).path)
        in_parallel([*map(batch_task, order.batches), *map(loose_task, order.loose)])
    return found


def _are_equal(move: Move, ours: Array, theirs: Array) -> bool:
    return same_bits(cast(ours, move.target.dtype), theirs)


def _compare(move: Move, start: int, ours: Array, theirs: Array) -> None:
    if move.source.dtype != move.target.dtype:
        ours = cast(ours, move.target.dtype)
    if not same_bits(ours, theirs):
        raise _differs(move, start, ours, theirs)


def _pt_shape(move: Move) -> tuple[int, ...]:
    return move.target.shape if not move.from_pt else move.shared.shape_to_pt(move.source.shape)


def _check_by_rows(files: Files, move: Move) -> TensorRecord:
    """Compares a tensor that is too large to be held, or lies in several runs."""
    digest = blake3.blake3()
    for block in blocks([move], copy_limit=BLOCK_BYTES // 2):
        ours, theirs = _read(files, move.source, block, "source"), _read(files, move.target, block, "target")
        _compare(move, block.start, ours, theirs)
        if move.shared.axes is None:
            digest.update(theirs.reshape(-1).view(np.uint8).data)
    shape = _pt_shape(move)
    if move.shared.axes is not None:
        turned = Move(move.name, move.target, StoredTensor(move.name, move.target.dtype, shape), move.shared, False)
        for block in blocks([turned], copy_limit=BLOCK_BYTES // 2):
            digest.update(_read(files, turned.source, block, "target").reshape(-1).view(np.uint8).data)
    return TensorRecord(move.name, move.target.dtype, shape, digest.hexdigest())


def _read(files: Files, tensor: StoredTensor, block: Block, role: str) -> Array:
    """Reads a block in PyTorch's layout, as ``read_rows`` does."""
    move = block.move
    turned = move.from_pt == (tensor is move.target)
    data = read_rows(files, tensor, block, turned, role)
    return move.layout.to_pt(data, kept.maker("turned")) if turned and move.layout.axes is not None else data


def same_bits(a: Array, b: Array) -> bool:
    """Whether two contiguous arrays of the same size hold the same bytes (NaN equals the same NaN, 0 not -0)."""
    if a.nbytes != b.nbytes:
        return False
    if a.nbytes <= _COMPARED:
        return a.tobytes() == b.tobytes()
    word = np.uint64 if a.nbytes % 8 == 0 else np.uint8
    ours, theirs = a.reshape(-1).view(word), b.reshape(-1).view(word)
    # By pieces: the array of booleans that a comparison makes stays in the cache.
    return all(
        bool((ours[start : start + _COMPARED] == theirs[start : start + _COMPARED]).all())
        for start in range(0, len(ours), _COMPARED)
    )


def _differs(move: Move, start: int, ours: Array, theirs: Array) -> CheckError:
    width = DTYPES[move.target.dtype]
    pairs = zip(ours.reshape(-1).view(np.uint8), theirs.reshape(-1).view(np.uint8), strict=True)
    first = next(position for position, (a, b) in enumerate(pairs) if a != b) // width
    return CheckError(
        f"{move.target.name}: what was written differs from the source, first at element {first:,} of the rows from "
        f"{start:,}: {ours.reshape(-1)[first]!r} became {theirs.reshape(-1)[first]!r}; the disk or the memory of "
        "this machine may be failing: convert again, elsewhere"
    )

"""Re-opens what was written and compares it with the source bit for bit; takes the hashes on the way.

A tensor is compared by bringing the target back into PyTorch's layout, which is the inverse of the move that wrote it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import blake3
import numpy as np

from converter.errors import CheckError
from converter.folder.manifest import TensorRecord
from converter.folder.records import FileRecord, hash_file
from converter.specs import StoredTensor
from converter.tensors.casts import DTYPES
from converter.tensors.files import Files
from converter.tensors.moves import BLOCK_BYTES, Block, Move, blocks, cast, kept, read_rows
from converter.tensors.parallel import in_parallel

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
        hashed: files to hash, each with the kinds of sums to take.
        advance: called with the number of bytes done.

    Raises:
        CheckError: a tensor differs; says which and where first.
    """
    tensors: dict[str, TensorRecord] = {}
    records: dict[Path, FileRecord] = {}

    def hash_task(path: Path) -> Callable[[], int]:
        def run() -> int:
            records[path] = hash_file(path, hashed[path])
            return records[path].size

        return run

    def check_task(move: Move) -> Callable[[], int]:
        def run() -> int:
            tensors[move.name] = _check_move(files, move)
            return move.source.size * DTYPES[move.source.dtype]

        return run

    moves = list(moves)
    largest_first = sorted(moves, key=lambda move: -move.source.size)
    in_parallel([*map(hash_task, hashed), *map(check_task, largest_first)], advance)
    return tuple(tensors[move.name] for move in moves), records


def _check_move(files: Files, move: Move) -> TensorRecord:
    digest = blake3.blake3()
    for block in blocks([move], copy_limit=BLOCK_BYTES // 2):
        ours, theirs = _read(files, move.source, block, "source"), _read(files, move.target, block, "target")
        if move.source.dtype != move.target.dtype:
            ours = cast(ours, move.target.dtype)
        if not same_bits(ours, theirs):
            raise _differs(move, block, ours, theirs)
        if move.shared.axes is None:
            digest.update(theirs.reshape(-1).view(np.uint8).data)
    shape = move.target.shape if not move.from_pt else move.shared.shape_to_pt(move.source.shape)
    if move.shared.axes is not None:
        # Its bytes were copied unchanged; the manifest's hash is of PyTorch's rows, for any container.
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
    word = np.uint64 if a.nbytes % 8 == 0 else np.uint8
    ours, theirs = a.reshape(-1).view(word), b.reshape(-1).view(word)
    # By pieces: the array of booleans that a comparison makes stays in the cache.
    return all(
        np.array_equal(ours[start : start + _COMPARED], theirs[start : start + _COMPARED])
        for start in range(0, len(ours), _COMPARED)
    )


def _differs(move: Move, block: Block, ours: Array, theirs: Array) -> CheckError:
    width = DTYPES[move.target.dtype]
    pairs = zip(ours.reshape(-1).view(np.uint8), theirs.reshape(-1).view(np.uint8), strict=True)
    first = next(position for position, (a, b) in enumerate(pairs) if a != b) // width
    return CheckError(
        f"{move.target.name}: what was written differs from the source, first at element {first:,} of the rows from "
        f"{block.start:,}: {ours.reshape(-1)[first]!r} became {theirs.reshape(-1)[first]!r}; the disk or the memory of "
        "this machine may be failing: convert again, elsewhere"
    )

"""Carries out a planned conversion: writes a staged folder, checks it, and lets it appear.

What goes wrong before the last rename leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import math
import os
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from converter.checkpoints import shards
from converter.checkpoints.detect import model_folder
from converter.checkpoints.writers import read_back, seal, write_header
from converter.conversion.job import Job, Progress, Written
from converter.conversion.other_layouts import write_config, write_processor
from converter.conversion.plan import Plan
from converter.errors import CheckError, ConverterError, CorruptCheckpoint, PlanError, TargetError, printable
from converter.folder import manifest
from converter.folder.files import identity, named, write_json
from converter.folder.licence import licence_of
from converter.folder.manifest import TensorRecord
from converter.folder.records import SUMS, USUAL, FileRecord, file_record, hash_file
from converter.folder.replacing import check_replaced, outlook
from converter.folder.sidecars import copy_sidecars, left_behind, rewrite_config, sidecars_of
from converter.folder.staging import explained, staged
from converter.names.buffers import Array, holds
from converter.names.frameworks import frameworks
from converter.specs import Extent, StoredTensor
from converter.tensors.casts import DTYPES, FLOATS, numpy_dtype
from converter.tensors.check import check_moves, same_bits
from converter.tensors.files import Files
from converter.tensors.moves import Move, cast, extent_of
from converter.tensors.parallel import THREADS
from converter.tensors.write import write_moves

_SPOOL = "spool"
_SPOOL_ROWS_BYTES = 8 * 2**20


def write_job(job: Job, overwrite: bool, check: bool) -> Written:
    """Carries out a job.

    Args:
        job: what is to be done.
        overwrite: whether a folder in its place is replaced.
        check: whether the output is re-opened and compared with the source.

    Raises:
        ConverterError: nothing was written then.
    """
    with explained(job.out), staged(job.out, overwrite) as staging, _unchanged(job):
        check_replaced(job.out, sidecars_of(job.sidecars))  # now, not when all is written
        needed = sum(math.prod(tensor.shape) * DTYPES[tensor.dtype] for tensor in job.plan.tensors)
        _check_room(job, needed, staging)
        moves, logit_scale, overflowed, read = _write_weights(job, staging, check)
        scale = {} if job.config.family.init_scale is None else {job.config.family.init_scale: logit_scale}
        raw, rewritten = rewrite_config(job.config.raw, scale, _float_dtype(moves))
        copied, mended = copy_sidecars(
            job.sidecars, staging, for_version_4=not frameworks()[job.plan.target].transformers_5
        )
        copied = (*copied, *write_processor(staging, job.config))
        config_name = "config.json"
        if job.plan.table is None:
            write_json(staging / config_name, raw)
        else:
            config_name, rewritten = write_config(staging, job.config, job.plan.table.layout), ()
        tensors, hashes = _check(staging, job, moves, read) if check else ((), {})
        (staging / _SPOOL).unlink(missing_ok=True)
        record = partial(hash_file, kinds=job.sums) if check else file_record
        written_here = (path.name for path in staging.iterdir() if path.is_file())
        weights = sorted(name for name in written_here if name not in (*copied, config_name))
        files = tuple(
            hashes.get(staging / name) or replace(record(staging / name), name=name)
            for name in (*weights, config_name, *copied)
        )
        source_files = tuple(_source_record(job, file, hashes.get(file)) for file in job.checkpoint.files)
        rewritten = (*job.config.rewritten, *rewritten, *mended)
        replaced, kept = outlook(job.out, [file.name for file in files])
        left = not_taken(job, copied)
        written = Written(needed, files, tensors, rewritten, source_files, overflowed, replaced, kept, left)
        write_json(staging / manifest.NAME, _manifest(job, written))
    return written


def not_taken(job: Job, copied: Collection[str]) -> tuple[str, ...]:
    """Files beside the source's weights that are not copied."""
    return left_behind(job.beside, {*copied, *(path.name for path in job.checkpoint.files)})


@contextlib.contextmanager
def _unchanged(job: Job) -> Iterator[None]:
    """Refuses a source that changed during the run, which also explains any other error then."""
    reason: Exception | None = None
    try:
        yield
    except (ConverterError, OSError) as error:
        reason = error
    try:
        changed = any(identity(path) != before for path, before in job.before.items())
    except OSError:
        changed = True
    if changed:
        raise CorruptCheckpoint(f"{job.source}: changed while it was being read; convert it again") from reason
    if reason is not None:
        raise reason


def _check_room(job: Job, needed: int, staging: Path) -> None:
    """Compares the free space with the weights, the new buffers, and the copy of what is read by rows."""
    spooled = sum(
        tensor.source.size * DTYPES[tensor.source.dtype] for tensor in job.plan.tensors if tensor.source.extent is None
    )
    needed += spooled + sum(value.nbytes for value in job.plan.restored.values())
    total, _, free = shutil.disk_usage(staging)
    if total and needed > free:  # some file systems, in memory for instance, do not know their size
        raise TargetError(
            f"{job.out}: cannot be written: it needs {needed / 1e6:,.0f} MB, the disk has {free / 1e6:,.0f} MB "
            "free; free some space"
        )


def _sum_of_the_hub(job: Job, file: Path) -> str | None:
    return job.origin.sha256.get(file.name) if job.origin else None


def _sums_of_source(job: Job, file: Path) -> tuple[str, ...]:
    """The kinds of sums to take of a source file: also the Hub's, if that has one to compare with."""
    return job.sums if _sum_of_the_hub(job, file) is None else tuple(SUMS)


def _source_record(job: Job, file: Path, hashed: FileRecord | None) -> FileRecord:
    """A file of the source; where the Hub has recorded its sha256, that must be what was read."""
    record = hashed or file_record(file)
    recorded = _sum_of_the_hub(job, file)
    if recorded is not None and record.sha256 not in (None, recorded):
        raise CorruptCheckpoint(
            f"{file}: its sha256 differs from the Hub's; remove it from the cache and convert again"
        )
    return record


def _write_weights(
    job: Job, staging: Path, check: bool
) -> tuple[list[Move], float, Mapping[str, int], Mapping[Path, FileRecord]]:
    """Writes the weights file; returns where everything went, logit_scale, what overflowed, and sums of the source."""
    sources = _spooled(job.plan, staging / _SPOOL)
    allocated = _allocate(staging, job)
    placed = allocated if job.plan.table is None else job.plan.table.ours(allocated)
    moves = [
        Move(tensor.canonical, source, placed[tensor.name], tensor.layout, tensor.from_pt, tensor.shared)
        for tensor, source in zip(job.plan.tensors, sources, strict=True)
    ]
    if check:
        job.checkpoint.check()
    with Files() as files:
        for move in moves:
            files.open(extent_of(move.source).path)
        for target in placed.values():
            files.open(extent_of(target).path, write=True)
        logit_scale = _check_values(files, job, moves)
        summed = [file for file in job.checkpoint.files if check and _sums_of_source(job, file) == USUAL]
        overflowed, read = write_moves(files, moves, summed, _advance("convert", moves, job.progress))
        for name, value in job.plan.restored.items():
            files.write(extent_of(placed[name]), 0, np.ascontiguousarray(value))
    for path in sorted({extent_of(target).path for target in placed.values()}):
        seal(path, THREADS)
    return moves, logit_scale, overflowed, read


def _spooled(plan: Plan, spool: Path) -> list[StoredTensor]:
    """Gives every source tensor an extent: those without one are read by rows into another file."""
    sources = []
    for tensor in plan.tensors:
        source = tensor.source
        if source.extent is None and source.read_rows is not None:
            with spool.open("ab") as file:
                start = file.tell()
                rows = source.shape[0] if source.shape else 1
                width = source.size // max(rows, 1) * DTYPES[source.dtype]
                step = max(1, _SPOOL_ROWS_BYTES // max(width, 1))
                for row in range(0, rows, step):
                    data = np.ascontiguousarray(source.read_rows(row, min(row + step, rows)))
                    file.write(data.reshape(-1).view(np.uint8).data)
                extent = Extent(spool, start, file.tell() - start)
            source = StoredTensor(source.name, source.dtype, source.shape, extent)
        sources.append(source)
    return sources


def _allocate(staging: Path, job: Job) -> dict[str, StoredTensor]:
    """Creates the weights files, in shards if so asked, and says where each tensor goes."""
    plan = job.plan
    files = shards.split(plan.named, job.weights, job.max_shard_size)
    root = job.config.family.root_scope
    placed: dict[str, StoredTensor] = {}
    for name, tensors in files.items():
        placed |= write_header(staging / name, tensors, plan.target, None if len(files) > 1 else root)
    if len(files) > 1:
        shards.write_index(staging / f"{job.weights}.index.json", files, plan.target, root)
    return placed


def _check_values(files: Files, job: Job, moves: Iterable[Move]) -> float:
    """Compares stored buffers with their expected values; returns the trained scale as it is written."""
    for stored, value in job.plan.expected:
        if not holds(_read_small(files, stored), value):
            raise PlanError(
                f"{printable(stored.name)}: holds other values than transformers computes. Leaving it out would "
                "change the model; keep it in PyTorch"
            )
    scale = next(move for move in moves if move.name == job.config.family.scale)
    return float(cast(_read_small(files, scale.source), scale.target.dtype).reshape(()))


def _read_small(files: Files, tensor: StoredTensor) -> Array:
    if tensor.extent is None and tensor.read_rows is not None:
        return tensor.read_rows(0, tensor.shape[0] if tensor.shape else 1)
    value = np.empty(tensor.shape, numpy_dtype(tensor.dtype))
    files.open(extent_of(tensor).path)
    files.read(extent_of(tensor), 0, value)
    return value


def _advance(stage: str, moves: Iterable[Move], progress: Progress | None) -> Callable[[int], None]:
    if progress is None:
        return lambda _: None
    total = sum(move.source.size * DTYPES[move.source.dtype] for move in moves)
    so_far = 0

    def advance(done: int) -> None:
        nonlocal so_far
        so_far += done
        progress(stage, min(so_far, total), total)

    return advance


def _check(
    staging: Path, job: Job, moves: list[Move], read: Mapping[Path, FileRecord]
) -> tuple[tuple[TensorRecord, ...], Mapping[Path, FileRecord]]:
    """Re-opens the written file by its reader and compares it with the source; ``read`` are sums that are known."""
    index = staging / f"{job.weights}.index.json"
    written = read_back(index if index.exists() else staging / job.weights)
    table = job.plan.table
    names = {name for name, _, _ in job.plan.named}
    if written.framework != job.plan.target or set(written.tensors) != names:
        raise CheckError(f"{job.weights}: the tensors written to it are not there; convert again")
    reopened = []
    tensors = written.tensors if table is None else table.ours(written.tensors)
    for move in moves:
        target = tensors[move.target.name if table is None else move.name]
        if (target.shape, target.dtype) != (move.target.shape, move.target.dtype):
            raise CheckError(f"{target.name}: was written as {move.target.shape}, is {target.shape}; convert again")
        reopened.append(replace(move, target=target))
    with Files() as files:
        for move in reopened:
            files.open(extent_of(move.source).path)
            files.open(extent_of(move.target).path)
        for name, value in job.plan.restored.items():
            if not same_bits(_read_small(files, written.tensors[name]), np.ascontiguousarray(value)):
                raise CheckError(f"{name}: the file differs from the data written to it; convert again")
        hashed = dict.fromkeys(written.files, job.sums)
        hashed |= {file: _sums_of_source(job, file) for file in job.checkpoint.files if file not in read}
        found, records = check_moves(files, reopened, hashed, _advance("check", reopened, job.progress))
        return found, {**read, **records}


def _manifest(job: Job, written: Written) -> dict[str, Any]:
    account = {
        "family": job.config.family.model_type,
        "towers": {"vision": job.config.vision.model_type, "text": job.config.text.model_type},
        "config_rewritten": list(written.config_rewritten),
        "config_unknown": list(job.config.unknown_fields),
        "dropped": [item.to_json() for item in job.plan.dropped],
        "restored": sorted(job.plan.restored),
        "made_new": list(job.made_new),
        "left_behind": list(written.left_behind),
        "casts": job.plan.casts,
        "overflowed": dict(written.overflowed),
        "dialects": dict(job.plan.dialects),
    }
    hub, commit = (job.origin.hub, job.origin.commit) if job.origin else (None, None)
    licence: Mapping[str, str] = {}
    if job.origin is not None:
        source, licence = named(job.origin.address or job.origin.pinned), job.origin.licence
    elif job.checkpoint.files:
        folder = model_folder(job.source)
        # No relative path leads from a bucket to a folder of this machine.
        source = folder.resolve() if job.bucket else _seen_from(job.out, folder)
        licence = licence_of(folder if folder.is_dir() else folder.parent)
    else:
        source = job.source
    return manifest.make_manifest(
        direction=job.direction,
        source=source,
        hub=hub,
        commit=commit,
        licence=licence,
        source_files=written.source_files,
        options=job.options,
        files=written.files,
        tensors=written.tensors,
        account=account,
    )


def _float_dtype(moves: Iterable[Move]) -> str | None:
    dtypes = {move.target.dtype for move in moves if move.target.dtype in FLOATS}
    return dtypes.pop() if len(dtypes) == 1 else None


def _seen_from(out: Path, source: Path) -> Path:
    return Path(os.path.relpath(source.resolve(), out.resolve()))

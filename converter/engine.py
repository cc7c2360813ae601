"""pt2tf and tf2pt: source -> plan -> target -> check -> rename. No framework is imported here.

What goes wrong before the rename leaves nothing behind.
"""

from __future__ import annotations

import math
import os
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from converter import manifest
from converter.buffers import Array
from converter.casts import DTYPES, FLOATS, numpy_dtype
from converter.check import check_moves, file_record, hash_file, same_bits
from converter.checkpoints import hdf5, safetensors
from converter.checkpoints.detect import open_source, read_header
from converter.configs import DualEncoderConfig, read_config
from converter.errors import CheckError, CorruptCheckpoint, PlanError, TargetError, printable
from converter.folders import check_out, staged
from converter.manifest import FileRecord, TensorRecord
from converter.moves import Files, Move, blocks, full_disk_explained, in_parallel, write_block
from converter.plan import Dropped, Dtype, Names, Plan, make_plan
from converter.sidecars import copy_sidecars, rewrite_config, write_json
from converter.specs import Checkpoint, Extent, Framework, StoredTensor

Progress = Callable[[str, int, int], None]
Direction = Literal["pt2tf", "tf2pt"]
_SPOOL_ROWS_BYTES = 8 * 2**20


@dataclass(frozen=True)
class Conversion:
    """What a conversion did, or with ``dry_run`` would do.

    Attributes:
        direction: ``"pt2tf"`` or ``"tf2pt"``.
        source: as it was given.
        out: the folder that was made.
        container: what was read, for example ``"PyTorch safetensors"``.
        weights: name of the weights file in ``out``.
        towers: model types of vision and text.
        tensors: how many were converted.
        parameters: how many numbers they hold.
        nbytes: size of the weights in ``out``.
        dialects: how many names of the source were spelled in which way.
        casts: dtype changes, for example ``{"bfloat16 -> float32": 398}``.
        dropped: tensors left out, and why.
        restored: buffers made anew.
        config_rewritten: changes to config.json, in words.
        config_unknown: fields of config.json that are not known here; they were kept.
        files: every file of ``out`` but the manifest, with sha256 if ``checked``.
        checked: whether the output was compared with the source bit for bit.
        dry_run: whether nothing was written.
        seconds: how long it took.
        plan: where every tensor went.
    """

    direction: Direction
    source: Path
    out: Path
    container: str
    weights: str
    towers: tuple[str, str]
    tensors: int
    parameters: int
    nbytes: int
    dialects: Mapping[str, int]
    casts: Mapping[str, int]
    dropped: tuple[Dropped, ...]
    restored: tuple[str, ...]
    config_rewritten: tuple[str, ...]
    config_unknown: tuple[str, ...]
    files: tuple[FileRecord, ...]
    checked: bool
    dry_run: bool
    seconds: float
    plan: Plan = field(repr=False, compare=False)

    def to_json(self) -> dict[str, Any]:
        """Everything but the plan, ready for ``json.dumps``."""
        plain = {name: value for name, value in vars(self).items() if name != "plan"}
        return plain | {
            "source": str(self.source),
            "out": str(self.out),
            "dropped": [vars_of(item) for item in self.dropped],
            "files": [record.to_json() for record in self.files],
        }


def vars_of(item: Dropped) -> dict[str, str]:
    """A dropped tensor as JSON."""
    return {"name": item.name, "reason": item.reason}


def pt2tf(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    format: Literal["h5", "safetensors"] = "h5",
    dtype: Dtype = "keep",
    overwrite: bool = False,
    check: bool = True,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> Conversion:
    """Converts a PyTorch checkpoint of a dual encoder to TensorFlow.

    Args:
        source: a folder as ``save_pretrained`` writes it, or a weights file in one.
        out: folder to make.
        format: ``"h5"`` for ``tf_model.h5``, ``"safetensors"`` for TensorFlow's ``model.safetensors``.
        dtype: what float tensors become; ``"keep"`` leaves them (but HDF5 has no bfloat16, which becomes float32).
        overwrite: replace ``out`` if it exists.
        check: re-open the output, compare it with the source bit for bit and record hashes.
        dry_run: plan only; nothing is written.
        progress: called with a stage's name, bytes done and bytes in all.

    Returns:
        What was done.

    Raises:
        ConverterError: see ``converter.errors``; nothing was written then.
    """
    options = {"format": format, "dtype": dtype}
    return _convert("pt2tf", Path(source), Path(out), options, overwrite, check, dry_run, progress)


def tf2pt(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    format: Literal["safetensors"] = "safetensors",
    names: Names = "v4",
    dtype: Dtype = "keep",
    overwrite: bool = False,
    check: bool = True,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> Conversion:
    """Converts a TensorFlow checkpoint of a dual encoder to PyTorch.

    Args:
        source: a folder as ``save_pretrained`` of transformers 4.x writes it, or a weights file in one.
        out: folder to make.
        format: ``"safetensors"``.
        names: ``"v4"`` for the nested names that every version of transformers reads, ``"v5"`` for those that a
            fresh 5.x model saves.
        dtype, overwrite, check, dry_run, progress: as for ``pt2tf``.

    Returns:
        What was done.

    Raises:
        ConverterError: see ``converter.errors``; nothing was written then.
    """
    options = {"format": format, "names": names, "dtype": dtype}
    return _convert("tf2pt", Path(source), Path(out), options, overwrite, check, dry_run, progress)


def _convert(
    direction: Direction,
    source: Path,
    out: Path,
    options: Mapping[str, Any],
    overwrite: bool,
    check: bool,
    dry_run: bool,
    progress: Progress | None,
) -> Conversion:
    started = time.perf_counter()
    _check_options(options)
    if not dry_run:
        check_out(out, source, overwrite)
    checkpoint, folder = open_source(source, "pt" if direction == "pt2tf" else "tf")
    try:
        before = [_identity(path) for path in checkpoint.files]
        config = read_config(folder / "config.json")
        plan = make_plan(
            checkpoint,
            config,
            dtype=options["dtype"],
            names=options.get("names", "v4"),
            widen_bfloat16=options["format"] == "h5",
        )
        weights = "tf_model.h5" if options["format"] == "h5" else "model.safetensors"
        if dry_run:
            written = _Written(0, (), (), (), ())
        else:
            with staged(out, overwrite) as staging, full_disk_explained(out):
                job = _Job(direction, source, out, folder, staging, weights, checkpoint, config, plan, options, progress)
                written = _write(job, check)
                if [_identity(path) for path in checkpoint.files] != before:
                    raise CorruptCheckpoint(f"{source}: changed while it was read; convert it again")
    finally:
        checkpoint.close()
    return _summary(direction, source, out, weights, checkpoint, config, plan, written, dry_run, started)


@dataclass(frozen=True)
class _Job:
    direction: Direction
    source: Path
    out: Path
    folder: Path
    staging: Path
    weights: str
    checkpoint: Checkpoint
    config: DualEncoderConfig
    plan: Plan
    options: Mapping[str, Any]
    progress: Progress | None


@dataclass(frozen=True)
class _Written:
    nbytes: int
    files: tuple[FileRecord, ...]
    tensors: tuple[TensorRecord, ...]
    config_rewritten: tuple[str, ...]
    source_files: tuple[FileRecord, ...]


def _check_options(options: Mapping[str, Any]) -> None:
    if options["format"] == "h5" and options["dtype"] == "bfloat16":
        raise TargetError("HDF5 has no bfloat16; choose another dtype, or format safetensors")


def _write(job: _Job, check: bool) -> _Written:
    path = job.staging / job.weights
    needed = sum(math.prod(tensor.shape) * DTYPES[tensor.dtype] for tensor in job.plan.tensors)
    free = shutil.disk_usage(job.staging).free
    if needed > free:
        raise TargetError(
            f"{job.out}: cannot be written: it needs {needed / 1e6:,.0f} MB, the disk has {free / 1e6:,.0f} MB free; "
            "free some space"
        )
    spool = job.staging / "spool"
    sources = _spooled(job.plan, spool)
    placed = _allocate(path, job.plan)
    moves = [
        Move(tensor.pt, source, placed[tensor.name], tensor.layout, job.plan.target == "tf")
        for tensor, source in zip(job.plan.tensors, sources, strict=True)
    ]
    with Files() as files:
        for move in moves:
            files.open(_extent(move.source).path)
        files.open(path, write=True)
        logit_scale = _check_values(files, job.plan, moves)
        _move_all(files, moves, job.progress)
        for name, value in job.plan.restored.items():
            files.write(_extent(placed[name]), 0, np.ascontiguousarray(value))
    raw, rewritten = rewrite_config(job.config.raw, logit_scale, _float_dtype(moves))
    write_json(job.staging / "config.json", raw)
    copied = copy_sidecars(job.folder, job.staging)
    tensors: tuple[TensorRecord, ...] = ()
    hashes: Mapping[Path, FileRecord] = {}
    if check:
        tensors, hashes = _check(path, job, moves)
    spool.unlink(missing_ok=True)
    record = hash_file if check else file_record
    files_written = tuple(
        hashes.get(job.staging / name) or record(job.staging / name) for name in (job.weights, "config.json", *copied)
    )
    source_files = tuple(hashes.get(file) or file_record(file) for file in job.checkpoint.files)
    written = _Written(needed, files_written, tensors, (*job.config.rewritten, *rewritten), source_files)
    write_json(job.staging / manifest.NAME, _manifest(job, written))
    return written


def _spooled(plan: Plan, spool: Path) -> list[StoredTensor]:
    """Gives every source tensor an extent: those without one are read by rows into a file of their own."""
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
                    file.write(np.ascontiguousarray(source.read_rows(row, min(row + step, rows))).data)
                extent = Extent(spool, start, file.tell() - start)
            source = StoredTensor(source.name, source.dtype, source.shape, extent)
        sources.append(source)
    return sources


def _allocate(path: Path, plan: Plan) -> dict[str, StoredTensor]:
    tensors: list[tuple[str, str, tuple[int, ...]]] = [
        (tensor.name, tensor.dtype, tensor.shape) for tensor in plan.tensors
    ]
    tensors += [(name, str(value.dtype), value.shape) for name, value in plan.restored.items()]
    if path.suffix == ".h5":
        return hdf5.write_header(path, tensors)
    return safetensors.write_header(path, tensors, plan.target)


def _check_values(files: Files, plan: Plan, moves: Iterable[Move]) -> float:
    """Compares stored buffers with what they must be; gives the trained logit_scale."""
    for stored, value in plan.expected:
        if not np.array_equal(_read_small(files, stored), value):
            raise PlanError(
                f"{printable(stored.name)}: holds other values than transformers computes, so leaving it out would "
                "change the model; it cannot be converted"
            )
    scale = next(move for move in moves if move.name == "logit_scale")
    return float(_read_small(files, scale.source).reshape(()))


def _read_small(files: Files, tensor: StoredTensor) -> Array:
    if tensor.extent is None and tensor.read_rows is not None:
        return tensor.read_rows(0, tensor.shape[0] if tensor.shape else 1)
    value = np.empty(tensor.shape, numpy_dtype(tensor.dtype))
    files.open(_extent(tensor).path)
    files.read(_extent(tensor), 0, value)
    return value


def _move_all(files: Files, moves: list[Move], progress: Progress | None) -> None:
    def task(block: Any) -> Callable[[], int]:
        def run() -> int:
            write_block(files, block)
            share = (block.stop - block.start) / max(1, _rows(block.move))
            return int(block.move.source.size * DTYPES[block.move.source.dtype] * share)

        return run

    in_parallel([task(block) for block in blocks(moves)], _advance("convert", moves, progress))


def _rows(move: Move) -> int:
    return move.source.size if move.layout.axes is None else move.pt_shape[0]


def _advance(stage: str, moves: Iterable[Move], progress: Progress | None, extra: int = 0) -> Callable[[int], None]:
    if progress is None:
        return lambda done: None
    total = sum(move.source.size * DTYPES[move.source.dtype] for move in moves) + extra
    so_far = 0

    def advance(done: int) -> None:
        nonlocal so_far
        so_far += done
        progress(stage, min(so_far, total), total)

    return advance


def _check(path: Path, job: _Job, moves: list[Move]) -> tuple[tuple[TensorRecord, ...], Mapping[Path, FileRecord]]:
    """Re-opens the written file by its reader and compares it with the source."""
    written = read_header(path)
    names = {move.target.name for move in moves} | set(job.plan.restored)
    if written.framework != job.plan.target or set(written.tensors) != names:
        raise CheckError(f"{path.name}: does not hold the tensors that were written to it; convert again")
    reopened = []
    for move in moves:
        target = written.tensors[move.target.name]
        if (target.shape, target.dtype) != (move.target.shape, move.target.dtype):
            raise CheckError(f"{target.name}: was written as {move.target.shape}, is {target.shape}; convert again")
        reopened.append(Move(move.name, move.source, target, move.layout, move.to_tf))
    with Files() as files:
        for move in reopened:
            files.open(_extent(move.source).path)
        files.open(path)
        for name, value in job.plan.restored.items():
            if not same_bits(_read_small(files, written.tensors[name]), np.ascontiguousarray(value)):
                raise CheckError(f"{name}: what was written differs from what was to be written; convert again")
        hashed = (*job.checkpoint.files, path)
        extra = sum(os.stat(file).st_size for file in hashed)
        return check_moves(files, reopened, hashed, _advance("check", reopened, job.progress, extra))


def _manifest(job: _Job, written: _Written) -> dict[str, Any]:
    account = {
        "towers": {"vision": job.config.vision.model_type, "text": job.config.text.model_type},
        "config_rewritten": list(written.config_rewritten),
        "config_unknown": list(job.config.unknown_fields),
        "dropped": [vars_of(item) for item in job.plan.dropped],
        "restored": sorted(job.plan.restored),
        "casts": _casts(job.plan),
        "dialects": dict(job.plan.dialects),
    }
    return manifest.make_manifest(
        direction=job.direction,
        source=Path(os.path.relpath(job.source.resolve(), job.out.resolve())),
        source_files=written.source_files,
        options=job.options,
        files=written.files,
        tensors=written.tensors,
        account=account,
    )


def _summary(
    direction: Direction,
    source: Path,
    out: Path,
    weights: str,
    checkpoint: Checkpoint,
    config: DualEncoderConfig,
    plan: Plan,
    written: _Written,
    dry_run: bool,
    started: float,
) -> Conversion:
    return Conversion(
        direction=direction,
        source=source,
        out=out,
        container=checkpoint.container,
        weights=weights,
        towers=(config.vision.model_type, config.text.model_type),
        tensors=len(plan.tensors),
        parameters=sum(tensor.source.size for tensor in plan.tensors),
        nbytes=written.nbytes,
        dialects=dict(plan.dialects),
        casts=_casts(plan),
        dropped=plan.dropped,
        restored=tuple(sorted(plan.restored)),
        config_rewritten=written.config_rewritten,
        config_unknown=config.unknown_fields,
        files=written.files,
        checked=bool(written.tensors),
        dry_run=dry_run,
        seconds=time.perf_counter() - started,
        plan=plan,
    )


def _casts(plan: Plan) -> dict[str, int]:
    return {f"{old} -> {new}": count for (old, new), count in sorted(plan.casts.items())}


def _float_dtype(moves: Iterable[Move]) -> str | None:
    dtypes = {move.target.dtype for move in moves if move.target.dtype in FLOATS}
    return dtypes.pop() if len(dtypes) == 1 else None


def _identity(path: Path) -> tuple[int, int, int]:
    held = os.stat(path)
    return held.st_ino, held.st_size, held.st_mtime_ns


def _extent(tensor: StoredTensor) -> Extent:
    if tensor.extent is None:
        raise ValueError(f"{tensor.name} has no extent")
    return tensor.extent


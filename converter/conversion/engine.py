"""pt2tf and tf2pt: source -> plan -> target -> check -> rename. No framework is imported here."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from converter.arguments import checked
from converter.conversion.into_buckets import into_bucket
from converter.conversion.job import Job, Progress, Written
from converter.conversion.plan import Dtype, Names
from converter.conversion.planning import plan_job
from converter.conversion.positions import Positions, tell_positions
from converter.conversion.result import Conversion, summary
from converter.conversion.sources import Opened, Source, opened
from converter.conversion.writing import not_taken, write_job
from converter.errors import ConfigError, TargetError
from converter.folder.addresses import Address
from converter.folder.files import expanded, out_folder
from converter.folder.records import SUMS, USUAL
from converter.folder.replacing import check_replaced, outlook, settle
from converter.folder.sidecars import sidecars_of
from converter.folder.staging import check_out, explained
from converter.hub.ids import hub_id
from converter.names.configs import HYBRID, TwoTowerConfig, check_config, config_beside, read_config, read_given
from converter.specs import Framework, Wanted

Config = Annotated[
    str | os.PathLike[str] | Mapping[str, Any] | None,
    "the config is a {}, expected a path or a dict; for a model in memory pass model.config.to_dict()",
]
_log = logging.getLogger(__name__)


@checked(but=("format",))
def pt2tf(
    source: Source,
    out: str | os.PathLike[str],
    *,
    revision: str | None = None,
    config: Config = None,
    format: Literal["h5", "safetensors"] = "h5",
    dtype: Dtype = "keep",
    positions: Positions = "keep",
    max_shard_size: str | int | None = None,
    overwrite: bool = False,
    check: bool = True,
    sha256: bool = False,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> Conversion:
    """Converts the PyTorch checkpoint of a model with two towers to TensorFlow.

    Args:
        source: a folder that ``save_pretrained`` wrote, a weights file, the id of a model on the Hub, or a state dict
            in memory (torch tensors or NumPy arrays by name). An id may be ``id@revision``. A
            ``Path``, or an existing path, is never an id.
        out: the folder to create.
        revision: branch, tag or commit of an id.
        config: the config, or the path of a config.json; None takes the one beside the weights.
        format: ``"h5"`` for ``tf_model.h5``, ``"safetensors"`` for TensorFlow's ``model.safetensors``.
        dtype: dtype of float tensors. ``"keep"`` leaves them, but HDF5 has no bfloat16, which becomes float32.
        positions: of a Flax source of RoBERTa's kinds, which this takes too: ``"keep"`` leaves the table of positions,
            ``"flax"`` moves its rows so that TensorFlow gives Flax's outputs.
        max_shard_size: split the weights into files of at most this size, for example ``"5GB"``; None for one file.
        overwrite: replace the checkpoint in ``out`` if it exists; other files in it stay.
        check: re-open the output, compare it with the source bit for bit and record hashes.
        sha256: record the sha256 of every file too, beside BLAKE3; only with ``check``.
        dry_run: plan only; nothing is written.
        progress: called with the stage, bytes done and total bytes.

    Returns:
        What was done.

    Raises:
        ConverterError: see ``converter.errors``; nothing is written then.
    """
    moved = {"positions": positions} if positions != "keep" else {}
    options = {"format": format, "dtype": dtype, **moved, "max_shard_size": max_shard_size}
    sums = sums_asked(sha256, check)
    return run_conversion(
        ("pt", "flax"),
        "tf",
        source,
        revision,
        out_folder(out),
        config,
        options,
        overwrite,
        check,
        dry_run,
        progress,
        sums=sums,
    )


@checked(but=("format",))
def tf2pt(
    source: Source,
    out: str | os.PathLike[str],
    *,
    revision: str | None = None,
    config: Config = None,
    format: Literal["safetensors", "bin"] = "safetensors",
    names: Names = "v4",
    dtype: Dtype = "keep",
    max_shard_size: str | int | None = None,
    overwrite: bool = False,
    check: bool = True,
    sha256: bool = False,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> Conversion:
    """Converts the TensorFlow checkpoint of a model with two towers to PyTorch.

    Args:
        source: a folder as ``save_pretrained`` of transformers 4.x writes it, a weights file in one, or the id of a
            model on the Hub (``id@revision`` too).
        out: the folder to create.
        revision: branch, tag or commit of an id.
        config: the config, or the path of a config.json; None takes the one beside the weights.
        format: ``"safetensors"``, or ``"bin"`` for a ``pytorch_model.bin`` as torch 1.6 and later write it.
        names: ``"v4"`` for the nested names that every version of transformers reads, ``"v5"`` for those that a
            new 5.x model saves. Transformers 4 cannot read v5 names of AltCLIP and CLIP-like towers.
        dtype: dtype of float tensors; ``"keep"`` leaves them.
        max_shard_size: split the weights into files of at most this size, for example ``"5GB"``; None for one file.
        overwrite: replace the checkpoint in ``out`` if it exists; other files in it stay.
        check: re-open the output, compare it with the source bit for bit and record hashes.
        sha256: record the sha256 of every file too, beside BLAKE3; only with ``check``.
        dry_run: plan only; nothing is written.
        progress: called with the stage, bytes done and total bytes.

    Returns:
        What was done.

    Raises:
        ConverterError: see ``converter.errors``; nothing is written then.
    """
    options = {"format": format, "names": names, "dtype": dtype, "max_shard_size": max_shard_size}
    sums = sums_asked(sha256, check)
    return run_conversion(
        "tf", "pt", source, revision, out_folder(out), config, options, overwrite, check, dry_run, progress, sums=sums
    )


def sums_asked(sha256: bool, check: bool) -> tuple[str, ...]:
    """The kinds of sums to record.

    Raises:
        TargetError: no sums are taken without the check.
    """
    if sha256 and not check:
        raise TargetError(
            "sha256 is recorded while the output is checked; leave out --no-check (in Python check=False)"
        )
    return tuple(SUMS) if sha256 else USUAL


def run_conversion(
    framework: Wanted,
    target: Framework,
    source: Source,
    revision: str | None,
    out: Path,
    config: Config,
    options: Mapping[str, Any],
    overwrite: bool = False,
    check: bool = True,
    dry_run: bool = False,
    progress: Progress | None = None,
    warn: bool = True,
    sums: tuple[str, ...] = USUAL,
    bucket: Address | None = None,
) -> Conversion:
    """Converts a checkpoint from one of some frameworks, as ``pt2tf`` does.

    Args:
        framework: whose weights are wanted; None takes what there is.
        target: whose names and layouts to write.
        source: as given; with all that follows as ``pt2tf`` has it.
        revision: branch, tag or commit of an id.
        out: the folder to create.
        config: the config, or the path of a config.json; None takes the one beside the weights.
        options: ``format``, ``dtype``, ``max_shard_size``, and if they apply ``names`` and ``positions``.
        overwrite: replace the checkpoint in ``out``.
        check: compare the output with the source bit for bit.
        dry_run: plan only.
        progress: called with the stage, bytes done and total bytes.
        warn: whether to log what one must know about the output; a caller that reads it at once already knows.
        sums: kinds of sums to record of every file, if ``check``.
        bucket: where what ``out`` is going to hold is put from there; None where ``out`` is where it stays.
    """
    if config is not None and not isinstance(config, Mapping):
        # its place would tell more about a machine than about a checkpoint
        config = expanded(config)
        options = {**options, "config": Path(config).name}
    source, out = expanded(source), out_folder(out)
    if isinstance(out, Address):
        run = partial(run_conversion, framework, target, source, revision, config=config, options=options, sums=sums)
        run = partial(run, check=check, dry_run=dry_run, progress=progress, warn=warn)
        return into_bucket(out, source, overwrite, dry_run, progress, run)
    with explained(out):
        if dry_run and overwrite and out.is_dir():
            settle(out)
        if not dry_run:  # before anything is downloaded
            check_out(out, _local(source, revision, out), overwrite)
        with opened(source, framework, revision, headers_only=dry_run) as held:
            job = plan_job(target, held.path, out, held.checkpoint, _config(config, held), options, progress)
            sidecars = (held.folder,) if held.folder else ()
            job = replace(job, sidecars=sidecars, before=held.before, beside=held.beside, origin=held.origin, sums=sums)
            job = replace(job, bucket=bucket)
            if warn:
                _warn(job)
            _log_plan(job)
            written = write_job(job, overwrite, check) if not dry_run else _foreseen(job, overwrite)
    result = summary(job, written, dry_run, held.began)
    _log.info(
        "%s: %s in %.2f s",
        bucket or out,
        "nothing written, dry run" if dry_run else f"{result.nbytes:,} bytes",
        result.seconds,
    )
    return result


def _foreseen(job: Job, overwrite: bool) -> Written:
    """For a dry run: what the job would replace."""
    copied = sidecars_of(job.sidecars)
    if overwrite:
        check_replaced(job.out, copied)
    replaced, kept = outlook(job.out, copied) if overwrite else ((), 0)
    return Written(replaced=replaced, kept=kept, left_behind=not_taken(job, copied))


def _local(source: Source, revision: str | None, out: Path) -> Path | None:
    """The source's folder, which OUT must not be in; None for tensors in memory, models on the Hub and buckets.

    A folder in that of a single weights file, which is often the one where the command runs, is not part of the source.
    """
    if isinstance(source, Mapping | Address) or hub_id(source, revision) is not None:
        return None
    path = Path(source)
    real, home = out.resolve(), path.resolve().parent
    return None if path.is_file() and real != home and real.is_relative_to(home) else path


def _warn(job: Job) -> None:
    """Says what equal weights may compute differently, and what has to be found elsewhere."""
    if job.config.tokenizer is not None and not {"tokenizer.json", "vocab.json", "spiece.model"}.intersection(
        job.beside
    ):
        _log.warning(
            "%s: no tokenizer lies beside the weights; use the one of %s, and pad with id 0 to %s tokens as OpenCLIP does",
            job.source,
            job.config.tokenizer,
            job.config.text.fields["max_position_embeddings"],
        )
    if job.config.cleaning:
        _log.warning(
            "%s: OpenCLIP gives its tokenizer texts %s; the tokenizer may not do that by itself, so prepare texts like that",
            job.source,
            job.config.cleaning,
        )
    tell_positions(job.options.get("positions", "keep"), job.config.text, job.plan.source, job.plan.target)
    if any(HYBRID in change for change in job.config.rewritten):
        _log.warning(
            "%s: some commits of the scripts that trained such models multiply by logit_scale itself. Every class of "
            "transformers multiplies by its exponential. If scores are too large, replace logit_scale by its logarithm",
            HYBRID,
        )


def _log_plan(job: Job) -> None:
    """Logs the next step at INFO, and the names of what is left out at DEBUG."""
    plan, towers = job.plan, f"{job.config.vision.model_type} + {job.config.text.model_type}"
    _log.info(
        "%s %s -> %s: %s, %d tensors", job.direction, job.source, job.bucket or job.out, towers, len(plan.tensors)
    )
    for item in plan.dropped:
        _log.debug("%s: left out: %s", item.name, item.reason)


def _config(config: Config, held: Opened) -> TwoTowerConfig:
    if isinstance(config, Mapping):
        return check_config(config, "config")
    if config is not None:
        return read_given(config)
    if held.folder is None:
        raise ConfigError("a state dict has no config; pass config=model.config.to_dict()")
    return read_config(config_beside(held.folder, held.checkpoint.files))

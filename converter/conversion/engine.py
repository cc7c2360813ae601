"""pt2tf and tf2pt: source -> plan -> target -> check -> rename. No framework is imported here."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from converter.arguments import checked
from converter.checkpoints.shards import parse_size
from converter.conversion.formats import choose, weights_file
from converter.conversion.into_buckets import into_bucket
from converter.conversion.other_layouts import check_layout
from converter.conversion.plan import DTYPES_ASKED, NAMES, Dropped, Dtype, Names, make_plan
from converter.conversion.positions import Positions, check_positions, tell_positions
from converter.conversion.result import Conversion, summary
from converter.conversion.sources import Opened, Source, opened
from converter.conversion.writing import Job, Progress, Written, not_taken, write_job
from converter.errors import ConfigError, TargetError
from converter.folder.addresses import Address
from converter.folder.files import Identity, expanded, out_folder
from converter.folder.records import SUMS, USUAL
from converter.folder.replacing import check_replaced, outlook, settle
from converter.folder.sidecars import lies_beside, sidecars_of
from converter.folder.staging import check_out, explained
from converter.hub.ids import hub_id
from converter.names.configs import HYBRID, TwoTowerConfig, check_config, config_beside, read_config, read_given
from converter.names.frameworks import CANONICAL, KERAS, framework_name
from converter.names.layout_files import OWN
from converter.names.rule_files import SIDES
from converter.specs import Checkpoint, Framework, StoredTensor, Wanted

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
            job = _plan_job(target, held.path, out, held.checkpoint, _config(config, held), options, progress)
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


def write_tensors(
    config: Mapping[str, Any],
    tensors: Iterable[StoredTensor],
    out: str | os.PathLike[str],
    *,
    framework: Framework = KERAS,
    target: Framework = KERAS,
    format: str = "h5",
    overwrite: bool = False,
    label: str = "memory",
    sidecars: tuple[Path, ...] = (),
    made_new: tuple[str, ...] = (),
    seed: int | None = None,
    dropped: tuple[Dropped, ...] = (),
    before: Mapping[Path, Identity] | None = None,
    processor: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    max_shard_size: str | int | None = None,
) -> Conversion:
    """Writes tensors from memory or from several files, as ``save_pretrained`` does.

    Args:
        config: the model's.
        tensors: each with ``read_rows`` or an extent, named and laid out as ``framework`` does.
        out: the folder to create.
        framework: whose names and layouts ``tensors`` have.
        target: whose names and layouts to write.
        format: container to write; ``"h5"`` for ``target="tf"`` only, ``"bin"`` for ``target="pt"`` only.
        overwrite: replace the checkpoint in ``out`` if it exists; other files in it stay.
        label: what the result calls the source.
        sidecars: folders whose tokenizer and processor files are copied; of two folders the first's tokenizer and the
            second's image processor.
        made_new: names of tensors that were drawn, for the manifest.
        seed: that they were drawn with, for the manifest.
        dropped: what was left out on the way here, for the manifest.
        before: identities of the files that tensors are read from, before their headers were read.
        processor: a preprocessor_config.json to write where ``sidecars`` have none.
        progress: called with the stage, bytes done and total bytes.
        max_shard_size: split the weights into files of at most this size, for example ``"5GB"``; None for one file.

    Returns:
        What was done.

    Raises:
        TargetError: ``target`` has no such container, or ``out`` cannot be written.
        CorruptCheckpoint: a file of ``before`` changed during the run.
    """
    place = out_folder(out)
    if isinstance(place, Address):
        told: dict[str, Any] = {
            "label": label,
            "sidecars": sidecars,
            "made_new": made_new,
            "seed": seed,
            "dropped": dropped,
        }
        told |= {"before": before, "processor": processor, "progress": progress, "max_shard_size": max_shard_size}
        run = partial(write_tensors, config, tensors, framework=framework, target=target, format=format, **told)
        return into_bucket(place, None, overwrite, False, progress, lambda out, **_: run(out=out))
    started = time.perf_counter()
    held = Checkpoint(framework, "memory", {tensor.name: tensor for tensor in tensors}, ())
    options = {"format": format, "dtype": "keep", "names": "v4", **({} if seed is None else {"seed": seed})}
    options |= {} if max_shard_size is None else {"max_shard_size": max_shard_size}
    said = replace(check_config(config), processor=processor)
    job = _plan_job(target, Path(label), place, held, said, options, progress)
    plan = replace(job.plan, dropped=(*dropped, *job.plan.dropped))
    beside = tuple(name for folder in sidecars for name in lies_beside(folder) if name not in _names(before))
    job = replace(job, plan=plan, sidecars=sidecars, made_new=made_new, before=before or {}, beside=beside)
    for folder in sidecars or (None,):
        check_out(job.out, folder, overwrite)
    return summary(job, write_job(job, overwrite, check=False), False, started)


def _names(files: Mapping[Path, Identity] | None) -> set[str]:
    return {path.name for path in files or ()}


def _plan_job(
    target: Framework,
    source: Path,
    out: Path,
    checkpoint: Checkpoint,
    config: TwoTowerConfig,
    options: Mapping[str, Any],
    progress: Progress | None,
) -> Job:
    layout = options.get("layout", OWN)
    weights = weights_file(target, options["format"], layout)
    choose("dtype", options["dtype"], DTYPES_ASKED)
    choose("names", options.get("names", "v4"), NAMES)
    check_positions(options.get("positions", "keep"), checkpoint.framework, target)
    _check_target(target, config, options)
    check_layout(layout, target, config, options)
    if options["format"] == "h5" and options["dtype"] == "bfloat16":
        raise TargetError("HDF5 has no bfloat16; choose another dtype, or format safetensors")
    plan = make_plan(
        checkpoint,
        config,
        target,
        dtype=options["dtype"],
        names=options.get("names", "v4"),
        widen_bfloat16=options["format"] == "h5",
        positions=options.get("positions", "keep"),
        layout=None if layout == OWN else layout,
    )
    return Job(
        source=source,
        out=out,
        weights=weights,
        max_shard_size=parse_size(options.get("max_shard_size")),
        checkpoint=checkpoint,
        config=config,
        plan=plan,
        options=options,
        progress=progress,
    )


def _check_target(target: Framework, config: TwoTowerConfig, options: Mapping[str, Any]) -> None:
    """Refuses to write what no class could load, or what no version of it would find."""
    family, towers = config.family, {side: config.tower(side).model_type for side in SIDES}
    # PyTorch's are in every version, and those for Keras are ours.
    if target not in (CANONICAL, KERAS) and not family.is_in_transformers_4(target, towers):
        held = f"{family.title} with {towers['vision']} and {towers['text']}"
        takes = (f"{side} {', '.join(family.towers_in(side, target))}" for side in SIDES)
        ways = f"; {family.classes[target]} takes {' and '.join(takes)}" if target in family.in_transformers_4 else ""
        raise TargetError(
            f"{held} has no class in {framework_name(target)}, so nothing could load it{ways}; convert to "
            f"{' or '.join((CANONICAL, KERAS))}"
        )
    if target == "flax" and options["format"] == "safetensors" and options.get("max_shard_size") is not None:
        raise TargetError("transformers 4 reads no safetensors in shards in Flax; choose format msgpack, or one file")

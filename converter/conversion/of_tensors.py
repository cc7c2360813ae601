"""Writes tensors that are in memory, or in several files, as ``save_pretrained`` does."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from converter.conversion.into_buckets import into_bucket
from converter.conversion.job import Progress
from converter.conversion.plan import Dropped
from converter.conversion.planning import plan_job
from converter.conversion.result import Conversion, summary
from converter.conversion.writing import write_job
from converter.folder.addresses import Address
from converter.folder.files import Identity, out_folder
from converter.folder.sidecars import lies_beside
from converter.folder.staging import check_out
from converter.names.configs import check_config
from converter.names.frameworks import KERAS
from converter.specs import Checkpoint, Framework, StoredTensor


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
    job = plan_job(target, Path(label), place, held, said, options, progress)
    plan = replace(job.plan, dropped=(*dropped, *job.plan.dropped))
    beside = tuple(name for folder in sidecars for name in lies_beside(folder) if name not in _names(before))
    job = replace(job, plan=plan, sidecars=sidecars, made_new=made_new, before=before or {}, beside=beside)
    for folder in sidecars or (None,):
        check_out(job.out, folder, overwrite)
    return summary(job, write_job(job, overwrite, check=False), False, started)


def _names(files: Mapping[Path, Identity] | None) -> set[str]:
    return {path.name for path in files or ()}

"""The result of a conversion."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from converter.checkpoints.shards import INDEX
from converter.conversion.job import Job, Written
from converter.conversion.plan import Dropped, Plan
from converter.folder.records import FileRecord
from converter.names.frameworks import command
from converter.names.rule_files import SIDES
from converter.specs import JSON_FORMAT, uniform


@dataclass(frozen=True)
class Conversion:
    """What a conversion did, or with ``dry_run`` would do.

    Attributes:
        direction: for example ``"pt2tf"``.
        family: model type of the model, for example ``"clip"``.
        source: as it was given.
        commit: of a source on the Hub; None for others.
        out: the folder that was made.
        container: what was read, for example ``"PyTorch safetensors"``.
        weights: name of the weights file in ``out``, or of the index of its shards.
        towers: model types of vision and text.
        tensors: how many were converted.
        parameters: number of parameters.
        nbytes: size of the weights in ``out``.
        dialects: number of names of the source per dialect.
        casts: dtype changes, for example ``{"bfloat16 -> float32": 398}``.
        overflowed: by tensor, the number of values that became infinite in the requested dtype.
        dropped: tensors left out, and why.
        restored: buffers computed from the config.
        made_new: new random weights, because no source has them (``combine`` only).
        config_rewritten: descriptions of the changes to config.json.
        config_unknown: fields of config.json that are not known here; they were kept.
        left_behind: names of files beside the source's weights that are not copied; folders end with a slash. For a single
            weights file, only those that look like a tokenizer's or processor's.
        files: every file of ``out`` but the manifest, with its BLAKE3 sum if ``checked``, and sha256 if requested.
        replaced: files of an existing ``out`` that were replaced, or with ``dry_run`` and ``overwrite`` would be.
        kept: number of files and folders in it that stay.
        checked: whether the output was compared with the source bit for bit.
        dry_run: whether nothing was written.
        seconds: how long it took.
        plan: where every tensor went.
    """

    direction: str
    family: str
    source: Path
    commit: str | None
    out: Path
    container: str
    weights: str
    towers: tuple[str, str]
    tensors: int
    parameters: int
    nbytes: int
    dialects: Mapping[str, int]
    casts: Mapping[str, int]
    overflowed: Mapping[str, int]
    dropped: tuple[Dropped, ...]
    restored: tuple[str, ...]
    made_new: tuple[str, ...]
    config_rewritten: tuple[str, ...]
    config_unknown: tuple[str, ...]
    left_behind: tuple[str, ...]
    files: tuple[FileRecord, ...]
    replaced: tuple[str, ...]
    kept: int
    checked: bool
    dry_run: bool
    seconds: float
    plan: Plan = field(repr=False, compare=False)

    @property
    def back(self) -> str:
        """The command that converts ``out`` back, for example ``"tf2pt"`` or ``"to flax"``."""
        source, target = self.plan.source, self.plan.target
        if source == target:
            return command(target)
        return command(target, source) + (" --positions flax" if self.plan.positions == "flax" else "")

    def to_json(self) -> dict[str, Any]:
        """Everything but the plan, ready for ``json.dumps``: ``docs/conversion.schema.json`` describes it."""
        plain = {name: value for name, value in vars(self).items() if name != "plan"}
        dropped, files = [item.to_json() for item in self.dropped], [record.to_json() for record in self.files]
        alike = uniform(files, dropped, dict(zip(SIDES, self.towers, strict=True)), self.parameters)
        paths = {"source": str(self.source), "out": str(self.out)}
        return {"format": JSON_FORMAT} | plain | paths | {"dropped": dropped, "files": files} | alike


def summary(job: Job, written: Written, dry_run: bool, started: float) -> Conversion:
    """The result of a job.

    Args:
        job: what was to be done.
        written: what carrying it out gave, or would give.
        dry_run: whether nothing was written.
        started: when it began, by ``time.perf_counter``.
    """
    plan = job.plan
    return Conversion(
        direction=job.direction,
        family=job.config.family.model_type,
        source=job.source,
        commit=job.origin.commit if job.origin else None,
        out=job.out,
        container=job.checkpoint.container,
        weights=next((file.name for file in written.files if file.name.endswith(INDEX)), job.weights),
        towers=(job.config.vision.model_type, job.config.text.model_type),
        tensors=len(plan.tensors),
        parameters=sum(tensor.source.size for tensor in plan.tensors),
        nbytes=written.nbytes,
        dialects=dict(plan.dialects),
        casts=plan.casts,
        overflowed=dict(written.overflowed),
        dropped=plan.dropped,
        restored=tuple(sorted(plan.restored)),
        made_new=job.made_new,
        config_rewritten=written.config_rewritten,
        config_unknown=job.config.unknown_fields,
        left_behind=written.left_behind,
        files=written.files,
        replaced=written.replaced,
        kept=written.kept,
        checked=bool(written.tensors),
        dry_run=dry_run,
        seconds=time.perf_counter() - started,
        plan=plan,
    )

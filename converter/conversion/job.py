"""What a conversion is before it is carried out, and what carrying it out gave."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from converter.conversion.plan import Plan
from converter.folder.addresses import Address
from converter.folder.files import Identity
from converter.folder.manifest import TensorRecord
from converter.folder.records import USUAL, FileRecord
from converter.hub.obtained import Obtained
from converter.names.configs import TwoTowerConfig
from converter.names.frameworks import direction, frameworks
from converter.specs import Checkpoint

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Job:
    """A planned conversion.

    Attributes:
        source: as it was given.
        out: the folder that shall appear.
        sidecars: folders of the tokenizer and of the image processor, or one of both; none for a source in memory.
        weights: name of the weights file to write, before it is split into shards.
        max_shard_size: bytes of data per file; None for one file.
        checkpoint: the source.
        before: identity of each of the source's files before its header was read, and of the small ones beside them.
        config: the source's.
        plan: where every tensor goes.
        options: as they were given, for the manifest.
        progress: called with the stage, bytes done and total bytes.
        made_new: weights drawn at random, for the manifest.
        beside: names of files beside the source's weights.
        origin: what is known of a source on the Hub or in a bucket; None for others.
        sums: kinds of sums to record of every file, where the output is checked.
        bucket: where ``out`` is going to be put; None where it stays.
    """

    source: Path
    out: Path
    weights: str
    max_shard_size: int | None
    checkpoint: Checkpoint
    config: TwoTowerConfig
    plan: Plan
    options: Mapping[str, Any]
    progress: Progress | None
    sidecars: tuple[Path, ...] = ()
    before: Mapping[Path, Identity] = field(default_factory=dict)
    made_new: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    origin: Obtained | None = None
    sums: tuple[str, ...] = USUAL
    bucket: Address | None = None

    @property
    def direction(self) -> str:
        """The name of this conversion, for example ``"pt2tf"``; for a model's own tensors as if from the other framework."""
        source, target = self.plan.source, self.plan.target
        if source == target and not self.checkpoint.files:
            source = frameworks()[target].converts_to
        return direction(source, target)


@dataclass(frozen=True)
class Written:
    """What carrying out a job gave.

    Attributes:
        nbytes: size of the weights.
        files: every file but the manifest.
        tensors: canonical hashes.
        config_rewritten: descriptions of the changes.
        source_files: what was read.
        overflowed: by tensor, how many values.
        replaced: files of an ``out`` that was there that gave way.
        kept: how many files and folders in it stayed.
        left_behind: names of files beside the source's weights that were not copied.
    """

    nbytes: int = 0
    files: tuple[FileRecord, ...] = ()
    tensors: tuple[TensorRecord, ...] = ()
    config_rewritten: tuple[str, ...] = ()
    source_files: tuple[FileRecord, ...] = ()
    overflowed: Mapping[str, int] = field(default_factory=dict)
    replaced: tuple[str, ...] = ()
    kept: int = 0
    left_behind: tuple[str, ...] = ()

"""Says what a checkpoint is, from its headers only, and what a conversion of it would drop."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converter.arguments import checked
from converter.checkpoints.detect import open_source
from converter.conversion.plan import Plan, make_plan
from converter.conversion.sources import opened
from converter.errors import ConverterError, reading
from converter.folder.addresses import Address
from converter.folder.files import expanded, named
from converter.hub.finding import find_snapshot
from converter.hub.headers import open_headers
from converter.hub.ids import hub_id
from converter.hub.obtained import Obtained
from converter.hub.obtaining import told_as_named
from converter.names.configs import TwoTowerConfig, config_beside, read_config, read_given
from converter.names.frameworks import command, frameworks
from converter.names.rule_files import SIDES, Side
from converter.specs import JSON_FORMAT, Checkpoint, Framework, uniform
from converter.tensors.casts import DTYPES


@dataclass(frozen=True)
class CheckpointInfo:
    """A description of a checkpoint.

    Attributes:
        source: as it was given.
        commit: of a model on the Hub; None for others.
        framework: ``"pt"``, ``"tf"`` or ``"flax"``.
        container: for example ``"PyTorch safetensors"``.
        files: weights files and their sizes in bytes.
        metadata: the container's own metadata.
        tensors: number of tensors.
        parameters: number of parameters, by root scope (``vision_model``, ``text_model`` ...).
        dtypes: how many tensors of each.
        dialects: number of names per dialect; empty if the config is not understood.
        family: model type of the model; None if the config is not understood.
        towers: by side, the tower's config.
        config_unknown: fields of config.json that are not known here.
        dropped: tensors that a conversion would leave out, and why.
        restored: buffers that a conversion would compute from the config.
        problem: why it cannot be converted; None if it can.
    """

    source: Path
    commit: str | None
    framework: Framework
    container: str
    files: Mapping[str, int]
    metadata: Mapping[str, str]
    tensors: int
    parameters: Mapping[str, int]
    dtypes: Mapping[str, int]
    dialects: Mapping[str, int]
    family: str | None
    towers: Mapping[str, Mapping[str, Any]]
    config_unknown: tuple[str, ...]
    dropped: Mapping[str, str]
    restored: tuple[str, ...]
    problem: str | None

    @property
    def nbytes(self) -> int:
        """Size of all weights files."""
        return sum(self.files.values())

    @property
    def command(self) -> str:
        """The command that converts it, for example ``"pt2tf"`` or ``"to pt"``."""
        return command(self.framework)

    def to_json(self) -> dict[str, Any]:
        """Ready for ``json.dumps``: ``docs/inspection.schema.json`` describes it."""
        files = [{"name": name, "size": size} for name, size in self.files.items()]
        dropped = [{"name": name, "reason": reason} for name, reason in self.dropped.items()]
        towers = {side: str(tower["model_type"]) for side, tower in self.towers.items()}
        alike = uniform(files, dropped, towers, sum(self.parameters.values()))
        return {"format": JSON_FORMAT} | vars(self) | {"source": str(self.source), "nbytes": self.nbytes} | alike


@checked()
def inspect(
    source: str | os.PathLike[str], *, revision: str | None = None, config: str | os.PathLike[str] | None = None
) -> CheckpointInfo:
    """Looks at a checkpoint without reading its tensors.

    Args:
        source: a folder that ``save_pretrained`` wrote, a weights file in one, the id of a model on the Hub
            (``id@revision`` too) or the address of a bucket, of any framework. Only headers are read.
        revision: branch, tag or commit of an id.
        config: path of a config.json; None takes the one beside the weights.

    Returns:
        The description; ``problem`` says why it could not be converted.

    Raises:
        ConverterError: there are no weights that can be read at all.
    """
    source = expanded(source)
    with _headers(source, revision) as (checkpoint, folder, commit, origin):
        described: TwoTowerConfig | None = None
        plan: Plan | None = None
        problem = None
        try:
            with contextlib.nullcontext() if origin is None else told_as_named(origin):
                beside = config_beside(folder, checkpoint.files)
                described = read_config(beside) if config is None else read_given(config)
                plan = make_plan(checkpoint, described, frameworks()[checkpoint.framework].converts_to)
        except ConverterError as error:
            problem = str(error)
        with reading(os.fspath(source)):
            return _describe(named(source), commit, checkpoint, described, plan, problem)


@contextlib.contextmanager
def _headers(
    source: str | os.PathLike[str], revision: str | None
) -> Iterator[tuple[Checkpoint, Path, str | None, Obtained | None]]:
    """The headers of a source, the folder where its config is, its commit on the Hub, and what is known of it in a bucket."""
    wanted = hub_id(source, revision)
    if isinstance(source, Address):
        with opened(source, None, headers_only=True) as held:
            yield held.checkpoint, held.folder or Path(), None, held.origin
        return
    if wanted is None:
        checkpoint, folder = open_source(Path(source), None)
        commit = None
    else:
        snapshot = find_snapshot(wanted)
        checkpoint, folder, commit = open_headers(snapshot), snapshot.folder, snapshot.commit
    with contextlib.closing(checkpoint):
        yield checkpoint, folder, commit, None


def _describe(
    source: Path,
    commit: str | None,
    checkpoint: Checkpoint,
    config: TwoTowerConfig | None,
    plan: Plan | None,
    problem: str | None,
) -> CheckpointInfo:
    parameters: Counter[str] = Counter()
    dtypes: Counter[str] = Counter()
    separator = frameworks()[checkpoint.framework].separator
    for tensor in checkpoint.tensors.values():
        parameters[tensor.name.split(separator)[0]] += tensor.size
        dtypes[tensor.dtype] += 1
    return CheckpointInfo(
        source=source,
        commit=commit,
        framework=checkpoint.framework,
        container=checkpoint.container,
        files={path.name: path.stat().st_size for path in checkpoint.files},
        metadata=checkpoint.metadata,
        tensors=len(checkpoint.tensors),
        parameters=dict(parameters),
        dtypes={dtype: dtypes[dtype] for dtype in DTYPES if dtype in dtypes},
        dialects=dict(plan.dialects) if plan else {},
        family=None if config is None else config.family.model_type,
        towers={} if config is None else {side: _tower(config, side) for side in SIDES},
        config_unknown=() if config is None else config.unknown_fields,
        dropped={item.name: item.reason for item in plan.dropped} if plan else {},
        restored=tuple(plan.restored) if plan else (),
        problem=problem,
    )


def _tower(config: TwoTowerConfig, side: Side) -> dict[str, Any]:
    tower = config.tower(side)
    shown = (
        "hidden_size", "embed_dim", "num_hidden_layers", "depths", "num_attention_heads", "num_heads", "image_size",
        "num_patches", "patch_size", "vocab_size", "max_position_embeddings",
    )  # fmt: skip
    return {"model_type": tower.model_type} | {name: tower.fields[name] for name in shown if name in tower.fields}

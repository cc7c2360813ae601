"""From a source and options to a job: which file is written, and what is refused before any tensor is read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from converter.checkpoints.shards import parse_size
from converter.conversion.formats import choose, weights_file
from converter.conversion.job import Job, Progress
from converter.conversion.other_layouts import check_layout
from converter.conversion.plan import DTYPES_ASKED, NAMES, make_plan
from converter.conversion.positions import check_positions
from converter.errors import TargetError
from converter.names.configs import TwoTowerConfig
from converter.names.frameworks import CANONICAL, KERAS, framework_name
from converter.names.layout_files import OWN
from converter.names.rule_files import SIDES
from converter.specs import Checkpoint, Framework


def plan_job(
    target: Framework,
    source: Path,
    out: Path,
    checkpoint: Checkpoint,
    config: TwoTowerConfig,
    options: Mapping[str, Any],
    progress: Progress | None,
) -> Job:
    """Plans a conversion, and refuses options that do not go together.

    Args:
        target: whose names and layouts to write.
        source: as it was given.
        out: the folder that shall appear.
        checkpoint: what the source holds.
        config: its config.
        options: as they were given.
        progress: called with the stage, bytes done and total bytes.

    Raises:
        PlanError: the checkpoint is not what the config describes.
        TargetError: the target has no such container, or nothing could load it.
    """
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

"""A Flax checkpoint's own model as the reference: what it is asked, and where positions make two right models differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from converter.conversion.positions import offset
from converter.conversion.streams import open_tensors
from converter.errors import NoReference
from converter.names.configs import TwoTowerConfig, read_config
from converter.names.frameworks import KERAS
from converter.parity.batches import Batch
from converter.parity.runners.golden import config_of
from converter.parity.runners.options import FlaxOptions, ReferenceOptions

NO_LOSS = "loss: not checked, Flax models give none"


def flax_options(source: Path, options: ReferenceOptions) -> FlaxOptions:
    """How a Flax checkpoint's model runs, from ``options`` for PyTorch.

    Raises:
        NoReference: transformers has no Flax class for the model.
    """
    config = read_config(config_of(source))
    name = config.family.classes.get("flax")
    if name is None:
        raise NoReference(f"{source}: transformers has no Flax class for {config.family.model_type}")
    with open_tensors(source, "flax") as tensors:
        files = tuple(str(path.absolute()) for path in tensors.files)
    return FlaxOptions(name, files, options.device, options.dtype)


def counted_alike(
    batches: Sequence[Batch], config: TwoTowerConfig, moved: bool
) -> tuple[tuple[Batch, ...], tuple[str, ...]]:
    """Batches on which Flax and Keras give the same although only one counts positions from 0.

    Args:
        batches: as they were made.
        config: the model's.
        moved: whether the candidate's table of positions was moved, so that each side counts as it does by itself.

    Returns:
        Batches, and notes that say what was done. A moved table is for texts padded on the right and without positions
        of their own. A table that was kept is compared at the candidate's positions on both sides.
    """
    first = offset(config.text, "flax", KERAS)
    if not first:
        return tuple(batches), ()
    kind = config.text.model_type
    if moved:
        note = (
            f"{kind}: positions were moved for Flax's outputs, so texts are padded on the right and positions left out"
        )
        return tuple(_padded_right(batch) for batch in batches), (note,)
    note = (
        f"{kind}: Flax counts positions from 0, the checkpoint from {first} (--positions keep). Both sides ran at positions "
        f"from {first}; by itself, Flax gives other outputs, by design"
    )
    return tuple(_with_positions(batch, first) for batch in batches), (note,)


def _with_positions(batch: Batch, first: int) -> Batch:
    ids = batch.inputs["input_ids"]
    positions = np.broadcast_to(np.arange(first, first + ids.shape[1], dtype=np.int64), ids.shape)
    return replace(batch, inputs={"position_ids": np.ascontiguousarray(positions), **batch.inputs})


def _padded_right(batch: Batch) -> Batch:
    """Mirrored where a text begins with padding, a hole in its mask or not."""
    inputs = {name: array for name, array in batch.inputs.items() if name != "position_ids"}
    if batch.mask[:, 0].all():
        return replace(batch, inputs=inputs)
    mirrored = {name: array if name == "pixel_values" else array[:, ::-1].copy() for name, array in inputs.items()}
    return replace(batch, title=batch.title.replace("on the left", "on the right"), inputs=mirrored)

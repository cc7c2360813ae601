"""Where a text's positions begin: the same table of them gives other outputs in a framework that counts from elsewhere.

PyTorch's RoBERTa, and with it TensorFlow's, counts from behind the padding token's id on; Flax's models pass 0, 1, 2 ...
Source: transformers 4.57, create_position_ids_from_input_ids and FlaxVisionTextDualEncoderModel.__call__.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from converter.conversion.formats import choose
from converter.errors import TargetError
from converter.names.configs import TowerConfig, TwoTowerConfig
from converter.names.expressions import integer
from converter.names.frameworks import CANONICAL, framework_name
from converter.names.places import prefix
from converter.specs import Framework, StoredTensor

_log = logging.getLogger(__name__)

Positions = Literal["keep", "flax"]
POSITIONS: tuple[Positions, ...] = ("keep", "flax")


def offset(text: TowerConfig, source: Framework, target: Framework) -> int:
    """How many rows further on in the table of positions the target begins than the source; 0 where both agree."""
    said = text.rules.get("positions")
    if said is None:
        return 0
    first = integer(said["first"], text.fields)
    begins = {key: 0 if key in said["from_zero"] else first for key in (source, target)}
    return begins[target] - begins[source]


def shift_positions(
    found: Mapping[str, StoredTensor], text: TowerConfig, name: str, source: Framework, serves: Framework
) -> dict[str, StoredTensor]:
    """Moves the rows of the table of positions so that another framework's model gives the source's outputs.

    Rows that leave it at one end enter it at the other, so that nothing is lost and the way back gives the same table.

    Args:
        found: the source's tensors by name.
        text: config of the text tower.
        name: what ``found`` calls the table.
        source: whose model ran on it.
        serves: whose model shall.
    """
    rows = offset(text, source, serves)
    return {**found, name: _rolled(found[name], rows)} if rows and name in found else dict(found)


def check_positions(positions: Positions, source: Framework, target: Framework) -> None:
    """Refuses to move what does not differ.

    Raises:
        TargetError: the option does not exist, or neither side is Flax.
    """
    choose("positions", positions, POSITIONS)
    if positions == "flax" and (source == target or "flax" not in (source, target)):
        raise TargetError(
            f"positions flax: from {framework_name(source)} to {framework_name(target)} positions do not change; leave "
            "the option out"
        )


def table(config: TwoTowerConfig) -> str | None:
    """Canonical name of a table whose rows a framework counts differently; None where the text tower has none."""
    said = config.text.rules.get("positions")
    return None if said is None else prefix(CANONICAL, config.family, config.text) + said["table"]


def warning(text: TowerConfig, source: Framework, target: Framework) -> str | None:
    """The warning if equal weights give other outputs, or None."""
    if not offset(text, source, target):
        return None
    first = integer(text.rules["positions"]["first"], text.fields)
    other = framework_name(source if source != "flax" else target)
    differs = (
        f"{text.model_type}: Flax counts positions from 0, {other} from {first}, so the same weights give other "
        "outputs there. "
    )
    if target == "flax":
        return (
            f"{differs}They are kept, as transformers does. For the outputs of {other} in Flax convert with "
            f"`--positions flax`, which moves the table of positions by {first} rows"
        )
    return (
        f"{differs}Weights that were trained in Flax need `--positions flax`, which moves the table of positions by {first} "
        "rows. Weights that were only converted to Flax must keep it. To decide, score pairs of texts and pictures that "
        "belong together with both: the right one scores higher"
    )


def tell_positions(positions: Positions, text: TowerConfig, source: Framework, target: Framework) -> None:
    """Warns where a table of positions was kept and equal weights give other outputs."""
    said = warning(text, source, target) if positions == "keep" else None
    if said is not None:
        _log.warning("%s", said)


def _rolled(stored: StoredTensor, rows: int) -> StoredTensor:
    """A tensor whose row ``n`` is row ``n - rows`` of another, counted in a circle."""
    size = stored.shape[0]
    cut = -rows % size if size else 0
    if stored.extent is not None:
        extent = stored.extent
        at = extent.nbytes // max(size, 1) * cut
        pieces = (*extent.runs(at, extent.nbytes), *extent.runs(0, at))
        return replace(stored, extent=replace(extent, offset=pieces[0][0], pieces=pieces)) if pieces else stored
    read = stored.read_rows
    if read is None:
        return stored

    def read_rows(start: int, stop: int) -> np.ndarray[Any, Any]:
        middle = max(start, min(stop, size - cut))  # from here on it is the beginning of the other one
        parts = [read(start + cut, middle + cut)] if start < middle else []
        parts += [read(middle + cut - size, stop + cut - size)] if middle < stop or not parts else []
        return np.concatenate(parts)

    return replace(stored, read_rows=read_rows)

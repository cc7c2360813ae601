"""What is supported, as the rules say it: families, towers and frameworks; and what is refused, with the reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from converter.names.families import families
from converter.names.frameworks import CANONICAL, KERAS, framework_name, frameworks
from converter.names.refused import refusals
from converter.names.rule_files import SIDES, Side, supported
from converter.names.towers import class_in_transformers_4
from converter.specs import JSON_FORMAT, Framework


@dataclass(frozen=True)
class SupportedTower:
    """One model type of a tower.

    Attributes:
        model_type: as in config.json.
        side: ``"vision"`` or ``"text"``.
        frameworks: keys of the frameworks that its checkpoints are converted between.
        tensorflow_4: its class in TensorFlow, where a dual encoder of transformers 4.57 can have it; else None.
    """

    model_type: str
    side: Side
    frameworks: tuple[Framework, ...]
    tensorflow_4: str | None


@dataclass(frozen=True)
class Supported:
    """Everything that a conversion takes.

    Attributes:
        families: model type of each kind of model with two towers -> its class in PyTorch.
        towers: every tower, vision first.
        refused: by side, model types that are refused as towers, and why.
    """

    families: Mapping[str, str]
    towers: tuple[SupportedTower, ...]
    refused: Mapping[Side, Mapping[str, str]]

    def to_json(self) -> dict[str, Any]:
        """Ready for ``json.dumps``: ``docs/towers.schema.json`` describes it."""
        refused = [
            {"side": side, "model_type": name, "reason": reason}
            for side, reasons in self.refused.items()
            for name, reason in reasons.items()
        ]
        towers = [asdict(tower) | {"frameworks": list(tower.frameworks)} for tower in self.towers]
        return {"format": JSON_FORMAT, "families": dict(self.families), "towers": towers, "refused": refused}

    def to_markdown(self) -> str:
        """The towers as a Markdown table."""
        lines = ["| tower | side | frameworks | TensorFlow class in transformers 4.57 |", "|---|---|---|---|"]
        for tower in self.towers:
            names = ", ".join(framework_name(key) for key in tower.frameworks)
            lines.append(f"| {tower.model_type} | {tower.side} | {names} | {tower.tensorflow_4 or ''} |")
        return "\n".join(lines)


def towers() -> Supported:
    """Lists what is supported, and what is refused with the reason.

    Returns:
        Families, towers and refused model types, as the rules say them.
    """
    found = tuple(
        SupportedTower(name, side, _frameworks_of(side, name), class_in_transformers_4(side, name, KERAS))
        for side in SIDES
        for name in supported(side)
    )
    refused = {side: refusals(side) for side in SIDES}
    return Supported({name: family.classes[CANONICAL] for name, family in families().items()}, found, refused)


def _frameworks_of(side: Side, tower: str) -> tuple[Framework, ...]:
    """PyTorch and TensorFlow, whose models are in every version or ours, and those in which transformers 4 has a class."""
    return tuple(
        key
        for key in frameworks()
        if key in (CANONICAL, KERAS) or any(tower in family.towers_in(side, key) for family in families().values())
    )

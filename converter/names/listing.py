"""What the rules support: families, towers, layouts and formats; and what is refused, with the reason."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from converter.names.families import families
from converter.names.frameworks import CANONICAL, FORMATS, KERAS, READ_ONLY, framework_name, frameworks
from converter.names.layout_files import LAYOUTS_OF_OTHERS, OWN, kind_of, layout_file
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
        tensorflow_4: its class in TensorFlow if a dual encoder of transformers 4.57 can have it, else None.
    """

    model_type: str
    side: Side
    frameworks: tuple[Framework, ...]
    tensorflow_4: str | None


@dataclass(frozen=True)
class SupportedFamily:
    """One kind of model with two towers.

    Attributes:
        model_type: as in config.json.
        classes: by key of the framework, the name of its class there; for TensorFlow, also in this package.
        layouts: names of the layouts that its PyTorch checkpoints are read and written in, as ``layout=`` takes them.
    """

    model_type: str
    classes: Mapping[Framework, str]
    layouts: tuple[str, ...]


@dataclass(frozen=True)
class SupportedFormat:
    """One container of weights.

    Attributes:
        format: value for ``format=``; for a format that is only read, its name.
        framework: key of its framework.
        file: name of its file.
        layout: the layout of names and tensors in it.
        written: whether it is written too, or only read.
    """

    format: str
    framework: Framework
    file: str
    layout: str
    written: bool


@dataclass(frozen=True)
class Supported:
    """Everything that conversions support.

    Attributes:
        families: model type of each kind of model with two towers -> its class in PyTorch.
        towers: every tower, vision first.
        refused: by side, model types that are refused as towers, and why.
        models: the families, with their classes in every framework and their layouts.
        formats: every container of weights, those that are written first.
    """

    families: Mapping[str, str]
    towers: tuple[SupportedTower, ...]
    refused: Mapping[Side, Mapping[str, str]]
    models: tuple[SupportedFamily, ...]
    formats: tuple[SupportedFormat, ...]

    def to_json(self) -> dict[str, Any]:
        """Ready for ``json.dumps``: ``docs/towers.schema.json`` describes it."""
        refused = [
            {"side": side, "model_type": name, "reason": reason}
            for side, reasons in self.refused.items()
            for name, reason in reasons.items()
        ]
        towers = [asdict(tower) | {"frameworks": list(tower.frameworks)} for tower in self.towers]
        models = [
            vars(model) | {"classes": dict(model.classes), "layouts": list(model.layouts)} for model in self.models
        ]
        return {
            "format": JSON_FORMAT,
            "families": dict(self.families),
            "models": models,
            "towers": towers,
            "formats": [asdict(format) for format in self.formats],
            "refused": refused,
        }

    def to_markdown(self) -> str:
        """Models, towers and formats as three Markdown tables."""
        keys = tuple(frameworks())
        lines = [f"| model | {' | '.join(map(framework_name, keys))} | layouts |", "|---|" + "---|" * (len(keys) + 1)]
        for model in self.models:
            classes = " | ".join(model.classes.get(key, "") for key in keys)
            lines.append(f"| {model.model_type} | {classes} | {', '.join(model.layouts)} |")
        lines += ["", "| tower | side | frameworks | TensorFlow class in transformers 4.57 |", "|---|---|---|---|"]
        for tower in self.towers:
            names = ", ".join(framework_name(key) for key in tower.frameworks)
            lines.append(f"| {tower.model_type} | {tower.side} | {names} | {tower.tensorflow_4 or ''} |")
        lines += ["", "| format | framework | file | layout | |", "|---|---|---|---|---|"]
        for format in self.formats:
            way = "in and out" if format.written else "in"
            file = ", ".join(f"`{name}`" for name in format.file.split(", "))
            lines.append(f"| {format.format} | {framework_name(format.framework)} | {file} | {format.layout} | {way} |")
        return "\n".join(lines)


def towers() -> Supported:
    """Lists what is supported, and what is refused with the reason.

    Returns:
        Families, towers, formats and refused model types, as the rules say them.
    """
    found = tuple(
        SupportedTower(name, side, _frameworks_of(side, name), class_in_transformers_4(side, name, KERAS))
        for side in SIDES
        for name in supported(side)
    )
    refused = {side: refusals(side) for side in SIDES}
    models = tuple(SupportedFamily(name, family.classes, _layouts_of(name)) for name, family in families().items())
    return Supported(
        {name: family.classes[CANONICAL] for name, family in families().items()},
        found,
        refused,
        models,
        (*_written(), *_read_only()),
    )


def _layouts_of(family: str) -> tuple[str, ...]:
    return (OWN, *(layout for layout in LAYOUTS_OF_OTHERS if kind_of(layout, family) is not None))


def _written() -> Iterator[SupportedFormat]:
    for framework, files in FORMATS.items():
        yield from (SupportedFormat(format, framework, file, OWN, True) for format, file in files.items())
    for layout in LAYOUTS_OF_OTHERS:
        for format, file in layout_file(layout)["weights"].items():
            yield SupportedFormat(format, CANONICAL, file, layout, True)


def _read_only() -> Iterator[SupportedFormat]:
    for framework, files in READ_ONLY.items():
        yield from (SupportedFormat(format, framework, file, OWN, False) for format, file in files.items())


def _frameworks_of(side: Side, tower: str) -> tuple[Framework, ...]:
    """PyTorch and TensorFlow, whose models are in every version or ours, and those in which transformers 4 has a class."""
    return tuple(
        key
        for key in frameworks()
        if key in (CANONICAL, KERAS) or any(tower in family.towers_in(side, key) for family in families().values())
    )

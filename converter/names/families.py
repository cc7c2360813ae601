"""Families: the kinds of model with two towers. Each is a file in ``rename_rules/families/``, found by its model type."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from converter.names.frameworks import CANONICAL
from converter.names.rule_files import Side, family_files, rule_file, supported
from converter.names.towers import in_transformers_4
from converter.specs import Framework


@dataclass(frozen=True)
class Place:
    """Where a family keeps one of its towers.

    Attributes:
        towers: model types that the tower may have; the first is the default. Empty: every one with rules, and silence
            means nothing.
        prefixes: by framework, the prefix of the tower's own names; ``{side}`` and ``{main_layer}`` are filled in.
            Where the canonical framework has none, the family's scope rules say it.
        without: prefixes of canonical names that the tower has by itself, but not here.
        own_dialects: whether the dialects of the tower's file are those of this family.
    """

    towers: tuple[str, ...]
    prefixes: Mapping[Framework, str]
    without: tuple[str, ...] = ()
    own_dialects: bool = False


@dataclass(frozen=True)
class Family:
    """One family, as its file has it.

    Attributes:
        stem: of its file.
        model_type: as in config.json.
        classes: by framework, the name of its class in transformers; the one for TensorFlow is ours, too.
        config_class: of transformers.
        in_transformers_4: frameworks beside PyTorch in which transformers 4 had it.
        root_scope: first level of its variables' names in TensorFlow.
        order: ``"vision"``, ``"text"`` and the modules outside them, as TensorFlow creates their variables.
        scale: canonical name of the trained temperature.
        init_scale: field of config.json that a trained scale is written to; None where every reader takes it from the
            weights.
        config_dicts: whether ``text_config_dict`` and ``vision_config_dict`` replace a tower's fields, as in CLIP.
        places: of the towers, by side.
        rules: the whole file.
    """

    stem: str
    model_type: str
    classes: Mapping[Framework, str]
    config_class: str
    in_transformers_4: tuple[Framework, ...]
    root_scope: str
    order: tuple[str, ...]
    scale: str
    init_scale: str | None
    config_dicts: bool
    places: Mapping[Side, Place]
    rules: Mapping[str, Any]

    @property
    def title(self) -> str:
        """What people call it, for example ``"CLIP"``."""
        return self.classes[CANONICAL].removesuffix("Model")

    def towers(self, side: Side) -> tuple[str, ...]:
        """Model types that a tower may have."""
        return self.places[side].towers or supported(side)

    def is_in_transformers_4(self, framework: Framework, towers: Mapping[Side, str]) -> bool:
        """Whether transformers 4 loads such a model in a framework."""
        if framework == CANONICAL:
            return True
        return framework in self.in_transformers_4 and all(
            bool(place.towers) or in_transformers_4(side, towers.get(side), framework)
            for side, place in self.places.items()
        )

    def towers_in(self, side: Side, framework: Framework) -> tuple[str, ...]:
        """Model types that a tower may have in a framework of transformers 4."""
        own = bool(self.places[side].towers)
        if framework not in self.in_transformers_4:
            return ()
        return tuple(tower for tower in self.towers(side) if own or in_transformers_4(side, tower, framework))

    def default_tower(self, side: Side) -> str | None:
        """The default tower for a config that does not name one; None if it must name one."""
        return next(iter(self.places[side].towers), None)


# The family of a config that names two towers and no model type; and the one that towers are joined to.
JOINED = "vision-text-dual-encoder"


@functools.cache
def families() -> Mapping[str, Family]:
    """Every family by its model type, sorted."""
    found = (_read(stem) for stem in family_files())
    return {family.model_type: family for family in sorted(found, key=lambda family: family.model_type)}


@functools.cache
def family(model_type: str) -> Family:
    """One family by its model type.

    Raises:
        KeyError: it does not exist.
    """
    stem = model_type.replace("-", "_")
    if stem not in family_files() or (found := _read(stem)).model_type != model_type:
        raise KeyError(model_type)
    return found


def is_family(model_type: Any) -> bool:
    """Whether there is a family of this model type."""
    try:
        return isinstance(model_type, str) and family(model_type) is not None
    except KeyError:
        return False


def joined() -> Family:
    """The family of two towers of any kind."""
    return family(JOINED)


def _read(stem: str) -> Family:
    rules = rule_file(f"families/{stem}")
    return Family(
        stem=stem,
        model_type=rules["model_type"],
        classes=rules["classes"],
        config_class=rules["config_class"],
        in_transformers_4=tuple(rules["in_transformers_4"]),
        root_scope=rules["root_scope"],
        order=tuple(rules["order"]),
        scale=rules["scale"],
        init_scale=None if rules["init_scale"] == "none" else rules["init_scale"],
        config_dicts=rules["config_dicts"],
        places={"vision": _place(rules["vision"]), "text": _place(rules["text"])},
        rules=rules,
    )


def _place(rules: Mapping[str, Any]) -> Place:
    return Place(
        tuple(rules["towers"]),
        rules["prefixes"],
        tuple(rules.get("without", ())),
        rules.get("own_dialects", False),
    )

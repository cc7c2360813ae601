"""Which class serves which family and which tower, according to the rule files; each is imported at its first use."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from converter.errors import ConfigError, ModelError, UnsupportedTower, printable
from converter.names.configs import check_tower_config, required_fields
from converter.names.expressions import integer
from converter.names.families import Family, families
from converter.names.frameworks import CANONICAL, KERAS
from converter.names.rule_files import SIDES, Side, rule_file, supported, tower_files
from converter.names.towers import tower_rules


def side_of(model_type: object) -> Side | None:
    """The side of a tower with this model type, or None."""
    return next((side for side in SIDES if tower_rules(side, model_type) is not None), None)


def tower_config(config: Any, side: str) -> Any:
    """The tower's own config: of a config that has two towers (CLIP's, SigLIP's) the part for this side.

    Args:
        config: a config of transformers.
        side: ``"vision"`` or ``"text"``.

    Returns:
        The config itself, or its ``vision_config`` / ``text_config``.
    """
    return getattr(config, f"{side}_config", config)


def complete(config: Any, side: Side) -> None:
    """Gives a tower's config the fields that a model with two towers asks of it, where its own class has none."""
    if (tower_rules(side, getattr(config, "model_type", None)) or {"config": {}})["config"].get("required"):
        for name, value in required_fields(check_tower_config(side, config.to_dict())).items():
            setattr(config, name, value)


def width_of(config: Any, side: Side) -> int:
    """The width of a tower's pooled output, from its rules; by default ``hidden_size``."""
    rules = tower_rules(side, getattr(config, "model_type", None)) or {}
    if "width" not in rules:
        return int(config.hidden_size)
    return integer(rules["width"], check_tower_config(side, config.to_dict()).fields)


def tower_class(config: Any, side: str) -> type[Any]:
    """Finds the tower for a config.

    Args:
        config: a tower's config of transformers.
        side: ``"vision"`` or ``"text"``.

    Returns:
        The class, to be called with the config.

    Raises:
        ConfigError: it is no config.
        UnsupportedTower: there is no tower for this model type on this side.
    """
    model_type = getattr(config, "model_type", None)
    if not isinstance(model_type, str):
        raise ConfigError(
            f"{side}_config is a {type(config).__name__}; expected a config of transformers with a model_type. "
            "Load one with transformers.AutoConfig.from_pretrained."
        )
    own: Side = "vision" if side == "vision" else "text"
    rules = tower_rules(own, model_type)
    if rules is None:
        raise UnsupportedTower(
            f"{side}_config.model_type is {printable(model_type)!r}; supported {side} towers: "
            f"{', '.join(supported(own))}. Use one of these, or keep this model in PyTorch."
        )
    module, name = rules.get("keras_of", {}).get(model_type, rules["keras"]).split(":")
    found: type[Any] = getattr(import_module(f"converter.models.towers.{module}"), name)
    return found


def family_class(of: Family) -> type[Any]:
    """The class of a family: named in its file, in the module with the file's name.

    Raises:
        ModelError: it has none yet.
    """
    module = f"converter.models.families.{of.stem}"
    if KERAS not in of.classes or find_spec(module) is None:
        raise ModelError(
            f"{of.title} has no Keras model here, only rules. Convert it, and run it with transformers' "
            f"{of.classes[CANONICAL]}."
        )
    found: type[Any] = getattr(import_module(module), of.classes[KERAS])
    return found


def family_places() -> Iterator[tuple[str, str]]:
    """Name and module of every family's class; nothing is imported."""
    for of in families().values():
        if KERAS in of.classes:
            yield of.classes[KERAS], f"converter.models.families.{of.stem}"


def tower_places() -> Iterator[tuple[str, str]]:
    """Name and module of every tower's class; nothing is imported."""
    files = [rule_file(f"towers/{stem}") for side in SIDES for stem in set(tower_files(side).values())]
    for place in sorted({place for rules in files for place in (rules["keras"], *rules.get("keras_of", {}).values())}):
        module, _, name = place.partition(":")
        yield name, f"converter.models.towers.{module}"

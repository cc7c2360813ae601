"""Which class serves which model type: the rule files say so; each class is imported when it is first asked for."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from converter.errors import ConfigError, UnsupportedTower, listed, printable
from converter.names.configs import Side, supported
from converter.names.towers import SIDES, tower_rules


def side_of(model_type: object) -> Side | None:
    """The side that has a tower of this model type; None where neither has."""
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
            f"{listed(supported(own), 20)}. Use one of these, or keep this model in PyTorch."
        )
    module, name = rules["keras"].split(":")
    found: type[Any] = getattr(import_module(f"converter.models.towers.{module}"), name)
    return found

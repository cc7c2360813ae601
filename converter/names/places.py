"""Where a family keeps what: the prefix of a tower's names and the path of a module, in each framework."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from converter.names.configs import TowerConfig
from converter.names.families import Family
from converter.names.families import family as get_family
from converter.names.frameworks import CANONICAL, KERAS, frameworks
from converter.names.rule_files import Side
from converter.names.scopes import erase_main_layer
from converter.specs import Framework


def prefix(framework: Framework, family: Family, tower: TowerConfig) -> str:
    """The prefix of a tower's own names in a framework's names of a family."""
    return tower_prefix(framework, family, tower.side, tower.rules["main_layer"])


def tower_prefix(framework: Framework, family: Family, side: Side, main_layer: str) -> str:
    """The prefix of the own names of a family's tower on a side."""
    return _prefix(framework, family.model_type, side, main_layer)


@functools.cache
def _prefix(framework: Framework, model_type: str, side: Side, main_layer: str) -> str:
    prefixes = get_family(model_type).places[side].prefixes
    if framework in prefixes:
        return prefixes[framework].format(main_layer=main_layer)
    if framework != CANONICAL:
        return _separated(_prefix(CANONICAL, model_type, side, main_layer), framework)
    # The result of tf_to_pt_weight_rename for the name in TensorFlow.
    return erase_main_layer(prefixes[KERAS].format(main_layer=main_layer).replace("/", "."))


def path_in(framework: Framework, module: Mapping[str, Any]) -> str:
    """A module's path in a framework: its own, or else the canonical one."""
    if framework in module:
        return str(module[framework])
    return _separated(module[CANONICAL], framework)


def _separated(name: str, framework: Framework) -> str:
    return name.replace(frameworks()[CANONICAL].separator, frameworks()[framework].separator)

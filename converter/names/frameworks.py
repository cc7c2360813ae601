"""What a framework is to the names of tensors, by its key: ``pt``, ``tf``. One column in the kinds of module each."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass

from converter.names.rule_files import rule_file
from converter.specs import FRAMEWORKS, Framework

# The framework in whose names and layouts everything is said: rules, hashes, reports.
CANONICAL: Framework = "pt"
# The framework whose names and layouts the models of this package have.
KERAS: Framework = "tf"


@dataclass(frozen=True, slots=True)
class FrameworkRules:
    """One framework, as ``rename_rules/common.toml`` has it.

    Attributes:
        key: for example ``"pt"``.
        name: for people, for example ``"PyTorch"``.
        tag: what the Hub calls it.
        separator: between the levels of a name.
        suffix: what its files add to every name, for example ``":0"``.
        scoped: whether its files put the root scope of the model in front of every name.
        in_main_layer: whether a model of one tower holds it inside a layer, which is named as the tower's rules say.
        integers: dtype of the integer buffers that it stores.
        converts_to: the framework that a checkpoint of this one is converted to when nobody says.
        transformers_5: whether transformers 5 reads its checkpoints; if not, 4.x alone does.
    """

    key: Framework
    name: str
    tag: str
    separator: str
    suffix: str
    scoped: bool
    in_main_layer: bool
    integers: str
    converts_to: Framework
    transformers_5: bool


@functools.cache
def frameworks() -> Mapping[Framework, FrameworkRules]:
    """Every framework by its key, in order of preference."""
    said = rule_file("common")["frameworks"]
    return {key: FrameworkRules(key, **said[key]) for key in FRAMEWORKS}


def framework_name(key: Framework) -> str:
    """What people call a framework, for example ``"TensorFlow"``."""
    return frameworks()[key].name


def direction(source: Framework, target: Framework) -> str:
    """What a conversion is called, for example ``"pt2tf"``."""
    return f"{source}2{target}"


def framework_names(between: str = " or ") -> str:
    """Names of all frameworks, for example ``"PyTorch or TensorFlow"``."""
    return between.join(rules.name for rules in frameworks().values())

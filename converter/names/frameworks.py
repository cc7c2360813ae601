"""What a framework means for tensor names, by its key: ``pt``, ``tf``, ``flax``. Each is a column in the kinds of module."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass

from converter.names.rule_files import rule_file
from converter.specs import FRAMEWORKS, Framework, Wanted

# The framework whose names and layouts rules, hashes and reports use.
CANONICAL: Framework = "pt"
# The framework whose names and layouts the models of this package have.
KERAS: Framework = "tf"

# By framework, the word for each container that is written, and the name of its file; the first is the default.
FORMATS: Mapping[Framework, Mapping[str, str]] = {
    "pt": {"safetensors": "model.safetensors", "bin": "pytorch_model.bin"},
    "tf": {"h5": "tf_model.h5", "safetensors": "model.safetensors"},
    "flax": {"msgpack": "flax_model.msgpack", "safetensors": "model.safetensors"},
}
# Formats that are only read, and the file that identifies them.
READ_ONLY: Mapping[Framework, Mapping[str, str]] = {
    "pt": {"trainer's checkpoint": "*.ckpt, *.pt"},
    "tf": {"SavedModel": "saved_model.pb", "TensorFlow checkpoint": "*.index", "Keras weights": "*.h5"},
}


@dataclass(frozen=True, slots=True)
class FrameworkRules:
    """One framework, as ``rename_rules/common.toml`` has it.

    Attributes:
        key: for example ``"pt"``.
        name: for people, for example ``"PyTorch"``.
        tag: what the Hub calls it.
        separator: between the levels of a name.
        in_safetensors: between the levels of a name in its safetensors files.
        suffix: what its files add to every name, for example ``":0"``.
        sorted: whether its files keep tensors in the order of their names, or else in that in which they are created.
        scoped: whether its files put the root scope of the model in front of every name.
        in_main_layer: whether a model of one tower holds it inside a layer with a name from the tower's rules.
        integers: dtype of the integer buffers that it stores.
        converts_to: the default target for a checkpoint of this framework.
        transformers_5: whether transformers 5 reads its checkpoints; if not, only 4.x does.
    """

    key: Framework
    name: str
    tag: str
    separator: str
    in_safetensors: str
    suffix: str
    sorted: bool
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
    """The name of a conversion, for example ``"pt2tf"``."""
    return f"{source}2{target}"


def command(source: Framework, target: Framework | None = None) -> str:
    """The command that converts a checkpoint of a framework, for example ``"pt2tf"`` or ``"to pt"``.

    Args:
        source: whose checkpoint it is.
        target: whose it shall be; None for the usual one.
    """
    known = frameworks()
    target = target or known[source].converts_to
    both = known[source].converts_to == target and known[target].converts_to == source
    return direction(source, target) if both else f"to {target}"


def among(wanted: Wanted) -> tuple[Framework, ...]:
    """Whose checkpoints will do, those first that are preferred."""
    if wanted is None:
        return tuple(frameworks())
    return (wanted,) if isinstance(wanted, str) else wanted


def framework_names(wanted: Wanted = None) -> str:
    """The name of the wanted framework, the first of several; for all ``"PyTorch, TensorFlow or Flax"``."""
    if wanted is not None:
        return framework_name(among(wanted)[0])
    *others, last = map(framework_name, frameworks())
    return f"{', '.join(others)} or {last}"

"""``output_loading_info`` of transformers 4's ``from_pretrained``, and weights of a checkpoint that may have another shape."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
from keras import ops

from converter.checkpoints.detect import WEIGHTS
from converter.conversion.streams import TensorReader
from converter.errors import ModelError, listed, printable
from converter.hub.ids import hub_id

Shape = tuple[int, ...]
Mismatched = tuple[str, Shape, Shape]


def mismatched(variables: Mapping[str, Any], reader: TensorReader) -> tuple[Mismatched, ...]:
    """Names of the variables whose shape is not the checkpoint's, with the checkpoint's shape and the model's."""
    shapes = reader.shapes
    return tuple(
        (name, tuple(shapes[name]), tuple(variable.shape))
        for name, variable in variables.items()
        if name in shapes and tuple(variable.shape) != tuple(shapes[name])
    )


def draw(variables: Mapping[str, Any], names: Iterable[str], std: float) -> None:
    """Starts some variables as in a new model: ones for a norm's gamma, zeros for what is added, else random."""
    for name in names:
        variable = variables[name]
        variable.assign(fresh(name, tuple(variable.shape), std))


def fresh(name: str, shape: Shape, std: float) -> Any:
    """A new value of a variable, by its name and shape."""
    if name.endswith("/gamma"):
        return ops.ones(shape)
    if name.endswith(("/bias", "/beta")):
        return ops.zeros(shape)
    return keras.initializers.RandomNormal(stddev=std)(shape)


def loading_info(left_out: Iterable[str], new: Iterable[str], of_another_shape: Iterable[Mismatched]) -> dict[str, Any]:
    """The dictionary that ``output_loading_info=True`` gives beside the model."""
    return {
        "missing_keys": list(new),
        "unexpected_keys": list(left_out),
        "mismatched_keys": list(of_another_shape),
    }


def of_variant(source: str | os.PathLike[str], variant: str | None, subfolder: str | None) -> str | os.PathLike[str]:
    """The weights file of a variant in a folder: ``model.fp16.safetensors`` for ``"fp16"``.

    Args:
        source: a folder, or an id, which has no variants here.
        variant: None for the usual weights.
        subfolder: the folder of the weights in ``source``.

    Raises:
        ModelError: there is no such file, or ``source`` is an id.
    """
    if variant is None:
        return source
    if hub_id(source) is not None:
        raise ModelError(
            f"variant={printable(repr(variant), 40)} is read from a folder only. "
            f"Download the repository with `hf download {printable(os.fspath(source), 100)}`, and name the folder."
        )
    folder = Path(source) / (subfolder or "")
    names = [f"{stem}.{variant}.{end}" for stem, _, end in (name.partition(".") for name in _usual())]
    found = next((folder / name for name in names if (folder / name).is_file()), None)
    if found is None:
        raise ModelError(
            f"{folder}: holds no weights of variant {printable(repr(variant), 40)}; looked for {listed(names)}. "
            "Leave variant= out to load the usual weights."
        )
    return found


@dataclass(frozen=True)
class Asked:
    """Arguments of transformers 4's from_pretrained about how to load, and the place of the weights then."""

    source: str | os.PathLike[str]
    info: bool
    ignore_mismatched_sizes: bool


def take_asked(source: str | os.PathLike[str], arguments: dict[str, Any]) -> Asked:
    """Takes ``output_loading_info``, ``ignore_mismatched_sizes`` and ``variant`` out of the arguments."""
    variant = arguments.pop("variant", None)
    found = of_variant(source, variant, arguments.get("subfolder"))
    if variant is not None:
        arguments.pop("subfolder", None)
    info, ignore = (bool(arguments.pop(name, False)) for name in ("output_loading_info", "ignore_mismatched_sizes"))
    return Asked(found, info, ignore)


def _usual() -> list[str]:
    return [name for names in WEIGHTS.values() for name in names if not name.endswith(".json")]

"""The dtypes of a model's weights and computation: Keras' policies, by any framework's names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import keras

from converter.arguments import check
from converter.conversion.streams import TensorReader
from converter.errors import ArgumentError, printable
from converter.tensors.casts import FLOATS

POLICIES = ("float32", "float16", "bfloat16", "float64", "mixed_float16", "mixed_bfloat16")
AUTO = "auto"
DTYPE_NAMES = ("dtype", "torch_dtype")  # the first counts where both are given, as in transformers


def take_dtype(options: dict[str, Any], reader: TensorReader | None = None) -> dict[str, Any]:
    """Takes ``dtype``, or ``torch_dtype`` as transformers 4 calls it, out of some options.

    Args:
        options: of a model; they lose both.
        reader: the checkpoint being loaded; ``"auto"`` means its dtype in config.json, or else that of its first
            floats. Without one there is no ``"auto"``.

    Returns:
        ``dtype`` as a Keras policy; nothing if neither was given.

    Raises:
        ArgumentError: there is no such policy.
    """
    given = {name: value for name in DTYPE_NAMES if (value := options.pop(name, None)) is not None}
    if not given:
        return {}
    name, asked = next(iter(given.items()))
    if reader is not None and isinstance(asked, str) and asked == AUTO:
        return {"dtype": _saved_in(reader)}
    return {"dtype": _policy(name, asked, () if reader is None else (AUTO,))}


def model_options(initial: Any, options: dict[str, Any]) -> dict[str, Any]:
    """What a model's constructor hands on to Keras, with ``dtype`` as a Keras policy.

    Raises:
        ArgumentError: an option is of another type, or there is no such word.
    """
    check("initial", initial, Literal["random", "zeros", "empty"])
    check("name", options.get("name"), str | None)
    check("trainable", options.get("trainable"), bool | None)
    rest = dict(options)
    return {**take_dtype(rest), **rest}


def _policy(name: str, asked: Any, more: tuple[str, ...]) -> Any:
    if isinstance(asked, keras.DTypePolicy):
        return asked
    if isinstance(asked, Mapping):  # as a saved model has it
        return keras.dtype_policies.deserialize(asked)
    known = asked if isinstance(asked, str) else getattr(asked, "name", None) or getattr(asked, "__name__", str(asked))
    word = str(known).removeprefix("torch.")
    if word not in POLICIES:
        raise ArgumentError(
            f"{name} {printable(repr(asked), 60)} does not exist; choose {' or '.join(map(repr, (*POLICIES, *more)))}"
        )
    return word


def _saved_in(reader: TensorReader) -> str:
    said = next((reader.config[field] for field in ("dtype", "torch_dtype") if reader.config.get(field)), None)
    if isinstance(said, str) and said.removeprefix("torch.") in FLOATS:
        return said.removeprefix("torch.")
    return next((dtype for dtype in reader.dtypes.values() if dtype in FLOATS), "float32")

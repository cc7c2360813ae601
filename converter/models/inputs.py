"""The inputs that a model accepts (arrays, tensors of any framework, nested lists, one dictionary) and refuses, by field.

Ids become int32 here, before Keras casts floating inputs to its compute dtype (which would round ids in bfloat16).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from converter.errors import ModelError, listed
from converter.models.parts import as_dtype

Tensor = Any


def unpacked(first: Any, given: Mapping[str, Any], fields: tuple[str, ...]) -> dict[str, Any]:
    """Merges a dictionary given as the first argument with what was given by name.

    Args:
        first: the first argument of a call: a dictionary of inputs, a list of them in order, an input, or None.
        given: the further arguments by name.
        fields: all names there are; the first names the first argument.

    Returns:
        Arguments by name, without those that are None.

    Raises:
        ModelError: the dictionary has a key that is no field, or a field is given twice.
    """
    named = {name: value for name, value in given.items() if value is not None}
    if _is_list_of_inputs(first, fields):
        first = dict(zip(fields, first, strict=False))
    if not isinstance(first, Mapping):
        return named if first is None else {fields[0]: first, **named}
    inside = {name: value for name, value in first.items() if value is not None}
    unknown = [str(name) for name in inside if name not in fields]
    if unknown:
        raise ModelError(
            f"The dictionary of inputs has {listed(unknown)}; expected keys among {listed(fields, 20)}. "
            "Remove what is not an input, or rename it."
        )
    twice = sorted(inside.keys() & named.keys())
    if twice:
        raise ModelError(f"{listed(twice)} given both in the dictionary and by name. Give each input once.")
    return {**inside, **named}


def _is_list_of_inputs(first: Any, fields: tuple[str, ...]) -> bool:
    """Whether a list holds whole inputs in the order of the fields, and not the rows or images of one."""
    if not isinstance(first, (list, tuple)) or not first:
        return False
    ranks = {"input_ids": 2, "pixel_values": 3 if "spatial_shapes" in fields else 4}
    return len(getattr(first[0], "shape", ())) == ranks.get(fields[0])


def as_ids(value: Any, field: str) -> Tensor:
    """Turns an input into ``(batch, length)`` int32 ids.

    Args:
        value: integers as an array, tensor or nested list; floats are taken if they are whole numbers.
        field: name of the input, for messages.

    Returns:
        A tensor of the backend; one that already is one is returned unchanged.

    Raises:
        ModelError: not two axes, or numbers that are not whole or have more than 32 bits.
    """
    if not _is_native(value):
        value = _as_array(value, field)
        if value.dtype.kind == "f" and not np.array_equal(value, np.round(value)):
            raise ModelError(f"{field} has numbers that are not whole; expected token-like ids. Pass integers.")
        if value.dtype.kind not in "fiub":
            raise ModelError(f"{field} holds {value.dtype}; expected integers. Tokenize the texts first.")
    if len(value.shape) != 2:
        raise ModelError(
            f"{field} has shape {_shape(value)}; expected (batch, length). For one text, pass it in a list of one."
        )
    _check_width(value, field)
    return as_dtype(value.astype(np.int32) if isinstance(value, np.ndarray) else value, "int32")


def _check_width(value: Any, field: str) -> None:
    """Refuses numbers that would become others in 32 bits, if the values are known."""
    ids = None if getattr(value.dtype, "name", value.dtype) == "int32" else seen(value)
    if ids is None or ids.dtype.kind not in "iuf":
        return
    least, greatest = -(2**31), 2**31 - 1
    outside = (ids < least) | (ids > greatest)
    if outside.any():
        row, column = (int(i) for i in np.argwhere(outside)[0])
        raise ModelError(
            f"{field}[{row}, {column}] is {ids[row, column]}; expected a number of 32 bits, {least} to {greatest}. "
            "Use the tokenizer that belongs to this text tower."
        )


def as_pixels(value: Any, channels: int, dtype: str) -> Tensor:
    """Turns an input into ``(batch, channels, height, width)`` pixel values.

    Args:
        value: numbers as an array, tensor or nested list, channels first.
        channels: how many the config says.
        dtype: floating type the model computes in.

    Returns:
        A tensor of the backend.

    Raises:
        ModelError: not four axes, or a wrong number of channels.
    """
    value = _as_numbers(value, dtype)
    shape = tuple(value.shape)
    if len(shape) != 4:
        raise ModelError(
            f"pixel_values has shape {_shape(value)}; expected (batch, {channels}, height, width). "
            "For one image, pass it in a list of one."
        )
    if shape[1] is not None and shape[1] != channels:
        last = " It looks channels-last: transpose to (batch, channels, height, width)." if shape[3] == channels else ""
        raise ModelError(
            f"pixel_values has shape {_shape(value)}; axis 1 must be num_channels = {channels}.{last}"
            f"{'' if last else ' Give images with as many channels as the config has.'}"
        )
    return as_dtype(value, dtype)


def as_patches(value: Any, size: int, dtype: str) -> Tensor:
    """Turns an input into ``(batch, patches, size)`` pixel values: images cut into patches.

    Args:
        value: numbers as an array, tensor or nested list.
        size: how many numbers a patch has, as the config says.
        dtype: floating type the model computes in.

    Returns:
        A tensor of the backend.

    Raises:
        ModelError: not three axes, or patches of another size.
    """
    value = _as_numbers(value, dtype)
    if len(value.shape) != 3 or value.shape[2] not in (None, size):
        raise ModelError(
            f"pixel_values has shape {_shape(value)}; expected (batch, patches, {size}), where a patch has "
            "num_channels * patch_size * patch_size numbers. Cut the images up with the Siglip2ImageProcessor of this model."
        )
    return as_dtype(value, dtype)


def _as_numbers(value: Any, dtype: str) -> Any:
    """Pixel values as a tensor of the backend, or as an array of the floating type."""
    if _is_native(value):
        return value
    value = _as_array(value, "pixel_values")
    if value.dtype.kind not in "fiub" and value.dtype.name != "bfloat16":
        raise ModelError(f"pixel_values holds {value.dtype}; expected numbers. Run the image processor first.")
    return value.astype(dtype if dtype != "bfloat16" else np.float32)


def seen(value: Any) -> np.ndarray[Any, Any] | None:
    """The values of a tensor if they are known; None while a graph is traced."""
    try:
        return np.asarray(value)
    except (TypeError, ValueError, NotImplementedError):
        return None


def check_range(value: Any, size: int, field: str, option: str) -> None:
    """Refuses ids outside ``[0, size)`` if the values are known.

    Raises:
        ModelError: names the field, the first offending position and the config option that sets the limit.
    """
    ids = seen(value)
    if ids is None or not ids.size or (ids.min() >= 0 and ids.max() < size):
        return
    row, column = (int(i) for i in np.argwhere((ids < 0) | (ids >= size))[0])
    raise ModelError(
        f"{field}[{row}, {column}] is {int(ids[row, column])}; expected 0 to {size - 1} ({option} = {size}). "
        "Use the tokenizer that belongs to this text tower."
    )


def _is_native(value: Any) -> bool:
    return bool(keras.backend.is_keras_tensor(value) or ops.is_tensor(value))


def _as_array(value: Any, field: str) -> np.ndarray[Any, Any]:
    try:
        array = np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)
    except (ValueError, TypeError) as error:
        raise ModelError(
            f"{field} cannot be read as an array ({error}). Pad the rows to one length, or pass an array."
        ) from error
    if array.dtype.kind == "O":
        raise ModelError(
            f"{field} cannot be read as an array of numbers. Pad the rows to one length, or pass an array."
        )
    return array


def _shape(value: Any) -> str:
    return (
        "("
        + ", ".join("any" if n is None else str(n) for n in value.shape)
        + ("," if len(value.shape) == 1 else "")
        + ")"
    )

"""The file of weights beside the ONNX graphs: safetensors, in TensorFlow's names and layouts. Decides how a weight is narrowed.

A weight is read, narrowed and written one at a time. The same arithmetic checks it later: float16 is NumPy's cast, and
int8 is symmetric, with one scale for each output of a matrix or each row of a table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from converter.checkpoints.safetensors import write_header
from converter.errors import ModelError, printable
from converter.names.frameworks import KERAS
from converter.specs import Shape, StoredTensor

Array = np.ndarray[Any, Any]

SUFFIXES: Mapping[str, str] = {"float32": "", "float16": "_fp16", "int8": "_int8"}
QUANTISED, SCALE = "_int8", "_scale"
_LARGEST = 127


@dataclass(frozen=True, slots=True)
class Weight:
    """A variable as the graphs use it.

    Attributes:
        name: in the file, without ``:0``.
        of: the variable's checkpoint name.
        dtype: in the file.
        shape: the same for the shape.
        read: returns it, in any floating type or as it is to be written.
        stored_as: the change to it, for ``export.json``; nothing if it is the checkpoint's, bit for bit.
    """

    name: str
    of: str
    dtype: str
    shape: Shape
    read: Callable[[], Array]
    stored_as: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def halved(cls, name: str, shape: Shape, read: Callable[[], Array]) -> Weight:
        """A weight in float16."""
        return cls(name, name, "float16", shape, lambda: half(name, read()), {"stored_as": "float16"})

    @classmethod
    def quantised(cls, name: str, shape: Shape, read: Callable[[], Array], axis: int) -> list[Weight]:
        """A matrix in int8, and its scales.

        Args:
            name: of the variable.
            shape: ``(inputs, outputs)`` of a matrix, ``(rows, width)`` of a table.
            read: gives it in float32.
            axis: that has a scale for each place: 1 of a matrix, 0 of a table.
        """
        scales = (shape[1],) if axis == 1 else (shape[0], 1)
        said = {"stored_as": f"int8 with a scale for each place of axis {axis}"}
        return [
            cls(name + QUANTISED, name, "int8", shape, lambda: in_int8(read(), axis)[0], said),
            cls(name + SCALE, name, "float32", scales, lambda: in_int8(read(), axis)[1].reshape(scales), said),
        ]


def key_of(name: str) -> str:
    """The name of a weight in a TensorFlow safetensors file, and in the graphs."""
    return f"{name}:0"


def weights_name(precision: str) -> str:
    """The file of all weights of one precision."""
    return f"weights{SUFFIXES[precision]}.safetensors"


def half(name: str, values: Array) -> Array:
    """Values in float16.

    Raises:
        ModelError: one is too large for that.
    """
    with np.errstate(over="ignore"):
        made: Array = values.astype(np.float16)
    if not np.isfinite(made).all():
        raise ModelError(
            f"{printable(name)} holds {np.abs(values).max():.3g}; the largest float16 is 65504. Export float32 or int8."
        )
    return made


def in_int8(values: Array, axis: int) -> tuple[Array, Array]:
    """A matrix as whole numbers of -127 to 127, and what to multiply them by.

    Args:
        values: two axes.
        axis: that has a scale for each place.

    Returns:
        int8 of the same shape, and float32 scales, one axis. A row of zeros has the scale 1.
    """
    values = values.astype(np.float32, copy=False)
    most = np.abs(values).max(axis=1 - axis, initial=0.0)
    scales: Array = np.where(most > 0, most / np.float32(_LARGEST), np.float32(1)).astype(np.float32)
    spread = scales[None, :] if axis == 1 else scales[:, None]
    return np.clip(np.rint(values / spread), -_LARGEST, _LARGEST).astype(np.int8), scales


def write_weights(path: Path, weights: Iterable[Weight]) -> dict[str, StoredTensor]:
    """Writes a file of weights, one at a time.

    Returns:
        The place of each, by name in the graphs.
    """
    held = {weight.name: weight for weight in weights}
    places = write_header(path, [(w.name, w.dtype, w.shape) for w in held.values()], KERAS)
    with path.open("r+b") as file:
        for name, tensor in places.items():
            values = np.ascontiguousarray(held[name].read())
            if tensor.extent is None or (values.dtype.name, values.shape) != (tensor.dtype, tensor.shape):
                raise ValueError(f"{name}: {values.dtype} {values.shape}, expected {tensor.dtype} {tensor.shape}")
            file.seek(tensor.extent.offset)
            file.write(values.data)
    return {key_of(name): tensor for name, tensor in places.items()}

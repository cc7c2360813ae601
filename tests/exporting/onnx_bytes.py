"""ONNX files made of bytes, however wrong, without a package of ONNX.

A message is a list of pairs: the number of a field, and its value: a number, bytes, or another such list.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from converter.checkpoints.safetensors import write_header
from converter.specs import StoredTensor

Fields = Sequence[tuple[int, Any]]
TYPES = {"float32": 1, "int8": 3, "float16": 10}
WEIGHTS = "weights.safetensors"
Array = np.ndarray[Any, Any]


def varint(value: int) -> bytes:
    made = bytearray()
    while True:
        value, low = value >> 7, value & 0x7F
        made.append(low | (0x80 if value else 0))
        if not value:
            return bytes(made)


def message(fields: Fields) -> bytes:
    made = b""
    for number, value in fields:
        if isinstance(value, int):
            made += varint(number << 3) + varint(value)
            continue
        data = value.encode() if isinstance(value, str) else value if isinstance(value, bytes) else message(value)
        made += varint(number << 3 | 2) + varint(len(data)) + data
    return made


def external(location: str, offset: object, length: object) -> Fields:
    entries = {"location": location, "offset": str(offset), "length": str(length)}
    return [(14, 1), *((13, [(1, key), (2, value)]) for key, value in entries.items())]


def tensor(name: str, dtype: int, shape: Sequence[int], place: Fields) -> Fields:
    return [*((1, size) for size in shape), (2, dtype), (8, name), *place]


def value(name: str, dtype: int, axes: Sequence[int | str]) -> Fields:
    dims = [(1, [(1, axis) if isinstance(axis, int) else (2, axis)]) for axis in axes]
    return [(1, name), (2, [(1, [(1, dtype), (2, dims)])])]


def node(kind: str, *attributes: Fields, domain: str = "") -> Fields:
    return [(1, "a"), (2, "b"), (4, kind), (7, domain), *((5, attribute) for attribute in attributes)]


def model(initializers: Sequence[Fields], *graph: tuple[int, Any]) -> bytes:
    """A model with a node, an input and an output, and what is given beside them."""
    held = [
        (1, node("MatMul")),
        *((5, one) for one in initializers),
        (11, value("a", 1, ("images", 3))),
        (12, value("b", 1, ("images", 2))),
        *graph,
    ]
    return message([(1, 9), (8, [(2, 18)]), (7, held)])


def of_weights(folder: Path, arrays: Mapping[str, Array], weights: str = WEIGHTS, name: str = "model.onnx") -> Path:
    """An ONNX file, and the safetensors file of its weights beside it; both names as the export has them."""
    places = write_header(folder / weights, [(n, a.dtype.name, a.shape) for n, a in arrays.items()], "tf")
    with (folder / weights).open("r+b") as file:
        for key, place in places.items():
            file.seek(offset_of(place))
            file.write(np.ascontiguousarray(arrays[key]).tobytes())
    initializers = [
        tensor(f"{key}:0", TYPES[p.dtype], p.shape, external(weights, offset_of(p), arrays[key].nbytes))
        for key, p in places.items()
    ]
    (folder / name).write_bytes(model(initializers))
    return folder / name


def offset_of(place: StoredTensor) -> int:
    assert place.extent is not None
    return place.extent.offset

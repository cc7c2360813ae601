"""An ONNX file as bytes: its inputs, outputs, operators, and the places of its weights. Trusts none of it.

It imports nothing of ONNX, so ``verify`` can compare weights without an ONNX package. No C++ parser reads a stranger's
file. Weights inside the .onnx are not read, like other constants: ours are beside it.
Source: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
"""

from __future__ import annotations

import collections
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from converter.checkpoints.wire import UnsoundMessage, fields, message, number, text, varint
from converter.errors import CorruptCheckpoint, printable
from converter.folder.files import inside
from converter.specs import MAX_AXES, MAX_NAME_CHARACTERS, Extent, StoredTensor, is_file_name
from converter.tensors.casts import DTYPES

# Of 24 layers each side without weights: 1 MB. Tables of relative positions are inside.
MAX_ONNX_BYTES = 32 * 2**20
MAX_INITIALIZERS = 200_000
# Bodies of branches and loops within one another; ours have none.
MAX_BODIES = 8
_EXTERNAL = 1
_INITIALIZER, _INPUT, _OUTPUT, _SPARSE = 5, 11, 12, 15  # of GraphProto
_CONSTANTS, _BODIES = (5, 10), (6, 11)  # of AttributeProto: one, or several
# Source: TensorProto.DataType.
_TO_DTYPE = {
    1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64", 9: "bool", 10: "float16",
    11: "float64", 12: "uint32", 13: "uint64", 16: "bfloat16",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class OnnxValue:
    """An input or output: its dtype, and for each axis a size or a name."""

    name: str
    dtype: str
    axes: tuple[int | str, ...]


@dataclass(frozen=True, slots=True)
class OnnxFile:
    """The content of an ONNX file.

    Attributes:
        inputs: in order.
        outputs: the same for outputs.
        operators: how often each is used, by name, with its domain in front if that is not ONNX's.
        opsets: version by domain, ``""`` for ONNX's own.
        weights: initializers in other files, by name.
        constants: names of those inside.
    """

    inputs: tuple[OnnxValue, ...]
    outputs: tuple[OnnxValue, ...]
    operators: Mapping[str, int]
    opsets: Mapping[str, int]
    weights: Mapping[str, StoredTensor]
    constants: tuple[str, ...]


def read_onnx(path: Path) -> OnnxFile:
    """Reads an ONNX file, and checks the places of its weights.

    Raises:
        CorruptCheckpoint: it is too large or not an ONNX file, or a weight is outside the folder or past the end of a
            file.
    """
    with path.open("rb") as file:
        data = file.read(MAX_ONNX_BYTES + 1)
    if len(data) > MAX_ONNX_BYTES:
        raise _corrupt(path, f"has more than {MAX_ONNX_BYTES:,} bytes without its weights")
    try:
        return _model(path, data)
    except UnsoundMessage as error:
        raise _corrupt(path, str(error)) from None


def _model(path: Path, data: bytes) -> OnnxFile:
    opsets: dict[str, int] = {}
    graph: bytes | None = None
    for place, value in fields(data):
        if place == 7:
            graph = message(value)
        elif place == 8:
            entry = dict(fields(message(value)))
            opsets[_name(entry.get(1, b""))] = number(entry.get(2, 0))
    if graph is None:
        raise UnsoundMessage("has no graph")
    operators: collections.Counter[str] = collections.Counter()
    values: dict[int, list[OnnxValue]] = {_INPUT: [], _OUTPUT: []}
    constants: list[str] = []
    weights: dict[str, StoredTensor] = {}
    for place, value in fields(graph):
        if place == 1:
            _count(message(value), operators, 0)
        elif place == _SPARSE:
            raise UnsoundMessage("has a sparse constant")
        elif place == _INITIALIZER:
            tensor = _initializer(path, message(value))
            if tensor.name in weights or len(weights) + len(constants) >= MAX_INITIALIZERS:
                raise UnsoundMessage(f"has {printable(tensor.name)} twice, or too many initializers")
            if tensor.extent is None:
                constants.append(tensor.name)
            else:
                weights[tensor.name] = tensor
        elif place in values:
            values[place].append(_value(message(value)))
    return OnnxFile(tuple(values[_INPUT]), tuple(values[_OUTPUT]), dict(operators), opsets, weights, tuple(constants))


def _count(node: bytes, operators: collections.Counter[str], depth: int) -> None:
    """Counts a node and those of its bodies; a constant in either is inside."""
    if depth > MAX_BODIES:
        raise UnsoundMessage(f"has bodies in bodies, more than {MAX_BODIES} deep")
    kind, domain = "", ""
    for place, value in fields(node):
        if place == 4:
            kind = _name(value)
        elif place == 7:
            domain = _name(value)
        elif place == 5:
            for own, held in fields(message(value)):
                if own in _BODIES:
                    _count_all(message(held), operators, depth + 1)
                elif own in _CONSTANTS:
                    _check_inside(message(held))
    operators[f"{domain}.{kind}" if domain not in ("", "ai.onnx") else kind] += 1


def _count_all(body: bytes, operators: collections.Counter[str], depth: int) -> None:
    for place, value in fields(body):
        if place == 1:
            _count(message(value), operators, depth)
        elif place == _INITIALIZER:
            _check_inside(message(value))
        elif place == _SPARSE:
            raise UnsoundMessage("has a sparse constant")


def _check_inside(tensor: bytes) -> None:
    """Refuses what would be read from another file without being an initializer of the graph."""
    if any(place == 14 and value == _EXTERNAL for place, value in fields(tensor)):
        raise UnsoundMessage("has a constant in another file")


def _initializer(path: Path, data: bytes) -> StoredTensor:
    name, dtype, location = "", 0, 0
    shape: list[int] = []
    external: dict[str, str] = {}
    for place, value in fields(data):
        if place == 1:
            shape += [value] if isinstance(value, int) else list(_packed(value))
        elif place == 2:
            dtype = number(value)
        elif place == 8:
            name = _name(value)
        elif place == 13:
            entry = dict(fields(message(value)))
            external[_name(entry.get(1, b""))] = _name(entry.get(2, b""))
        elif place == 14:
            location = number(value)
        if len(shape) > MAX_AXES:
            raise UnsoundMessage("has a tensor with too many axes")
    if location != _EXTERNAL:
        return StoredTensor(name, _TO_DTYPE.get(dtype, ""), tuple(shape))
    if dtype not in _TO_DTYPE:
        raise UnsoundMessage(f"has {printable(name)} of data type {dtype}")
    nbytes = math.prod(shape) * DTYPES[_TO_DTYPE[dtype]]
    return StoredTensor(name, _TO_DTYPE[dtype], tuple(shape), _extent(path, name, external, nbytes))


def _extent(path: Path, name: str, external: Mapping[str, str], nbytes: int) -> Extent:
    """The place of a weight: in a file of the same folder, within its bounds, with as many bytes as its shape needs."""
    location, offset, length = external.get("location"), external.get("offset", "0"), external.get("length", "")
    if not is_file_name(location) or not str(location).isprintable():
        raise UnsoundMessage(f"has {printable(name)} in {printable(location or 'no file')}, which is no file beside it")
    if not _is_size(offset) or not (_is_size(length) or length == ""):
        raise UnsoundMessage(f"has {printable(name)} at {printable(offset)}, {printable(length)} bytes long")
    if length not in ("", str(nbytes)):
        raise UnsoundMessage(f"has {printable(name)} of {int(length):,} bytes; its shape asks for {nbytes:,}")
    beside = inside(path.with_name(str(location)), path.parent)
    if not beside.is_file():
        raise CorruptCheckpoint(f"{beside}: not found; {path.name} has its weights there. Copy the whole folder.")
    if int(offset) + nbytes > beside.stat().st_size:
        raise UnsoundMessage(f"has {printable(name)} past the end of {printable(str(location))}")
    return Extent(beside, int(offset), nbytes)


def _value(data: bytes) -> OnnxValue:
    name, dtype = "", ""
    axes: list[int | str] = []
    for place, value in fields(data):
        if place == 1:
            name = _name(value)
        elif place == 2:
            tensor = dict(fields(message(dict(fields(message(value))).get(1, b""))))
            dtype = _TO_DTYPE.get(number(tensor.get(1, 0)), "other")
            for own, dim in fields(message(tensor.get(2, b""))):
                if own == 1:
                    held = dict(fields(message(dim)))
                    axes.append(number(held[1]) if 1 in held else _name(held.get(2, b"")))
    if len(axes) > MAX_AXES:
        raise UnsoundMessage(f"has {printable(name)} with too many axes")
    return OnnxValue(name, dtype, tuple(axes))


def _packed(value: bytes) -> Iterator[int]:
    """Whole numbers one behind the other."""
    position = 0
    while position < len(value):
        found, position = varint(value, position)
        yield found


def _is_size(value: str) -> bool:
    return value.isascii() and value.isdigit() and len(value) <= 18


def _name(value: int | bytes) -> str:
    found = text(value)
    if len(found) > MAX_NAME_CHARACTERS:
        raise UnsoundMessage(f"has a name of {len(found):,} characters")
    return found


def _corrupt(path: Path, what: str) -> CorruptCheckpoint:
    return CorruptCheckpoint(f"{path}: not a valid ONNX file: {what}; export or download it again")

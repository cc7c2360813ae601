"""What a state_dict's pickle may hold, and how to write one: tensors as views into storages, by name.

Source: torch/serialization.py (persistent ids), torch/_utils.py (_rebuild_tensor_v2, _rebuild_tensor_v3).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converter.checkpoints.pickle_machine import Function, Machine, UnknownName, UnsoundPickle
from converter.errors import CorruptCheckpoint, UnsupportedContainer, printable
from converter.specs import MAX_AXES, Shape
from converter.tensors.casts import DTYPES

# The unsigned integers that are not here came later: their storages are bytes, and the tensor says the dtype.
_STORAGES = {
    "float64": "DoubleStorage", "float32": "FloatStorage", "float16": "HalfStorage", "bfloat16": "BFloat16Storage",
    "int64": "LongStorage", "int32": "IntStorage", "int16": "ShortStorage", "int8": "CharStorage",
    "uint8": "ByteStorage", "bool": "BoolStorage",
}  # fmt: skip
_BATCH = 1000  # items set at once, as Python's pickle does


@dataclass(frozen=True, slots=True)
class StorageType:
    """The content of a storage; None means bytes, whose dtype the tensor gives."""

    dtype: str | None


@dataclass(frozen=True, slots=True)
class DType:
    """A torch dtype."""

    name: str


@dataclass(frozen=True, slots=True)
class Storage:
    """A storage: ``nbytes`` bytes in the archive's entry ``data/<key>``."""

    dtype: str | None
    key: str
    nbytes: int


@dataclass(frozen=True, slots=True)
class View:
    """A tensor as its pickle describes it; offset and stride are in elements, and not checked against the storage."""

    storage: Storage
    dtype: str
    offset: int
    shape: Shape
    stride: Shape


def read_pickle(path: Path, text: bytes) -> Any:
    """Builds what a pickle describes, out of dicts, lists, tuples, numbers, text, None and ``View``.

    Args:
        path: for messages.
        text: the pickle.

    Raises:
        UnsupportedContainer: it asks for something that tensors do not need; nothing was run.
        CorruptCheckpoint: it is invalid.
    """
    machine = Machine(text, _NAMES, _storage)
    try:
        return machine.run()
    except UnknownName as error:
        raise UnsupportedContainer(
            f"{path}: its pickle asks for {printable(str(error))}, which a state_dict of plain tensors does not need. "
            f"None of it was run. {_way_out(str(error))}"
        ) from None
    except UnsoundPickle as error:
        raise CorruptCheckpoint(
            f"{path}: its pickle is not valid at byte {machine.position:,}: {error}; download or save it again"
        ) from None


def write_pickle(tensors: Iterable[tuple[str, str, Shape]]) -> bytes:
    """Writes an OrderedDict of contiguous tensors; tensor number n has its own storage ``data/<n>``.

    Args:
        tensors: name, dtype and shape of each.

    Returns:
        A pickle of protocol 2, without memo.
    """
    parts = [b"\x80\x02", _ORDERED_DICT]
    for number, (name, dtype, shape) in enumerate(tensors):
        if number % _BATCH == 0:
            parts.append(b"u(" if number else b"(")
        parts += [_text(name), _tensor(str(number), dtype, shape)]
    parts.append(b"u." if len(parts) > 2 else b".")
    return b"".join(parts)


def _way_out(name: str) -> str:
    """The next step for a pickle that asks for such a name."""
    if name.startswith(("torch.float8", "torch.float4")):
        return "Convert its tensors with .to(torch.float32), multiply them by their scales if any, and save them again"
    if name.startswith(("torch.qint", "torch.quint", "torch._utils._rebuild_qtensor", "torch.per_")):
        return "Its weights are quantised; save the model from before that, or dequantise them"
    if name.startswith(("argparse.", "numpy.", "omegaconf.", "pathlib.", "easydict.")):
        return "Load it in its own environment and save the state_dict alone: torch.save(model.state_dict(), FILE)"
    return "Load the model in its own environment and write it with save_pretrained"


def _storage(persistent_id: Any) -> Storage:
    """Of ``("storage", type, key, device, elements)``."""
    match persistent_id:
        case ("storage", StorageType(dtype=dtype), str(key), str(), int(count)) if count >= 0:
            return Storage(dtype, key, count * (DTYPES[dtype] if dtype else 1))
    raise UnsoundPickle("a persistent id does not name a storage")


def _ordered_dict(arguments: tuple[Any, ...]) -> dict[Any, Any]:
    if arguments:
        raise UnsoundPickle("an OrderedDict is made with arguments")
    return {}


def _size(arguments: tuple[Any, ...]) -> Shape:
    match arguments:
        case (shape,):
            return _sizes(shape)
    raise UnsoundPickle("a torch.Size is not made of one tuple")


def _parameter(arguments: tuple[Any, ...]) -> View:
    """Of ``_rebuild_parameter(tensor, requires_grad, hooks)``, or with a state, which is dropped."""
    match arguments:
        case (View() as view, bool(), _) | (View() as view, bool(), _, _):
            return view
    raise UnsoundPickle("a parameter is not made of a tensor")


def _tensor_v2(arguments: tuple[Any, ...]) -> View:
    """Of ``(storage, offset, size, stride, requires_grad, hooks, metadata=None)``."""
    match arguments:
        case (Storage(dtype=str(dtype)) as storage, int(offset), shape, stride, bool(), _, *metadata):
            return _view(storage, dtype, offset, shape, stride, metadata)
    raise UnsoundPickle("a tensor is not made of storage, offset, size and stride")


def _tensor_v3(arguments: tuple[Any, ...]) -> View:
    """Of ``(storage, offset, size, stride, requires_grad, hooks, dtype, metadata=None)``; the storage holds bytes."""
    match arguments:
        case (Storage(dtype=None) as storage, int(offset), shape, stride, bool(), _, DType(name=dtype), *metadata):
            return _view(storage, dtype, offset, shape, stride, metadata)
    raise UnsoundPickle("a tensor is not made of storage, offset, size, stride and dtype")


def _view(storage: Storage, dtype: str, offset: int, shape: Any, stride: Any, metadata: list[Any]) -> View:
    if len(metadata) > 1 or any(metadata):
        raise UnknownName("a tensor with metadata (conjugated or negated when it is read)")
    if len(shape := _sizes(shape)) != len(stride := _sizes(stride)) or offset < 0:
        raise UnsoundPickle("a tensor's offset, sizes and strides do not fit each other")
    return View(storage, dtype, offset, shape, stride)


def _sizes(value: Any) -> Shape:
    if type(value) is not tuple or len(value) > MAX_AXES or not all(type(n) is int and 0 <= n < 2**48 for n in value):
        raise UnsoundPickle(f"sizes or strides are not up to {MAX_AXES} numbers from 0")
    return value


_NAMES: dict[str, Function | StorageType | DType] = {
    "collections.OrderedDict": Function(_ordered_dict),
    "torch.Size": Function(_size),
    "torch._utils._rebuild_parameter": Function(_parameter),
    "torch._utils._rebuild_parameter_with_state": Function(_parameter),
    "torch._utils._rebuild_tensor_v2": Function(_tensor_v2),
    "torch._utils._rebuild_tensor_v3": Function(_tensor_v3),
    "torch.storage.UntypedStorage": StorageType(None),
    **{f"torch.{name}": StorageType(dtype) for dtype, name in _STORAGES.items()},
    **{f"torch.{dtype}": DType(dtype) for dtype in DTYPES},
}

_ORDERED_DICT = b"ccollections\nOrderedDict\n)R"


def _tensor(key: str, dtype: str, shape: Shape) -> bytes:
    stride, step = [], 1
    for size in reversed(shape):
        stride.append(step)
        step *= max(size, 1)
    plain = dtype in _STORAGES
    kind = f"ctorch\n{_STORAGES[dtype]}\n" if plain else "ctorch.storage\nUntypedStorage\n"
    count = math.prod(shape) * (1 if plain else DTYPES[dtype])
    storage = b"(" + _text("storage") + kind.encode() + _text(key) + _text("cpu") + _integer(count) + b"tQ"
    view = storage + _integer(0) + _integers(shape) + _integers(tuple(reversed(stride))) + b"\x89" + _ORDERED_DICT
    if plain:
        return b"ctorch._utils\n_rebuild_tensor_v2\n(" + view + b"tR"
    return b"ctorch._utils\n_rebuild_tensor_v3\n(" + view + f"ctorch\n{dtype}\n".encode() + b"tR"


def _text(value: str) -> bytes:
    data = value.encode()
    return b"X" + len(data).to_bytes(4, "little") + data


def _integer(value: int) -> bytes:
    if value < 2**8:
        return b"K" + value.to_bytes(1, "little")
    if value < 2**31:
        return b"J" + value.to_bytes(4, "little")
    return b"\x8a\x08" + value.to_bytes(8, "little")


def _integers(values: Shape) -> bytes:
    return b"(" + b"".join(_integer(value) for value in values) + b"t"

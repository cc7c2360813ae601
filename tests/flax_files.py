"""Flax files made by hand, right and wrong: MessagePack as flax.serialization packs it, byte for byte."""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

import numpy as np

CHUNKED = "__msgpack_chunked_array__"


class Ext(NamedTuple):
    """An extension of a type."""

    kind: int
    data: bytes


class Raw(NamedTuple):
    """Bytes that stand in the file as they are."""

    data: bytes


class Pairs(NamedTuple):
    """A map as it is written, where a key may stand twice or be anything."""

    items: tuple[tuple[Any, Any], ...]


def pack(value: Any) -> bytes:
    """MessagePack of a value; NumPy arrays and scalars as flax has them."""
    match value:
        case Raw(data):
            return data
        case Ext(kind, data):
            fixed = {1: 0xD4, 2: 0xD5, 4: 0xD6, 8: 0xD7, 16: 0xD8}
            if len(data) in fixed:
                return bytes([fixed[len(data)]]) + struct.pack("b", kind) + data
            return _sized(len(data), (0xC7, 0xC8, 0xC9)) + struct.pack("b", kind) + data
        case Pairs(items):
            return _counted(len(items), 0x80, (0xDE, 0xDF)) + b"".join(pack(k) + pack(v) for k, v in items)
        case np.ndarray() | np.generic():
            return pack(Ext(1 if isinstance(value, np.ndarray) else 3, described(value)))
        case dict():
            return pack(Pairs(tuple(value.items())))
        case list() | tuple():
            return _counted(len(value), 0x90, (0xDC, 0xDD)) + b"".join(map(pack, value))
        case None | False | True:
            return {None: b"\xc0", False: b"\xc2", True: b"\xc3"}[value]
        case int():
            return _whole(value)
        case float():
            return b"\xcb" + struct.pack(">d", value)
        case str():
            data = value.encode("utf-8", "surrogatepass")
            head = bytes([0xA0 | len(data)]) if len(data) < 32 else _sized(len(data), (0xD9, 0xDA, 0xDB))
            return head + data
        case bytes():
            return _sized(len(value), (0xC4, 0xC5, 0xC6)) + value
    raise TypeError(type(value))


def described(value: Any, shape: Any = None, dtype: Any = None, data: Any = None) -> bytes:
    """What the extension of an array holds, some of it replaced."""
    array = np.asarray(value)
    return pack(
        [
            list(array.shape) if shape is None else shape,
            array.dtype.name if dtype is None else dtype,
            array.tobytes() if data is None else data,
        ]
    )


def chunked(array: np.ndarray[Any, Any], nbytes: int) -> dict[str, Any]:
    """An array in pieces of at most this many bytes."""
    step = max(1, nbytes // array.dtype.itemsize)
    flat = array.reshape(-1)
    pieces = [flat[start : start + step] for start in range(0, flat.size, step)]
    return {
        CHUNKED: True,
        "shape": {str(n): size for n, size in enumerate(array.shape)},
        "chunks": {str(n): piece for n, piece in enumerate(pieces)},
    }


def nest(flat: dict[str, Any]) -> dict[str, Any]:
    """A tree of names that are joined by slashes, in the order of the names."""
    tree: dict[str, Any] = {}
    for name in sorted(flat):
        *levels, leaf = name.split("/")
        inner = tree
        for level in levels:
            inner = inner.setdefault(level, {})
        inner[leaf] = flat[name]
    return tree


def _whole(value: int) -> bytes:
    if value < 0:
        return struct.pack("b", value) if value >= -32 else b"\xd3" + struct.pack(">q", value)
    if value < 128:
        return bytes([value])
    width, first = next(pair for pair in ((1, 0xCC), (2, 0xCD), (4, 0xCE), (8, 0xCF)) if value < 1 << 8 * pair[0])
    return bytes([first]) + value.to_bytes(width, "big")


def _sized(number: int, firsts: tuple[int, int, int]) -> bytes:
    width, first = next(pair for pair in zip((1, 2, 4), firsts, strict=True) if number < 1 << 8 * pair[0])
    return bytes([first]) + number.to_bytes(width, "big")


def _counted(number: int, fixed: int, firsts: tuple[int, int]) -> bytes:
    if number < 16:
        return bytes([fixed | number])
    width, first = next(pair for pair in zip((2, 4), firsts, strict=True) if number < 1 << 8 * pair[0])
    return bytes([first]) + number.to_bytes(width, "big")

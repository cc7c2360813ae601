"""TensorFlow checkpoints written without TensorFlow, sound or not: a sorted table, data, and the graph that names variables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from converter.tensors.crc32c import crc32c, masked

Array = np.ndarray[Any, Any]
ROOT = "tf_vision_text_dual_encoder_model"
BEHIND = "/.ATTRIBUTES/VARIABLE_VALUE"
DTYPES = {"float32": 1, "float64": 2, "int32": 3, "uint8": 4, "int64": 9, "bfloat16": 14, "float16": 19}
MAGIC = 0xDB4775248B80FB57
Node = tuple[list[tuple[str, int]], list[tuple[str, str]]]


def varint(value: int) -> bytes:
    """A number of 7 bits a byte."""
    held = bytearray()
    while value >= 0x80:
        held.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*held, value])


def numbered(place: int, value: int) -> bytes:
    """A field that holds a number."""
    return varint(place << 3) + varint(value)


def wrapped(place: int, value: bytes) -> bytes:
    """A field that holds text or a message."""
    return varint(place << 3 | 2) + varint(len(value)) + value


def entry(dtype: int, shape: Iterable[int], shard: int, offset: int, nbytes: int, crc: int, more: bytes = b"") -> bytes:
    """What an index says of one tensor."""
    sizes = b"".join(wrapped(2, numbered(1, size)) for size in shape)
    place = numbered(3, shard) + numbered(4, offset) + numbered(5, nbytes)
    return numbered(1, dtype) + wrapped(2, sizes) + place + varint(6 << 3 | 5) + crc.to_bytes(4, "little") + more


def header(shards: int = 1, endianness: int = 0) -> bytes:
    """What stands in the index below the empty key."""
    return numbered(1, shards) + (numbered(2, endianness) if endianness else b"") + wrapped(3, numbered(1, 1))


def block(items: Iterable[tuple[bytes, bytes]], kind: int = 0) -> bytes:
    """A block, its kind of compression and its sum."""
    held, last = bytearray(), b""
    for key, value in items:
        shared = next(
            (at for at, (a, b) in enumerate(zip(last, key, strict=False)) if a != b), min(len(last), len(key))
        )
        held += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        last = key
    return closed(bytes(held) + bytes(4) + (1).to_bytes(4, "little"), kind)


def closed(contents: bytes, kind: int = 0) -> bytes:
    """What is in a block, and what stands behind it."""
    whole = contents + bytes([kind])
    return whole + masked(crc32c(whole)).to_bytes(4, "little")


def table(items: Iterable[tuple[bytes, bytes]], in_a_block: int = 20, kind: int = 0) -> bytes:
    """A sorted table as TensorFlow writes it, in blocks with this many entries."""
    held = list(items)
    parts = [held[start : start + in_a_block] for start in range(0, len(held), in_a_block)]
    return table_of_blocks([(part[-1][0], block(part, kind)) for part in parts])


def table_of_blocks(blocks: Iterable[tuple[bytes, bytes]]) -> bytes:
    """A table of blocks as they are, each with the last key in it."""
    data, places = b"", []
    for last, held in blocks:
        places.append((last + b"\0", varint(len(data)) + varint(len(held) - 5)))
        data += held
    return ended(data, places)


def ended(data: bytes, places: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Blocks, followed by those that say where they lie, and by what says where these do."""
    meta, index = block([]), block(places)
    at = len(data)
    footer = varint(at) + varint(len(meta) - 5) + varint(at + len(meta)) + varint(len(index) - 5)
    return data + meta + index + footer.ljust(40, b"\0") + MAGIC.to_bytes(8, "little")


def graph_of(nodes: Iterable[Node]) -> bytes:
    """An object graph: of every object, the objects that it holds by name and number, and full name and key of its value."""
    held = b""
    for children, values in nodes:
        node = b"".join(wrapped(1, numbered(1, place) + wrapped(2, name.encode())) for name, place in children)
        for full, key in values:
            node += wrapped(2, wrapped(1, b"VARIABLE_VALUE") + wrapped(2, full.encode()) + wrapped(3, key.encode()))
        held += wrapped(1, node)
    return held


def plain_graph(names: Mapping[str, str]) -> bytes:
    """The graph of a model that holds its variables itself, each with its full name, by key."""
    nodes: list[Node] = [([(key, place) for place, key in enumerate(names, 1)], [])]
    return graph_of([*nodes, *(([], [(full, key)]) for key, full in names.items())])


def text_entry(value: bytes, offset: int) -> tuple[bytes, bytes]:
    """A text as it lies in the data, and what the index says of it."""
    length = len(value).to_bytes(4, "little")
    of_length = masked(crc32c(length)).to_bytes(4, "little")
    crc = masked(crc32c(value, crc32c(length + of_length)))
    data = varint(len(value)) + of_length + value
    return data, entry(7, (), 0, offset, len(data), crc)


def laid_out(tensors: Mapping[str, Array], graph: bytes | None) -> tuple[dict[bytes, bytes], bytes]:
    """The index of tensors by key and of a graph, as a dict, and the data."""
    items, data = {b"": header()}, b""
    for key, array in sorted(tensors.items()):
        held = np.ascontiguousarray(array).tobytes()
        items[key.encode()] = entry(
            DTYPES[str(array.dtype)], array.shape, 0, len(data), len(held), masked(crc32c(held))
        )
        data += held
    if graph is not None:
        text, said = text_entry(graph, len(data))
        items[b"_CHECKPOINTABLE_OBJECT_GRAPH"] = said
        data += text
    return dict(sorted(items.items())), data


def write_bundle(prefix: Path, weights: Mapping[str, Array], root: str = ROOT, **more: Array) -> Path:
    """Writes a checkpoint of weights by their names below the root scope; gives its index.

    Args:
        prefix: of both files.
        weights: by name, as ``tf_model.h5`` has it.
        root: the root scope.
        **more: what else hangs on the model, by key.
    """
    names = {f"v/{place}{BEHIND}": f"{root}/{name}" for place, name in enumerate(weights)}
    tensors = dict(zip(names, weights.values(), strict=True)) | {f"{key}{BEHIND}": array for key, array in more.items()}
    graph = plain_graph(names | {f"{key}{BEHIND}": key for key in more})
    items, data = laid_out(tensors, graph)
    return write_files(prefix, items, data)


def write_files(prefix: Path, items: Mapping[bytes, bytes], data: bytes) -> Path:
    """Writes the index of a checkpoint, and its data."""
    index = prefix.with_name(f"{prefix.name}.index")
    index.write_bytes(table(items.items()))
    prefix.with_name(f"{prefix.name}.data-00000-of-00001").write_bytes(data)
    return index

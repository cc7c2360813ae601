"""Flax's container, ``flax_model.msgpack``: finds every tensor's bytes, and lays out new files.

Nested maps with texts as keys. A leaf is an extension of type 1 (3 for a NumPy scalar) that holds a list: shape, dtype
and bytes in C order. An array of more than 2^30 bytes is a map: its shape, and one-dimensional pieces of it, by number.
Source: flax 0.12.8, flax/serialization.py.
"""

from __future__ import annotations

import codecs
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from converter.checkpoints import msgpack
from converter.checkpoints.msgpack import Malformed, Reader
from converter.errors import CorruptCheckpoint, UnsupportedContainer, listed, printable
from converter.specs import MAX_AXES, MAX_NAME_CHARACTERS, Checkpoint, Extent, Shape, StoredTensor
from converter.tensors.casts import DTYPES

CONTAINER = "Flax msgpack"
SEPARATOR = "/"
# Levels of a tree: a BEiT tower in the state of a training run has some 15.
MAX_LEVELS = 50
# Ten for each of the 2,000 tensors of real models, levels and what an optimizer keeps of them, and room.
MAX_ENTRIES = 100_000
# Of all names, their levels joined.
MAX_NAMES_BYTES = 32 * 2**20
# From how many bytes on flax writes an array in pieces.
CHUNK_BYTES = 2**30
_ARRAY, _COMPLEX, _SCALAR = 1, 2, 3
_PIECE_BYTES = 2**16  # of a text that is read and thrown away
_CHUNKED = "__msgpack_chunked_array__"
_PARAMS = "params"
_NO_TENSOR = "no tensor, but {}"


@dataclass(frozen=True, slots=True)
class _Other:
    """A description of a leaf that is not a tensor."""

    what: str


_Tree = dict[str, "_Node"]
_Node = _Tree | StoredTensor | _Other


def read_header(path: Path) -> Checkpoint:
    """Reads the heads of a Flax file and checks every extent against the file's size.

    Of a training state, or of variables, its ``params`` are taken.

    Raises:
        UnsupportedContainer: it holds a dtype that no weight here has.
        CorruptCheckpoint: truncated, contradicts itself, or is no tree of tensors.
    """
    with path.open("rb") as file:
        reader = Reader(file, 0, file.seek(0, os.SEEK_END))
        try:
            tree = _Walk(path, reader).map(reader.head(), 0)
        except Malformed as error:
            raise _corrupt(path, str(error)) from None
        if reader.position != reader.end:
            raise _corrupt(path, f"{reader.end - reader.position:,} bytes follow its end")
    if not isinstance(tree, dict):
        raise _corrupt(path, "it holds one array, expected a tree of them")
    weights, beside = _weights(tree)
    tensors: dict[str, StoredTensor] = {}
    characters = 0
    for name, leaf in _flat(weights, ()):
        characters += len(name)
        if len(name) > MAX_NAME_CHARACTERS or characters > MAX_NAMES_BYTES:
            raise _corrupt(path, f"it has names of {len(name):,} characters, {characters:,} in all")
        if name in tensors or name in beside:
            raise _corrupt(path, f"it holds {printable(name)} twice")
        if isinstance(leaf, _Other):
            beside[name] = _NO_TENSOR.format(leaf.what)
        else:
            tensors[name] = replace(leaf, name=name)
    if not tensors:
        raise _corrupt(path, "it holds no tensors")
    return Checkpoint("flax", CONTAINER, tensors, (path,), beside=beside)


def write_header(path: Path, tensors: Iterable[tuple[str, str, Shape]]) -> dict[str, StoredTensor]:
    """Creates a Flax file of its full size, heads written, and says where each tensor's bytes go.

    Args:
        path: must not exist.
        tensors: name, dtype and shape of each. In sorted order the file is what transformers 4 writes, byte for byte.

    Returns:
        By name, in file order.
    """
    tree: dict[str, object] = {}
    for name, dtype, shape in tensors:
        *levels, leaf = name.split(SEPARATOR)
        inner = tree
        for level in levels:
            inner = inner.setdefault(level, {})  # type: ignore[assignment]
        inner[leaf] = (name, dtype, shape)
    runs: dict[str, list[tuple[int, int]]] = {}
    stored: dict[str, StoredTensor] = {}
    position = 0
    with path.open("xb") as file:
        for piece in _written(tree):
            if isinstance(piece, bytes):
                position += file.write(piece)
                continue
            name, dtype, shape, nbytes = piece
            found = runs.setdefault(name, [])
            found.append((position, nbytes))
            total = math.prod(shape) * DTYPES[dtype]
            extent = Extent(path, found[0][0], total, tuple(found) if len(found) > 1 else ())
            stored[name] = StoredTensor(name, dtype, shape, extent)
            position = file.seek(position + nbytes)
        file.truncate(position)
    return stored


def _written(tree: Mapping[str, object]) -> Iterator[bytes | tuple[str, str, Shape, int]]:
    """The parts of a file: bytes, and for each run of a tensor's own bytes its name, dtype, shape and length."""
    yield msgpack.map_head(len(tree))
    for key, value in tree.items():
        yield msgpack.text(key)
        if isinstance(value, dict):
            yield from _written(value)
        elif isinstance(value, tuple):
            yield from _array(*value)


def _array(name: str, dtype: str, shape: Shape) -> Iterator[bytes | tuple[str, str, Shape, int]]:
    width = DTYPES[dtype]
    size = math.prod(shape)
    if size * width <= CHUNK_BYTES:
        yield _leaf_head(dtype, shape)
        yield name, dtype, shape, size * width
        return
    step = max(1, CHUNK_BYTES // width)
    sizes = [min(step, size - start) for start in range(0, size, step)]
    yield msgpack.map_head(3) + msgpack.text(_CHUNKED) + msgpack.TRUE
    yield msgpack.text("shape") + msgpack.map_head(len(shape))
    for number, axis in enumerate(shape):
        yield msgpack.text(str(number)) + msgpack.whole(axis)
    yield msgpack.text("chunks") + msgpack.map_head(len(sizes))
    for number, length in enumerate(sizes):
        yield msgpack.text(str(number)) + _leaf_head(dtype, (length,))
        yield name, dtype, shape, length * width


def _leaf_head(dtype: str, shape: Shape) -> bytes:
    """The bytes before an array's bytes."""
    nbytes = math.prod(shape) * DTYPES[dtype]
    inner = msgpack.list_head(3) + msgpack.list_head(len(shape)) + b"".join(map(msgpack.whole, shape))
    inner += msgpack.text(dtype) + msgpack.bytes_head(nbytes)
    return msgpack.ext_head(_ARRAY, len(inner) + nbytes) + inner


class _Walk:
    """One way through a file, which counts what it meets."""

    def __init__(self, path: Path, reader: Reader) -> None:
        self._path = path
        self._reader = reader
        self._entries = 0

    def map(self, head: msgpack.Head, level: int) -> _Tree | StoredTensor:
        """Reads a map, or the array that it encodes."""
        if head.kind != "map":
            raise _corrupt(self._path, f"it holds a {head.kind} where a map was expected")
        if level > MAX_LEVELS:
            raise _corrupt(self._path, f"its maps are nested more than {MAX_LEVELS} deep")
        found: _Tree = {}
        for _ in range(head.size):
            self._entries += 1
            if self._entries > MAX_ENTRIES:
                raise _corrupt(self._path, f"it has more than {MAX_ENTRIES:,} entries")
            key = self._key()
            if key in found:
                raise _corrupt(self._path, f"a map of it holds {printable(key)} twice")
            found[key] = self._value(level)
        return self._joined(found) if _CHUNKED in found else found

    def _key(self) -> str:
        head = self._reader.head()
        if head.kind != "text":
            raise _corrupt(self._path, f"a key of it is a {head.kind}, expected text")
        if head.size > 4 * MAX_NAME_CHARACTERS:
            raise _corrupt(self._path, f"it has a name of {head.size:,} bytes")
        try:
            return self._reader.take(head.size).decode("utf-8")
        except UnicodeDecodeError:
            raise _corrupt(self._path, "it has a name that is not Unicode") from None

    def _value(self, level: int) -> _Node:
        head = self._reader.head()
        if head.kind == "map":
            return self.map(head, level + 1)
        if head.kind == "ext" and head.ext in (_ARRAY, _SCALAR):
            return self._tensor(head.size, head.ext)
        if head.kind == "ext" and head.ext != _COMPLEX:
            raise _corrupt(self._path, f"it holds an extension of type {head.ext}, which flax does not write")
        if head.kind == "list":
            raise _corrupt(self._path, "it holds a list, which flax writes as a map")
        if head.kind == "text":
            self._check_text(head.size)
            return _Other("text")
        if head.kind == "ext":
            self._check_complex(head.size)
            return _Other("a complex number")
        if head.kind == "bytes":
            self._reader.skip(head.size)
            return _Other("bytes")
        return _Other(str(head.value) if head.value is not None or head.kind == "other" else "a number")

    def _check_text(self, nbytes: int) -> None:
        """Reads a text that is no weight: flax cannot open a file that holds one in another encoding."""
        inner, decoder = self._reader.within(nbytes), codecs.getincrementaldecoder("utf-8")()
        try:
            while left := inner.end - inner.position:
                decoder.decode(inner.take(min(left, _PIECE_BYTES)), final=left <= _PIECE_BYTES)
        except UnicodeDecodeError:
            raise _corrupt(self._path, "it has a text that is not Unicode") from None
        self._reader.skip(nbytes)

    def _check_complex(self, nbytes: int) -> None:
        """Steps over a complex number of Python's: a list of two floats."""
        if nbytes != 19 or (held := self._reader.take(nbytes))[0] != 0x92 or {held[1], held[10]} != {0xCB}:
            raise _corrupt(self._path, "it holds a complex number that is not two floats")

    def _tensor(self, nbytes: int, ext: int) -> StoredTensor:
        """Reads what an extension says of the array that it holds; its bytes are stepped over."""
        inner = self._reader.within(nbytes)
        shape, dtype, length = self._described(inner)
        offset = inner.skip(length)
        if inner.position != inner.end:
            raise _corrupt(self._path, f"{inner.end - inner.position:,} bytes follow an array inside its extension")
        expected = _nbytes(self._path, shape, dtype)
        if length != expected:
            raise _corrupt(
                self._path, f"an array has {length:,} bytes, its shape {shape} and dtype ask for {expected:,}"
            )
        if ext == _SCALAR and shape:
            raise _corrupt(self._path, f"a scalar has shape {shape}")
        self._reader.skip(nbytes)
        return StoredTensor("", dtype, shape, Extent(self._path, offset, length))

    def _described(self, inner: Reader) -> tuple[Shape, str, int]:
        head, sizes = inner.head(), inner.head()
        if (head.kind, head.size, sizes.kind) != ("list", 3, "list") or sizes.size > MAX_AXES:
            raise _corrupt(self._path, f"an array is not described by up to {MAX_AXES} sizes, a dtype and bytes")
        shape = tuple(self._size(inner.head()) for _ in range(sizes.size))
        named = inner.head()
        dtype = inner.take(named.size if named.kind in ("text", "bytes") and named.size <= 40 else 0).decode("latin-1")
        if dtype not in DTYPES:
            raise UnsupportedContainer(
                f"{self._path}: an array has dtype {printable(dtype)!r}; known are {', '.join(DTYPES)}; widen it with "
                ".astype('float32') and save again"
            )
        payload = inner.head()
        if payload.kind not in ("bytes", "text"):
            raise _corrupt(self._path, f"an array holds a {payload.kind} where its bytes were expected")
        return shape, dtype, payload.size

    def _size(self, head: msgpack.Head) -> int:
        if head.kind != "number" or not isinstance(head.value, int) or not 0 <= head.value < 2**48:
            raise _corrupt(self._path, f"an array has a size of {head.value if head.kind == 'number' else head.kind}")
        return head.value

    def _joined(self, found: _Tree) -> StoredTensor:
        """The array that was cut into pieces."""
        sizes, chunks = found.get("shape"), found.get("chunks")
        if set(found) != {_CHUNKED, "shape", "chunks"} or found[_CHUNKED] != _Other("True"):
            raise _corrupt(self._path, f"an array in pieces is described by {listed(list(found))}")
        if not isinstance(sizes, dict) or not isinstance(chunks, dict) or not chunks or len(sizes) > MAX_AXES:
            raise _corrupt(self._path, "an array in pieces has no shape or no pieces")
        if list(sizes) != [str(n) for n in range(len(sizes))] or list(chunks) != [str(n) for n in range(len(chunks))]:
            raise _corrupt(self._path, "the pieces or sizes of an array are not numbered from 0")
        shape = tuple(_whole(self._path, value) for value in sizes.values())
        parts = [part for part in chunks.values() if isinstance(part, StoredTensor) and len(part.shape) == 1]
        if len(parts) != len(chunks) or len({part.dtype for part in parts}) != 1:
            raise _corrupt(self._path, "the pieces of an array are not of one axis and one dtype")
        if sum(part.size for part in parts) != math.prod(shape):
            raise _corrupt(
                self._path,
                f"the pieces of an array hold {sum(part.size for part in parts):,} numbers, its shape {shape} asks for "
                f"{math.prod(shape):,}",
            )
        _nbytes(self._path, shape, parts[0].dtype)
        pieces = tuple((part.extent.offset, part.extent.nbytes) for part in parts if part.extent is not None)
        nbytes = sum(length for _, length in pieces)
        pieces = pieces if len(pieces) > 1 else ()
        first = parts[0].extent.offset if parts[0].extent is not None else 0
        return StoredTensor("", parts[0].dtype, shape, Extent(self._path, first, nbytes, pieces))


def _nbytes(path: Path, shape: Shape, dtype: str) -> int:
    """How many bytes an array has; NumPy makes none whose sizes but 0 ask for more than it can count."""
    if not all(shape) and math.prod(filter(None, shape)) * DTYPES[dtype] >= 2**63:
        raise _corrupt(path, f"an array has shape {shape}, which NumPy cannot make")
    return math.prod(shape) * DTYPES[dtype]


def _whole(path: Path, value: _Node) -> int:
    if not isinstance(value, _Other) or not value.what.isdecimal() or len(value.what) > 15:
        raise _corrupt(path, "a size of an array in pieces is no whole number")
    return int(value.what)


def _weights(tree: _Tree) -> tuple[_Tree, dict[str, str]]:
    """The weights in a tree, and what lay beside them: a training state and a dict of variables call them ``params``.

    Source: flax/training/train_state.py (TrainState), flax/linen (variables).
    """
    beside: dict[str, str] = {}
    while isinstance(inner := tree.get(_PARAMS), dict):
        others = (name for name, held in tree.items() if name != _PARAMS and _has_tensors(held))
        reason = f"lies beside {_PARAMS}, which was converted; save it alone to convert it"
        beside |= dict.fromkeys(others, reason)
        tree = inner
    return tree, beside


def _has_tensors(node: _Node) -> bool:
    return any(_has_tensors(held) for held in node.values()) if isinstance(node, dict) else not isinstance(node, _Other)


def _flat(tree: _Tree, above: tuple[str, ...]) -> Iterator[tuple[str, StoredTensor | _Other]]:
    for key, node in tree.items():
        levels = (*above, key)
        if isinstance(node, dict):
            yield from _flat(node, levels)
        else:
            yield SEPARATOR.join(levels), node


def _corrupt(path: Path, what: str) -> CorruptCheckpoint:
    return CorruptCheckpoint(f"{path}: not a valid Flax file: {what}; download or save it again")

"""The index of TensorFlow's checkpoints: the place, dtype, shape and CRC-32C of each tensor in the data files.

A sorted table: the empty key has the header, every other one a tensor. Tensors are plain bytes, so they have extents.
Source: tensorflow/core/protobuf/tensor_bundle.proto, tensorflow/core/util/tensor_bundle.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from converter.checkpoints.shards import MAX_SHARDS
from converter.checkpoints.sorted_table import FOOTER_BYTES, entries, is_table
from converter.checkpoints.wire import UnsoundMessage, fields, message, number, text, varint
from converter.errors import CorruptCheckpoint, UnsupportedContainer, printable
from converter.folder.files import inside
from converter.specs import MAX_AXES, Extent, Shape, StoredTensor
from converter.tensors.casts import DTYPES
from converter.tensors.crc32c import crc32c, masked

SAVED_MODEL = "saved_model.pb"
INDEX = ".index"
# 50,000 tensors with long names, and as many again of an optimizer.
MAX_TABLE_BYTES = 16 * 2**20
# A text in it: the object graph, with the objects of as many tensors and of the functions that use them.
MAX_TEXT_BYTES = 16 * 2**20
_BLOCK_BYTES = 4 * 2**20
# Source: tensorflow/core/framework/types.proto.
_TO_DTYPE = {
    1: "float32", 2: "float64", 3: "int32", 4: "uint8", 5: "int16", 6: "int8", 9: "int64", 10: "bool", 14: "bfloat16",
    17: "uint16", 19: "float16", 22: "uint32", 23: "uint64",
}  # fmt: skip
_STRING = 7


@dataclass(frozen=True, slots=True)
class Entry:
    """An index's entry for one tensor.

    Attributes:
        dtype: one of ``casts.DTYPES``, ``"text"``, or a number for another one.
        shape: as stored.
        extent: the place of its bytes.
        crc: their CRC-32C, masked.
        sliced: whether it is cut into slices, which are stored elsewhere.
    """

    dtype: str
    shape: Shape
    extent: Extent
    crc: int
    sliced: bool

    def is_like(self, other: Entry) -> bool:
        """Whether another tensor holds the same, as far as the index says."""
        mine, its = ((e.dtype, e.shape, e.extent.nbytes, e.crc) for e in (self, other))
        return mine == its

    def stored(self, name: str) -> StoredTensor:
        """The tensor under another name."""
        return StoredTensor(name, self.dtype, self.shape, self.extent)


def is_index(path: Path) -> bool:
    """Whether a file is such an index, by its last bytes."""
    with path.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - FOOTER_BYTES))
        return is_table(file.read(FOOTER_BYTES))


def read_index(path: Path) -> tuple[dict[str, Entry], tuple[Path, ...]]:
    """Reads an index, and checks it against the data files.

    Args:
        path: for example ``variables/variables.index``.

    Returns:
        Every tensor by its key, and the data files.

    Raises:
        UnsoundMessage: it is invalid; the text says how.
        CorruptCheckpoint: a data file is not there, or elsewhere.
        UnsupportedContainer: it was written on a big-endian machine.
    """
    with path.open("rb") as file:
        data = file.read(MAX_TABLE_BYTES + 1)
    if len(data) > MAX_TABLE_BYTES:
        raise UnsoundMessage(f"has more than {MAX_TABLE_BYTES:,} bytes")
    table = {text(key): value for key, value in entries(data)}
    files = _data_files(path, table.pop("", b""))
    found = {key: _entry(value, files) for key, value in table.items()}
    _check_extents(found)
    return found, files


def read_text(entry: Entry) -> bytes:
    """A single text: its length and the checksum of that come before it.

    Raises:
        UnsoundMessage: it is not text, too long, or has another sum.
    """
    if entry.dtype != "text" or entry.shape or entry.extent.nbytes > MAX_TEXT_BYTES:
        raise UnsoundMessage(f"has an object graph of {entry.extent.nbytes:,} bytes, and {len(entry.shape)} axes")
    with entry.extent.path.open("rb") as file:
        file.seek(entry.extent.offset)
        data = file.read(entry.extent.nbytes)
    length, position = varint(data, 0)
    if length != len(data) - position - 4:
        raise UnsoundMessage(f"has an object graph of {length:,} bytes that lies in {len(data):,}")
    # Of the length as in memory, not as written.
    before = length.to_bytes(4, "little") + data[position : position + 4]
    if masked(crc32c(data[position + 4 :], crc32c(before))) != entry.crc:
        raise UnsoundMessage("has an object graph with another CRC-32C than it says")
    return data[position + 4 :]


def check_sum(entry: Entry) -> None:
    """Compares a tensor's bytes with their sum.

    Raises:
        CorruptCheckpoint: they have another one.
    """
    extent, so_far = entry.extent, 0
    with extent.path.open("rb") as file:
        file.seek(extent.offset)
        for start in range(0, extent.nbytes, _BLOCK_BYTES):
            so_far = crc32c(file.read(min(extent.nbytes - start, _BLOCK_BYTES)), so_far)
    if masked(so_far) != entry.crc:
        raise CorruptCheckpoint(
            f"{extent.path}: the {extent.nbytes:,} bytes from {extent.offset:,} have another CRC-32C than the index says; "
            "the file is damaged, or of another checkpoint: download or save it again"
        )


def _data_files(path: Path, header: bytes) -> tuple[Path, ...]:
    said = dict(fields(header))
    count = number(said.get(1, 0))
    if not 1 <= count <= MAX_SHARDS:
        raise UnsoundMessage(f"names {count:,} files of data")
    if said.get(2, 0) != 0:
        raise UnsupportedContainer(f"{path}: written on a big-endian machine; load and save it on another one")
    files = []
    for place in range(count):
        file = path.with_name(f"{path.name.removesuffix(INDEX)}.data-{place:05}-of-{count:05}")
        if not inside(file, path.parent).is_file():
            raise CorruptCheckpoint(f"{file}: not found; {path.name} needs it: copy both, or save the checkpoint again")
        files.append(file)
    return tuple(files)


def _entry(value: bytes, files: tuple[Path, ...]) -> Entry:
    said: dict[int, int | bytes] = {1: 0, 2: b"", 3: 0, 4: 0, 5: 0, 6: 0, **dict(fields(value))}
    dtype, shard, offset, nbytes, crc = (number(said[place]) for place in (1, 3, 4, 5, 6))
    if shard >= len(files):
        raise UnsoundMessage(f"names data file {shard:,} of {len(files):,}")
    known = "text" if dtype == _STRING else _TO_DTYPE.get(dtype, str(dtype))
    return Entry(known, _shape(message(said[2])), Extent(files[shard], offset, nbytes), crc, 7 in said)


def _shape(data: bytes) -> Shape:
    axes = [dict(fields(message(value))) for place, value in fields(data) if place == 2]
    sizes = tuple(number(axis.get(1, 0)) for axis in axes)
    # A negative size is a very large one here.
    if len(sizes) > MAX_AXES or any(size >= 2**48 for size in sizes):
        raise UnsoundMessage(f"has a tensor of {len(sizes):,} axes, the largest of size {max(sizes):,}")
    return sizes


def _check_extents(found: Mapping[str, Entry]) -> None:
    """Every tensor has the bytes that its dtype and shape ask for, in its file, and for itself."""
    sizes = {path: path.stat().st_size for path in {entry.extent.path for entry in found.values()}}
    for key, entry in found.items():
        extent = entry.extent
        if extent.offset + extent.nbytes > sizes[extent.path]:
            raise UnsoundMessage(
                f"says that {printable(key)} lies beyond the end of {extent.path.name}: it is truncated"
            )
        if entry.dtype in DTYPES and not entry.sliced:
            asked = math.prod(entry.shape) * DTYPES[entry.dtype]
            if extent.nbytes != asked:
                raise UnsoundMessage(f"gives {printable(key)} {extent.nbytes:,} bytes, its shape asks for {asked:,}")
    placed = sorted((e.extent.path, e.extent.offset, e.extent.nbytes) for e in found.values() if e.extent.nbytes)
    for (path, offset, nbytes), (other, after, _) in itertools.pairwise(placed):
        if path == other and offset + nbytes > after:
            raise UnsoundMessage(f"has two tensors at byte {after:,} of {path.name}")

"""Checks where HDF5 keeps text of variable length before HDF5 reads it: a lying heap makes the library loop for ever.

HDF5 1.14 takes each object's size on trust when it reads a global heap collection, a size of 0 included. So the object
header is followed to the attribute, the attribute to its collections, and these are walked here first.
Source: HDF5 File Format Specification 3.0, sections III.E (global heap) and IV.A (object headers, attributes).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

MAX_HEAP_BYTES = 64 * 2**20
_MAX_HEADER_BYTES = 2**20
_MAX_BLOCKS = 1000
_CONTINUATION, _ATTRIBUTE = 0x10, 0x0C
_LEAST_OBJECT = 16

_Read = Callable[[int, int], bytes]


class UnsoundHeap(ValueError):
    """An object header or a heap that does not hold what it says; without the file's name."""


def check_text(path: Path, base: int, header: int, attribute: str, count: int) -> None:
    """Checks the heap collections that the texts of an attribute lie in.

    Args:
        path: an HDF5 file.
        base: where HDF5 begins in it, behind a user block.
        header: where the header of the object with the attribute begins, counted from there.
        attribute: its name.
        count: how many texts it holds.

    Raises:
        UnsoundHeap: HDF5 must not be asked for it.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size - base

        def read(at: int, nbytes: int) -> bytes:
            if at + nbytes > size:
                raise UnsoundHeap(f"it points to byte {at + nbytes:,}, beyond the end of the file")
            return os.pread(file.fileno(), nbytes, base + at)

        data = _attribute(read, header, attribute.encode())
        if len(data) < 16 * count:
            raise UnsoundHeap(f"attribute {attribute} is shorter than its {count:,} texts")
        collections: dict[int, dict[int, int]] = {}
        total = 0
        for length, address, number in struct.iter_unpack("<LQL", data[: 16 * count]):
            if not length:
                continue
            if address not in collections:
                collections[address] = _sizes(read, address)
            if length > collections[address].get(number, 0) or (total := total + length) > MAX_HEAP_BYTES:
                raise UnsoundHeap(f"attribute {attribute} holds a text of {length:,} bytes, which is not there")


def _attribute(read: _Read, header: int, name: bytes) -> bytes:
    """What an attribute holds, as stored: for each text its length, and the heap's address and number of it."""
    for kind, body in _messages(read, header):
        if kind != _ATTRIBUTE or len(body) < 8:
            continue
        version, sizes = body[0], struct.unpack_from("<3H", body, 2)
        # In version 1 each part is padded to a multiple of 8; version 3 has a byte more, for the name's encoding.
        spans = [size + -size % 8 if version == 1 else size for size in sizes]
        start = 9 if version == 3 else 8
        if version in (1, 2, 3) and body[start : start + sizes[0]].split(b"\0")[0] == name:
            return body[start + sum(spans) :]
    raise UnsoundHeap(f"attribute {name.decode(errors='replace')} is not where HDF5 1.8 and older have it")


def _messages(read: _Read, header: int) -> Iterator[tuple[int, bytes]]:
    """Type and body of every message in an object header, through all blocks that it continues in."""
    if read(header, 4) == b"OHDR":
        flags = read(header + 5, 1)[0]
        at = header + 6 + (16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0)
        width = 1 << (flags & 3)
        blocks = [(at + width, int.from_bytes(read(at, width), "little"))]
        prefix, skip, tail = "<BHB", 6 if flags & 4 else 4, 4  # a checksum at the end of each block
    else:
        blocks = [(header + 16, int.from_bytes(read(header + 8, 4), "little"))]
        prefix, skip, tail = "<HHB", 8, 0
    for number in range(_MAX_BLOCKS):
        if number == len(blocks):
            return
        at, nbytes = blocks[number]
        if nbytes > _MAX_HEADER_BYTES:
            raise UnsoundHeap(f"an object header of {nbytes:,} bytes")
        block, position = read(at, nbytes), 4 if number and tail else 0
        end = nbytes - (tail if number else 0)
        while position + skip <= end:
            kind, length, _ = struct.unpack_from(prefix, block, position)
            body = block[position + skip : position + skip + length]
            position += skip + length
            if kind == _CONTINUATION and len(body) >= 16:
                blocks.append(struct.unpack_from("<QQ", body))
            yield kind, body
    raise UnsoundHeap(f"an object header in more than {_MAX_BLOCKS:,} blocks")


def _sizes(read: _Read, address: int) -> dict[int, int]:
    """Walks a collection as HDF5 does, the free space at its end included; gives the sizes of its objects by number."""
    start = read(address, 16)
    if start[:5] != b"GCOL\x01":
        raise UnsoundHeap(f"there is no heap at byte {address:,}, which its names point to")
    nbytes = int.from_bytes(start[8:], "little")
    if nbytes > MAX_HEAP_BYTES:
        raise UnsoundHeap(f"a heap of {nbytes:,} bytes, accepted are up to {MAX_HEAP_BYTES:,}")
    heap, position = read(address, nbytes), 16
    sizes: dict[int, int] = {}
    while position + _LEAST_OBJECT <= nbytes:
        number, _, _, length = struct.unpack_from("<HHLQ", heap, position)
        taken = length if number == 0 else _LEAST_OBJECT + length + -length % 8
        if taken < _LEAST_OBJECT or position + taken > nbytes:
            raise UnsoundHeap(f"its heap at byte {address:,} holds an object of {length:,} bytes, which cannot be")
        sizes[number] = length
        position += taken
    return sizes

"""The table that TensorFlow keeps the index of a checkpoint in: LevelDB's, keys sorted, each without what it shares.

The format is a sequence of blocks of entries. Each block ends with one byte for the compression and a CRC-32C. The last
block lists the positions of the others, and the final 48 bytes give its position.
Source: tensorflow/core/lib/io/format.cc, https://github.com/google/leveldb/blob/main/doc/table_format.md
"""

from __future__ import annotations

from collections.abc import Iterator

from converter.checkpoints.wire import UnsoundMessage, varint
from converter.tensors.crc32c import crc32c, masked

FOOTER_BYTES = 48
_MAGIC = bytes.fromhex("57fb808b247547db")
_TRAILER_BYTES = 5  # one for the kind of compression, four for the sum
MAX_ENTRIES = 200_000
# A variable's name as the file spells it, below the name of a model and with its suffix.
MAX_KEY_BYTES = 2_000


def is_table(data: bytes) -> bool:
    """Whether bytes end as such a table does."""
    return len(data) >= FOOTER_BYTES and data.endswith(_MAGIC)


def entries(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Every key and its value, in order.

    Raises:
        UnsoundMessage: it is no such table, a block's sum is another, or keys are not sorted.
    """
    if not is_table(data):
        raise UnsoundMessage("does not end as a table does: it is truncated, or something else")
    footer = data[-FOOTER_BYTES:]
    _, position = _handle(footer, 0)
    place, _ = _handle(footer, position)
    last, end, count = b"", 0, 0
    for _, value in _block(data, place):
        inner, _ = _handle(value, 0)
        if inner[0] < end:  # else a small file could hold one block a million times
            raise UnsoundMessage("has blocks that overlap")
        end = sum(inner)
        for key, held in _block(data, inner):
            count += 1
            if count > MAX_ENTRIES:
                raise UnsoundMessage(f"has more than {MAX_ENTRIES:,} entries")
            if count > 1 and key <= last:
                raise UnsoundMessage("has keys that are not sorted")
            last = key
            yield key, held


def _handle(data: bytes, position: int) -> tuple[tuple[int, int], int]:
    offset, position = varint(data, position)
    size, position = varint(data, position)
    return (offset, size), position


def _block(data: bytes, place: tuple[int, int]) -> Iterator[tuple[bytes, bytes]]:
    offset, size = place
    if offset + size + _TRAILER_BYTES > len(data) - FOOTER_BYTES or size < 4:
        raise UnsoundMessage("has a block beyond its end")
    whole = data[offset : offset + size + 1]
    if masked(crc32c(whole)) != int.from_bytes(data[offset + size + 1 : offset + size + _TRAILER_BYTES], "little"):
        raise UnsoundMessage("has a block with another CRC-32C than is written behind it")
    if whole[size]:
        raise UnsoundMessage("is compressed, which TensorFlow never does")
    restarts = int.from_bytes(whole[size - 4 : size], "little")
    end = size - 4 - 4 * restarts
    if end < 0:
        raise UnsoundMessage("has a block shorter than what it lists")
    block, key, position = whole[:end], b"", 0
    while position < end:
        shared, position = varint(block, position)
        fresh, position = varint(block, position)
        length, position = varint(block, position)
        if shared > len(key) or fresh + length > end - position or shared + fresh > MAX_KEY_BYTES:
            raise UnsoundMessage("has an entry that does not fit in its block")
        key = key[:shared] + block[position : position + fresh]
        position += fresh
        yield key, block[position : position + length]
        position += length

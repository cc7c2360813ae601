"""Protocol buffers as bytes on the wire: walks the fields of a message, and trusts none of its lengths.

Source: https://protobuf.dev/programming-guides/encoding
"""

from __future__ import annotations

from collections.abc import Iterator

_VARINT, _FIXED_64, _BYTES, _FIXED_32 = 0, 1, 2, 5
_VARINT_BYTES = 10  # for 64 bits, 7 in each


class UnsoundMessage(ValueError):
    """Bytes that are not a message; the text continues after the name of what holds them."""


def fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Every field of a message in turn: its number, and its value: a whole number, or bytes for what has a length.

    Raises:
        UnsoundMessage: it is cut off, or has a group, which no message of TensorFlow has.
    """
    position = 0
    while position < len(data):
        tag, position = varint(data, position)
        number, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            value, position = varint(data, position)
            yield number, value
            continue
        if kind == _BYTES:
            length, position = varint(data, position)
        elif kind in (_FIXED_32, _FIXED_64):
            length = 4 if kind == _FIXED_32 else 8
        else:
            raise UnsoundMessage(f"has a field of kind {kind}")
        if length > len(data) - position:
            raise UnsoundMessage(f"ends {length - (len(data) - position):,} bytes too early")
        piece = data[position : position + length]
        position += length
        yield number, piece if kind == _BYTES else int.from_bytes(piece, "little")


def varint(data: bytes, position: int) -> tuple[int, int]:
    """An integer of 7 bits per byte, the low ones first, and its end.

    Raises:
        UnsoundMessage: it does not end, or has more than 64 bits.
    """
    value = 0
    for count in range(_VARINT_BYTES):
        if position + count >= len(data):
            raise UnsoundMessage("ends within a number")
        byte = data[position + count]
        value |= (byte & 0x7F) << (7 * count)
        if byte < 0x80:
            if value >= 2**64:
                break
            return value, position + count + 1
    raise UnsoundMessage("has a number of more than 64 bits")


def text(value: int | bytes) -> str:
    """A field that holds text.

    Raises:
        UnsoundMessage: it holds a number, or is not UTF-8.
    """
    try:
        return message(value).decode()
    except UnicodeDecodeError:
        raise UnsoundMessage("has text that is not UTF-8") from None


def message(value: int | bytes) -> bytes:
    """A field that holds another message.

    Raises:
        UnsoundMessage: it holds a number.
    """
    if isinstance(value, int):
        raise UnsoundMessage("has a number where bytes belong")
    return value


def number(value: int | bytes) -> int:
    """A field that holds a whole number.

    Raises:
        UnsoundMessage: it holds bytes.
    """
    if not isinstance(value, int):
        raise UnsoundMessage("has bytes where a number belongs")
    return value

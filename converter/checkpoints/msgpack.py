"""MessagePack as far as checkpoints need it: a reader that steps over payloads, and the heads of maps, texts and payloads.

Source: https://github.com/msgpack/msgpack/blob/master/spec.md
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import BinaryIO, Literal

Kind = Literal["map", "list", "text", "bytes", "ext", "number", "other"]
# Of each first byte from 0xc0 on: what it begins, and how many bytes give the length or are the value.
_SIZED: dict[int, tuple[Kind, int]] = {
    0xC4: ("bytes", 1), 0xC5: ("bytes", 2), 0xC6: ("bytes", 4),
    0xC7: ("ext", 1), 0xC8: ("ext", 2), 0xC9: ("ext", 4),
    0xD9: ("text", 1), 0xDA: ("text", 2), 0xDB: ("text", 4),
    0xDC: ("list", 2), 0xDD: ("list", 4), 0xDE: ("map", 2), 0xDF: ("map", 4),
}  # fmt: skip
_FIXED_EXT = {0xD4: 1, 0xD5: 2, 0xD6: 4, 0xD7: 8, 0xD8: 16}
_UNSIGNED = {0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8}
_OTHER_NUMBERS = {0xCA: 4, 0xCB: 8, 0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8}
_PLAIN: dict[int, bool | None] = {0xC0: None, 0xC2: False, 0xC3: True}


class Malformed(ValueError):
    """The bytes are not MessagePack, or end too early; says what is wrong, and the caller where."""


@dataclass(frozen=True, slots=True)
class Head:
    """What begins at a place: an object's kind and size, its payload not read.

    Attributes:
        kind: ``"other"`` for true, false and nil.
        size: entries of a map or list, bytes of a text or payload.
        value: of a whole number, true, false and nil; of other numbers None.
        ext: type of an extension.
    """

    kind: Kind
    size: int = 0
    value: int | bool | None = None
    ext: int = 0


class Reader:
    """Reads heads from a file up to a limit, and steps over what they announce."""

    def __init__(self, file: BinaryIO, begin: int, end: int) -> None:
        """Takes a file open for reading, and between which bytes of it to read."""
        self._file = file
        self.position = begin
        self.end = end
        file.seek(begin)

    def head(self) -> Head:
        """Reads the head of the next object.

        Raises:
            Malformed: no value follows.
        """
        (first,) = self.take(1)
        if first < 0x80 or first >= 0xE0:
            return Head("number", value=first if first < 0x80 else first - 0x100)
        if first < 0xC0:
            kind: Kind = "map" if first < 0x90 else "list" if first < 0xA0 else "text"
            return Head(kind, size=first & (0x1F if kind == "text" else 0x0F))
        if first in _PLAIN:
            return Head("other", value=_PLAIN[first])
        if first in _UNSIGNED:
            return Head("number", value=self._number(_UNSIGNED[first]))
        if first in _OTHER_NUMBERS:
            self.take(_OTHER_NUMBERS[first])
            return Head("number")
        if first in _FIXED_EXT:
            return Head("ext", size=_FIXED_EXT[first], ext=self._type())
        if first not in _SIZED:
            raise Malformed(f"byte {self.position - 1:,} is {first:#x}, which starts no value")
        kind, width = _SIZED[first]
        size = self._number(width)
        return Head(kind, size, ext=self._type() if kind == "ext" else 0)

    def take(self, nbytes: int) -> bytes:
        """Reads some bytes.

        Raises:
            Malformed: there are fewer.
        """
        self._check(nbytes)
        found = self._file.read(nbytes)
        if len(found) < nbytes:
            raise Malformed("it shrank while it was being read")
        self.position += nbytes
        return found

    def skip(self, nbytes: int) -> int:
        """Skips some bytes; returns their start.

        Raises:
            Malformed: there are fewer.
        """
        self._check(nbytes)
        begin = self.position
        self.position += nbytes
        self._file.seek(self.position, os.SEEK_SET)
        return begin

    def within(self, nbytes: int) -> Reader:
        """A reader of only the next bytes; continue with this one when that one is done."""
        self._check(nbytes)
        return Reader(self._file, self.position, self.position + nbytes)

    def _check(self, nbytes: int) -> None:
        left = self.end - self.position
        if nbytes > left:
            raise Malformed(f"{nbytes:,} bytes should follow byte {self.position:,}, and only {left:,} do")

    def _number(self, width: int) -> int:
        return int.from_bytes(self.take(width), "big")

    def _type(self) -> int:
        return int.from_bytes(self.take(1), "big", signed=True)


def map_head(entries: int) -> bytes:
    """The head of a map."""
    return _short(0x80, entries, 16) or _long({2: 0xDE, 4: 0xDF}, entries)


def list_head(items: int) -> bytes:
    """The head of a list."""
    return _short(0x90, items, 16) or _long({2: 0xDC, 4: 0xDD}, items)


def text(value: str) -> bytes:
    """A text, whole."""
    data = value.encode()
    return (_short(0xA0, len(data), 32) or _long({1: 0xD9, 2: 0xDA, 4: 0xDB}, len(data))) + data


def whole(value: int) -> bytes:
    """A whole number that is not negative."""
    return _short(0, value, 128) or _long({1: 0xCC, 2: 0xCD, 4: 0xCE, 8: 0xCF}, value)


def bytes_head(nbytes: int) -> bytes:
    """The head of bytes."""
    return _long({1: 0xC4, 2: 0xC5, 4: 0xC6}, nbytes)


def ext_head(kind: int, nbytes: int) -> bytes:
    """The head of an extension of a type."""
    fixed = {size: first for first, size in _FIXED_EXT.items()}
    head = bytes([fixed[nbytes]]) if nbytes in fixed else _long({1: 0xC7, 2: 0xC8, 4: 0xC9}, nbytes)
    return head + bytes([kind])


TRUE = b"\xc3"


def _short(first: int, number: int, limit: int) -> bytes:
    return bytes([first | number]) if number < limit else b""


def _long(firsts: dict[int, int], number: int) -> bytes:
    """The shortest of some spellings: by how many bytes the number takes, the first byte."""
    width = next((width for width in firsts if number < 1 << 8 * width), None)
    if width is None:
        raise ValueError(f"{number:,} is more than MessagePack can count")
    return bytes([firsts[width]]) + number.to_bytes(width, "big")

"""A machine for pickles that runs nothing: it builds dicts, lists, tuples, numbers and text, and what a table names.

Python's pickle calls whatever a file asks for. This machine knows the opcodes that torch.save emits (protocols 2 to
5), looks every name up in a table that it is given, and refuses the rest.
Source: the opcodes are described in CPython's Lib/pickletools.py.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from converter.errors import printable

# 50,000 tensors take about 10 MB, 2 million opcodes and 500,000 places of the memo.
MAX_PICKLE_BYTES = 16 * 2**20
MAX_OPCODES = 2_500_000
MAX_MEMO = 1_000_000
MAX_STACK = 100_000
MAX_MARKS = 1_000


class UnsoundPickle(ValueError):
    """A pickle that breaks off, contradicts itself or is larger than any checkpoint's; without the file's name."""


class UnknownName(Exception):
    """A pickle asks for a name or an opcode outside the tables."""


@dataclass(frozen=True, slots=True)
class Function:
    """A table's entry for a function: ``build`` takes its arguments, and raises UnsoundPickle if unfit."""

    build: Callable[[tuple[Any, ...]], Any]


class Machine:
    """Reads one pickle: a stack, the stacks below the open marks, and the memo.

    Args:
        text: the pickle, of at most ``MAX_PICKLE_BYTES``; the reader of the file enforces that.
        names: values for the names that it may use; only a ``Function`` can be called.
        persistent: builds what a persistent id means.
    """

    def __init__(self, text: bytes, names: Mapping[str, Any], persistent: Callable[[Any], Any]) -> None:
        self.position = 0
        self._text = text
        self._names = names
        self._persistent = persistent
        self._stack: list[Any] = []
        self._below: list[list[Any]] = []
        self._memo: dict[int, Any] = {}

    def run(self) -> Any:
        """Builds what the pickle describes.

        Raises:
            UnknownName: it asks for something else than the table holds.
            UnsoundPickle: it cannot be read.
        """
        try:
            self._run()
        except (IndexError, KeyError, UnicodeDecodeError):
            raise UnsoundPickle("it uses what it never made") from None
        if len(self._stack) != 1 or self._below or self.position != len(self._text):
            raise UnsoundPickle("objects are left on its stack at the end")
        return self._stack[0]

    def _run(self) -> None:
        text = self._text
        for _ in range(MAX_OPCODES):
            if self.position >= len(text):
                raise UnsoundPickle("it is truncated")
            code = text[self.position]
            self.position += 1
            if code == _STOP:
                return
            if (operation := _OPERATIONS.get(code)) is None:
                raise UnknownName(f"opcode {code:#04x}")
            operation(self)
            if len(self._stack) > MAX_STACK:
                raise UnsoundPickle(f"its stack grows beyond {MAX_STACK:,}")
        raise UnsoundPickle(f"it has more than {MAX_OPCODES:,} opcodes")

    def _take(self, count: int) -> bytes:
        end = self.position + count
        if end > len(self._text):
            raise UnsoundPickle("it is truncated")
        taken = self._text[self.position : end]
        self.position = end
        return taken

    def _number(self, width: int) -> int:
        return int.from_bytes(self._take(width), "little")

    def _protocol(self) -> None:
        if not 2 <= (protocol := self._number(1)) <= 5:
            raise UnsoundPickle(f"it is of protocol {protocol}, supported are 2 to 5")

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _pop(self) -> Any:
        return self._stack.pop()

    def _signed(self, width: int) -> None:
        self._push(int.from_bytes(self._take(width), "little", signed=True))

    def _long(self) -> None:
        if (width := self._number(1)) > 8:
            raise UnsoundPickle(f"it holds a number of {width} bytes")
        self._signed(width)

    def _real(self) -> None:
        self._push(struct.unpack(">d", self._take(8))[0])

    def _string(self, width: int) -> None:
        self._push(self._take(self._number(width)).decode())

    def _bytes(self, width: int) -> None:
        self._push(self._take(self._number(width)))

    def _mark(self) -> None:
        if len(self._below) >= MAX_MARKS:
            raise UnsoundPickle(f"it opens more than {MAX_MARKS:,} marks")
        self._below.append(self._stack)
        self._stack = []

    def _since_mark(self) -> list[Any]:
        items, self._stack = self._stack, self._below.pop()
        return items

    def _tuple(self, count: int) -> None:
        if len(self._stack) < count:
            raise UnsoundPickle("it builds a tuple from too few items")
        self._stack[-count:] = [tuple(self._stack[-count:])]

    def _append(self, items: list[Any]) -> None:
        if type(self._stack[-1]) is not list:
            raise UnsoundPickle("it appends to an object that is not a list")
        self._stack[-1].extend(items)

    def _set_items(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if type(target) is not dict or len(items) % 2:
            raise UnsoundPickle("it sets items on an object that is not a dict")
        for key, value in zip(items[::2], items[1::2], strict=True):
            # Nothing else is hashed: tuples of tuples from the memo would take forever.
            if type(key) not in (str, int, float, bool):
                raise UnsoundPickle(f"a key of a dict is a {type(key).__name__}")
            if key in target:
                raise UnsoundPickle(f"a dict has the key {printable(repr(key), 100)} twice")
            target[key] = value

    def _set_item(self) -> None:
        value, key = self._pop(), self._pop()
        self._set_items([key, value])

    def _put(self, place: int) -> None:
        if len(self._memo) >= MAX_MEMO:
            raise UnsoundPickle(f"its memo grows beyond {MAX_MEMO:,}")
        self._memo[place] = self._stack[-1]

    def _get(self, place: int) -> None:
        self._push(self._memo[place])

    def _name(self) -> None:
        parts = []
        for _ in range(2):
            if (end := self._text.find(b"\n", self.position)) < 0:
                raise UnsoundPickle("it is truncated")
            parts.append(self._take(end - self.position).decode())
            self.position += 1
        self._push_name(*parts)

    def _stack_name(self) -> None:
        attribute, module = self._pop(), self._pop()
        if type(module) is not str or type(attribute) is not str:
            raise UnsoundPickle("it names a global with something other than text")
        self._push_name(module, attribute)

    def _push_name(self, module: str, attribute: str) -> None:
        name = f"{module}.{attribute}"
        if name not in self._names:
            raise UnknownName(name)
        self._push(self._names[name])

    def _persistent_id(self) -> None:
        self._push(self._persistent(self._pop()))

    def _reduce(self) -> None:
        arguments, function = self._pop(), self._pop()
        if type(function) is not Function or type(arguments) is not tuple:
            raise UnsoundPickle("it calls an object that is not a function")
        self._push(function.build(arguments))

    def _build(self) -> None:
        """Drops the attributes of an OrderedDict: the ``_metadata`` of a state_dict says nothing about its tensors."""
        self._pop()
        if type(self._stack[-1]) is not dict:
            raise UnsoundPickle("it sets attributes on an object that is not an OrderedDict")


_STOP = ord(".")
_OPERATIONS: dict[int, Callable[[Machine], object]] = {
    code[0]: operation
    for code, operation in {
        b"\x80": Machine._protocol,
        b"\x95": lambda m: m._take(8),  # how long the following frame is
        b"(": Machine._mark,
        b"0": Machine._pop,
        b"1": Machine._since_mark,
        b"N": lambda m: m._push(None),
        b"\x88": lambda m: m._push(True),
        b"\x89": lambda m: m._push(False),
        b"K": lambda m: m._push(m._number(1)),
        b"M": lambda m: m._push(m._number(2)),
        b"J": lambda m: m._signed(4),
        b"\x8a": Machine._long,
        b"G": Machine._real,
        b"X": lambda m: m._string(4),
        b"\x8c": lambda m: m._string(1),
        b"\x8d": lambda m: m._string(8),
        b"B": lambda m: m._bytes(4),
        b"C": lambda m: m._bytes(1),
        b")": lambda m: m._push(()),
        b"\x85": lambda m: m._tuple(1),
        b"\x86": lambda m: m._tuple(2),
        b"\x87": lambda m: m._tuple(3),
        b"t": lambda m: m._push(tuple(m._since_mark())),
        b"]": lambda m: m._push([]),
        b"a": lambda m: m._append([m._pop()]),
        b"e": lambda m: m._append(m._since_mark()),
        b"}": lambda m: m._push({}),
        b"s": Machine._set_item,
        b"u": lambda m: m._set_items(m._since_mark()),
        b"q": lambda m: m._put(m._number(1)),
        b"r": lambda m: m._put(m._number(4)),
        b"\x94": lambda m: m._put(len(m._memo)),
        b"h": lambda m: m._get(m._number(1)),
        b"j": lambda m: m._get(m._number(4)),
        b"c": Machine._name,
        b"\x93": Machine._stack_name,
        b"Q": Machine._persistent_id,
        b"R": Machine._reduce,
        b"b": Machine._build,
    }.items()
}

"""CRC-32C (Castagnoli), which TensorFlow keeps of every tensor: many short lanes at once, then joined, since Python is slow.

A CRC that begins with 0 is linear. The CRC of A followed by B is that of A, shifted by B's length, xor that of B. Zeros in
front change nothing. Source of the polynomial and of the masked form: tensorflow/core/lib/hash/crc32c.h.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
_POLYNOMIAL = 0x82F63B78
_LANE_BYTES = 256
_ONES = 0xFFFFFFFF


def crc32c(data: Any, before: int = 0) -> int:
    """The sum of bytes that follow others.

    Args:
        data: bytes, or a contiguous array of them.
        before: sum of the preceding bytes; 0 for none.
    """
    held = np.frombuffer(data, np.uint8)
    return _shifted(before ^ _ONES, len(held)) ^ _from_zero(held) ^ _ONES


def masked(crc: int) -> int:
    """A sum as TensorFlow's files hold it, so that sums of data that holds sums stay good."""
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & _ONES


def _from_zero(data: Array) -> int:
    """The sum without the ones that it begins and ends with."""
    if not len(data):
        return 0
    lanes = 1 << (-(-len(data) // _LANE_BYTES) - 1).bit_length()
    padded = np.zeros(lanes * _LANE_BYTES, np.uint8)
    padded[len(padded) - len(data) :] = data
    words = np.ascontiguousarray(padded.view("<u2").reshape(lanes, -1).T)
    table, state = _words(), np.zeros(lanes, np.uint32)
    for row in words:
        state = table[(state ^ row) & 0xFFFF] ^ (state >> 16)
    exponent = _LANE_BYTES.bit_length() - 1
    while len(state) > 1:
        state = _shift(exponent)(state[::2]) ^ state[1::2]
        exponent += 1
    return int(state[0])


def _shifted(state: int, nbytes: int) -> int:
    """What a state becomes when as many zeros follow."""
    held = np.array([state], np.uint32)
    for exponent in range(nbytes.bit_length()):
        if nbytes >> exponent & 1:
            held = _shift(exponent)(held)
    return int(held[0])


@functools.cache
def _bytes() -> Array:
    """By a state's low byte, what it adds when a zero byte follows."""
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> 1) ^ np.uint32(_POLYNOMIAL), table >> 1)
    return table


@functools.cache
def _words() -> Array:
    """The same by the low two bytes, for two zero bytes."""
    state = np.arange(1 << 16, dtype=np.uint32)
    for _ in range(2):
        state = _bytes()[state & 0xFF] ^ (state >> 8)
    return state


@functools.cache
def _shift(exponent: int) -> Callable[[Array], Array]:
    """Shifts states by ``2 ** exponent`` bytes, one table for each byte of a state."""
    places = [np.arange(256, dtype=np.uint32) << np.uint32(8 * place) for place in range(4)]
    if exponent == 0:
        tables = [_bytes()[state & 0xFF] ^ (state >> 8) for state in places]
    else:
        half = _shift(exponent - 1)
        tables = [half(half(state)) for state in places]

    def shift(state: Array) -> Array:
        found: Array = tables[0][state & 0xFF]
        for place in (1, 2, 3):
            found = found ^ tables[place][(state >> (8 * place)) & 0xFF]
        return found

    return shift

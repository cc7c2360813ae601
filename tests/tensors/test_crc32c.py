"""CRC-32C against values that are published, and against the definition, bit by bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.tensors.crc32c import crc32c, masked


def bit_by_bit(data: bytes) -> int:
    state = 0xFFFFFFFF
    for byte in data:
        state ^= byte
        for _ in range(8):
            state = (state >> 1) ^ (0x82F63B78 if state & 1 else 0)
    return state ^ 0xFFFFFFFF


# RFC 3720, appendix B.4.
@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
        (b"123456789", 0xE3069283),
        (b"", 0),
    ],
)
def test_published_values(data: bytes, expected: int) -> None:
    assert crc32c(data) == expected


@given(data=st.binary(max_size=1500))
def test_as_defined(data: bytes) -> None:
    assert crc32c(data) == bit_by_bit(data)


@given(data=st.binary(max_size=3000), at=st.integers(0, 3000))
def test_in_pieces(data: bytes, at: int) -> None:
    assert crc32c(data[at:], crc32c(data[:at])) == crc32c(data)


@pytest.mark.parametrize("nbytes", [255, 256, 257, 511, 513, 70_001])
def test_lengths_about_a_lane(nbytes: int) -> None:
    data = np.random.default_rng(3).integers(0, 256, nbytes, dtype=np.uint8)
    assert crc32c(data) == bit_by_bit(data.tobytes())


# As TensorFlow wrote it behind an index that holds no tensor: the sum of an empty block.
def test_masked() -> None:
    assert masked(crc32c(bytes([0, 0, 0, 0, 1, 0, 0, 0, 0]))).to_bytes(4, "little") == bytes.fromhex("c0f2a1b0")

"""Casts: rounding to nearest, ties to even, as IEEE 754 says, checked value by value and against ml_dtypes."""

from __future__ import annotations

import math
import struct

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.tensors.casts import DTYPES, FLOATS, numpy_dtype
from converter.tensors.moves import cast


def f32(bits: int) -> np.ndarray:
    return np.array([bits], np.uint32).view(np.float32)


@pytest.mark.parametrize("name", DTYPES)
def test_widths(name: str) -> None:
    dtype = numpy_dtype(name)
    assert dtype.itemsize == DTYPES[name]
    assert dtype.name == name
    assert dtype.byteorder in "=|<"


@pytest.mark.parametrize(
    ("bits", "rounded"),
    [
        (0x3F800000, 0x3F80),  # 1
        (0x3F808000, 0x3F80),  # halfway between two: to the even one, down
        (0x3F818000, 0x3F82),  # halfway between two: to the even one, up
        (0x3F808001, 0x3F81),  # just above halfway
        (0x3F807FFF, 0x3F80),  # just below
        (0x7F7FFFFF, 0x7F80),  # the greatest float32 becomes infinity
        (0x80000000, 0x8000),  # -0 stays -0
        (0x00000001, 0x0000),  # the smallest subnormal
        (0xFF800000, 0xFF80),  # -infinity
    ],
)
def test_bfloat16_bit_by_bit(bits: int, rounded: int) -> None:
    assert cast(f32(bits), "bfloat16").view(np.uint16).tolist() == [rounded]


@pytest.mark.parametrize(
    ("value", "bits"),
    [
        (1.0, 0x3C00),
        (1 + 2**-11, 0x3C00),  # halfway: to even, down
        (1 + 3 * 2**-11, 0x3C02),  # halfway: to even, up
        (65519.0, 0x7BFF),
        (65520.0, 0x7C00),  # halfway to what would be 65536: infinity
        (2.0**-25, 0x0000),
        (-(2.0**-24), 0x8001),
    ],
)
def test_float16_bit_by_bit(value: float, bits: int) -> None:
    assert cast(np.array([value], np.float32), "float16").view(np.uint16).tolist() == [bits]


@given(st.lists(st.floats(width=32), min_size=1, max_size=20))
def test_float16_is_that_of_the_c_library(values: list[float]) -> None:
    """struct's half precision is written apart from NumPy's; it raises on overflow, where a cast gives infinity."""
    for value, found in zip(values, cast(np.array(values, np.float32), "float16").tolist(), strict=True):
        try:
            (expected,) = struct.unpack("<e", struct.pack("<e", value))
        except OverflowError:
            expected = math.copysign(math.inf, value)
        assert found == expected or (math.isnan(found) and math.isnan(expected))


@given(st.lists(st.floats(width=32), min_size=1, max_size=20))
def test_bfloat16_is_that_of_ml_dtypes(values: list[float]) -> None:
    data = np.array(values, np.float32)
    assert cast(data, "bfloat16").tobytes() == data.astype(ml_dtypes.bfloat16).tobytes()


@given(st.lists(st.integers(0, 2**16 - 1), min_size=1, max_size=50))
def test_bfloat16_widens_exactly(bits: list[int]) -> None:
    """The upper half of a float32 is the bfloat16: nothing is rounded."""
    data = np.array(bits, np.uint16)
    wide = cast(data.view(ml_dtypes.bfloat16), "float32")
    expected = (data.astype(np.uint32) << 16).view(np.float32)
    np.testing.assert_array_equal(wide, expected)
    assert (np.signbit(wide) == np.signbit(expected)).all()


@pytest.mark.parametrize("source", FLOATS)
@pytest.mark.parametrize("target", FLOATS)
def test_casts_are_silent_about_odd_values(source: str, target: str) -> None:
    """Overflow, NaNs that signal and subnormals: no warning reaches the user."""
    kind = {8: np.uint64, 4: np.uint32, 2: np.uint16}[DTYPES[source]]
    bits = np.arange(0, 2**16, 7, dtype=np.uint64) << np.uint64(8 * DTYPES[source] - 16) | np.uint64(1)
    assert cast(bits.astype(kind).view(numpy_dtype(source)), target).dtype == numpy_dtype(target)


def test_same_dtype_is_not_touched() -> None:
    data = np.array([0x7FA00001], np.uint32).view(np.float32)
    assert cast(data, "float32") is data

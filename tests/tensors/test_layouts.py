"""Layouts: known values at known positions, and NumPy's own transpose for everything else."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.tensors.layouts import LAYOUTS, SMALL, empty_array, transpose

DTYPES = ["float64", "float32", "float16", "int64", "int8"]
sizes = st.integers(1, 9)


def numbered(*shape: int, dtype: str = "int64") -> Any:
    """Every element is its own position in C order, as far as the dtype reaches."""
    return (np.arange(np.prod(shape, dtype=int)) % 60_000).reshape(shape).astype(dtype)


def test_dense_at_known_positions() -> None:
    pt = numbered(2, 3)  # out = 2, in = 3: element (o, i) is 3 o + i
    tf = LAYOUTS["dense"].from_pt(pt)
    assert tf.tolist() == [[0, 3], [1, 4], [2, 5]]
    assert LAYOUTS["dense"].to_pt(tf).tolist() == [[0, 1, 2], [3, 4, 5]]


def test_conv1d_at_known_positions() -> None:
    pt = numbered(2, 3, 4)  # out, in, k: element (o, i, x) is 12 o + 4 i + x
    tf = LAYOUTS["conv1d"].from_pt(pt)
    assert tf.shape == (4, 3, 2)
    assert tf[1, 0, 0] == 1
    assert tf[0, 1, 0] == 4
    assert tf[0, 0, 1] == 12
    assert tf[3, 2, 1] == 23
    assert LAYOUTS["conv1d"].to_pt(tf).tolist() == pt.tolist()


def test_conv2d_at_known_positions() -> None:
    pt = numbered(2, 3, 4, 5)  # out, in, kh, kw: element (o, i, y, x) is 60 o + 20 i + 5 y + x
    tf = LAYOUTS["conv2d"].from_pt(pt)
    assert tf.shape == (4, 5, 3, 2)
    assert tf[0, 0, 0, 0] == 0
    assert tf[1, 0, 0, 0] == 5
    assert tf[0, 1, 0, 0] == 1
    assert tf[0, 0, 1, 0] == 20
    assert tf[0, 0, 0, 1] == 60
    assert tf[3, 4, 2, 1] == 119
    assert LAYOUTS["conv2d"].to_pt(tf).tolist() == pt.tolist()


def test_scalar_at_known_positions() -> None:
    tf = LAYOUTS["scalar"].from_pt(np.array(3.31))
    assert tf.tolist() == [3.31]
    pt = LAYOUTS["scalar"].to_pt(tf)
    assert pt.shape == ()
    assert pt.item() == 3.31


def test_plain_at_known_positions() -> None:
    pt = numbered(2, 3)
    assert LAYOUTS["plain"].from_pt(pt).tolist() == [[0, 1, 2], [3, 4, 5]]
    assert LAYOUTS["plain"].to_pt(pt).tolist() == [[0, 1, 2], [3, 4, 5]]


@given(sizes, sizes, sizes, sizes, st.sampled_from(DTYPES))
def test_conv2d_is_numpys_transpose(out: int, inner: int, height: int, width: int, dtype: str) -> None:
    pt = numbered(out, inner, height, width, dtype=dtype)
    tf = LAYOUTS["conv2d"].from_pt(pt)
    np.testing.assert_array_equal(tf, pt.transpose(2, 3, 1, 0), strict=True)
    np.testing.assert_array_equal(LAYOUTS["conv2d"].to_pt(tf), pt, strict=True)
    assert tf.flags.c_contiguous
    assert tf.shape == LAYOUTS["conv2d"].shape_from_pt(pt.shape)


@pytest.mark.parametrize("shape", [(130, 7, 10), (97, 3, 9, 5), (3, 70, 8, 7)])
def test_large_kernels_are_numpys_transpose(shape: tuple[int, ...]) -> None:
    """Beyond the size up to which NumPy's own is used."""
    pt = numbered(*shape)
    assert pt.size > SMALL
    layout = LAYOUTS[f"conv{len(shape) - 2}d"]
    np.testing.assert_array_equal(layout.from_pt(pt), pt.transpose(layout.axes), strict=True)
    np.testing.assert_array_equal(layout.to_pt(layout.from_pt(pt)), pt, strict=True)


@given(st.integers(1, 300), st.integers(1, 300), st.sampled_from(DTYPES))
def test_dense_is_numpys_transpose(out: int, inner: int, dtype: str) -> None:
    pt = numbered(out, inner, dtype=dtype)
    tf = LAYOUTS["dense"].from_pt(pt)
    np.testing.assert_array_equal(tf, pt.T, strict=True)
    np.testing.assert_array_equal(LAYOUTS["dense"].to_pt(tf), pt, strict=True)
    assert tf.flags.c_contiguous
    assert tf.shape == LAYOUTS["dense"].shape_from_pt(pt.shape)


@pytest.mark.parametrize(
    "shape", [(383, 127), (384, 128), (385, 129), (770, 300), (1, 9000), (9000, 1), (0, 3), (3, 0)]
)
def test_transpose_at_the_edges_of_its_tiles(shape: tuple[int, int]) -> None:
    matrix = np.random.default_rng(3).standard_normal(shape).astype("float32")
    np.testing.assert_array_equal(transpose(matrix), matrix.T, strict=True)


def test_transpose_takes_a_view() -> None:
    matrix = numbered(40, 30)[::2, 3:]
    np.testing.assert_array_equal(transpose(matrix), matrix.T, strict=True)


def test_transpose_keeps_every_bit_of_a_nan() -> None:
    bits = np.array([[0x7FA00001, 0x7FC00000], [0xFFC12345, 0x80000000], [1, 0xFF800000]], np.uint32)
    assert transpose(bits.view(np.float32)).view(np.uint32).tolist() == bits.T.tolist()


@pytest.mark.parametrize(
    ("name", "pt", "tf"),
    [
        ("plain", (2, 3, 4), (2, 3, 4)),
        ("scalar", (), (1,)),
        ("dense", (2, 3), (3, 2)),
        ("conv1d", (2, 3, 4), (4, 3, 2)),
        ("conv2d", (2, 3, 4, 5), (4, 5, 3, 2)),
    ],
)
def test_shapes(name: str, pt: tuple[int, ...], tf: tuple[int, ...]) -> None:
    assert LAYOUTS[name].shape_from_pt(pt) == tf


def test_every_layout_has_a_position_test() -> None:
    assert sorted(LAYOUTS) == ["conv1d", "conv2d", "dense", "plain", "scalar"]


def test_a_wrong_pair_would_be_found() -> None:
    """A transpose of the wrong axes keeps the shape of a square kernel: positions tell."""
    pt = numbered(3, 3)
    assert LAYOUTS["dense"].from_pt(pt).tolist() != pt.tolist()
    square = numbered(2, 2, 2, 2)
    wrong = square.transpose(3, 2, 1, 0)
    assert wrong.shape == LAYOUTS["conv2d"].from_pt(square).shape
    assert wrong.tolist() != LAYOUTS["conv2d"].from_pt(square).tolist()


@pytest.mark.parametrize("shape", [(), (0, 3), (1,), (7, 5), (300, 301)])
@pytest.mark.parametrize("dtype", ["float64", "float16", ml_dtypes.bfloat16, "bool"])
def test_what_a_framework_may_take_over_is_aligned(shape: tuple[int, ...], dtype: Any) -> None:
    made = [empty_array(shape, dtype) for _ in range(3)]
    for array in made:
        assert (array.shape, array.dtype, array.flags.c_contiguous, array.flags.writeable) == (
            shape,
            np.dtype(dtype),
            True,
            True,
        )
        assert array.size == 0 or array.__array_interface__["data"][0] % 64 == 0
    assert not any(np.shares_memory(one, other) for one in made for other in made if one is not other and one.size)

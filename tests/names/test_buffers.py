"""Values of stored buffers: Swin's index from its definition, position by position."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from converter.errors import ConfigError
from converter.names.buffers import (
    BUFFERS,
    holds,
    position_ids,
    swin_relative_position_index,
    swinv2_relative_coords_table,
    zero_table,
    zeros,
)


def test_swin_index_of_a_window_of_two() -> None:
    """Written down from the paper: rows of a 3 x 3 table, one per offset (dy, dx) from (-1, -1) to (1, 1)."""
    assert swin_relative_position_index({"window_size": 2}).tolist() == [
        [4, 3, 1, 0],
        [5, 4, 2, 1],
        [7, 6, 4, 3],
        [8, 7, 5, 4],
    ]


@pytest.mark.parametrize("window", [1, 3, 7])
def test_swin_index_by_its_definition(window: int) -> None:
    index = swin_relative_position_index({"window_size": window})
    places = list(itertools.product(range(window), repeat=2))
    for row, (y, x) in enumerate(places):
        for column, (v, u) in enumerate(places):
            assert index[row, column] == (y - v + window - 1) * (2 * window - 1) + (x - u + window - 1)


def test_swin_index_tells_rows_from_columns() -> None:
    """A transposed index has the same shape and the same values elsewhere."""
    index = swin_relative_position_index({"window_size": 4})
    assert not np.array_equal(index, index.T)


def test_swin_window_given_as_a_pair() -> None:
    single, pair = (swin_relative_position_index({"window_size": size}) for size in (4, [4, 4]))
    np.testing.assert_array_equal(single, pair, strict=True)


def test_swinv2_table_by_its_definition() -> None:
    """Of a window of 3, 8 times the distance by 2; trained with one of 5 by 9, by 4 and by 8."""
    own = swinv2_relative_coords_table({"window_size": 3, "height": 0, "width": 0})
    assert (own.shape, own.dtype) == ((1, 5, 5, 2), np.float32)
    steps = np.log2([9, 5, 1, 5, 9]) / 3 * [-1, -1, 0, 1, 1]
    np.testing.assert_allclose(own[0, :, 2, 0], steps, atol=1e-7)
    np.testing.assert_allclose(own[0, 4, :, 1], steps, atol=1e-7)
    trained = swinv2_relative_coords_table({"window_size": 3, "height": 5, "width": 9})
    np.testing.assert_allclose(trained[0, 4, 0], [np.log2(5) / 3, -np.log2(3) / 3], atol=1e-7)
    assert not swinv2_relative_coords_table({"window_size": 1, "height": 0, "width": 0}).any()


@pytest.mark.parametrize(
    ("stored", "value", "same"),
    [
        ([1.0, 0.5], [1.001, 0.5], True),  # as bfloat16 has it
        ([1.0, 0.5], [1.01, 0.5], False),
        ([1e-9], [0.0], False),  # a bias that the config denies is no rounding
        ([np.nan], [1.0], False),
        ([1.0], [1.0, 1.0], False),
        ([1, 2], [1, 2], True),
        ([1, 2], [2, 1], False),
    ],
)
def test_what_a_stored_buffer_must_hold(stored: list[float], value: list[float], same: bool) -> None:
    assert holds(np.array(stored), np.array(value)) is same


def test_position_ids() -> None:
    found = position_ids({"length": 5})
    assert (found.tolist(), found.dtype) == ([[0, 1, 2, 3, 4]], np.int64)


def test_zeros() -> None:
    found = zeros({"length": 3})
    assert (found.tolist(), found.dtype) == ([0, 0, 0], np.float32)


def test_zero_table() -> None:
    found = zero_table({"rows": 2, "length": 3})
    assert (found.tolist(), found.dtype) == ([[0, 0, 0]] * 2, np.float32)


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("position_ids", {"length": 2**31 - 1}, "a length asks for a buffer of 2,147,483,647 elements"),
        ("zeros", {"length": 2**31 - 1}, "a length asks for a buffer of 2,147,483,647 elements"),
        ("swin_relative_position_index", {"window_size": 1000}, "window_size asks for a buffer of 1,000,000,000,000"),
        (
            "swinv2_relative_coords_table",
            {"window_size": 9999, "height": 0},
            "window_size asks for a buffer of 799,840,008",
        ),
        ("zero_table", {"rows": 2**20, "length": 2**10}, "a table asks for a buffer of 1,073,741,824 elements"),
    ],
)
def test_no_config_exhausts_memory(name: str, fields: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        BUFFERS[name](fields)
    assert str(caught.value).removesuffix(" elements, more than any model has; correct the config") == (
        f"config.json: {message}".removesuffix(" elements")
    )

"""Relative positions: which row of a learned table belongs to which pair of places."""

from __future__ import annotations

from typing import Any

import numpy as np

Index = np.ndarray[Any, Any]


def grid_index(rows: int, columns: int) -> Index:
    """Row of the table for every pair of cells of a grid: by difference of rows, then of columns.

    Args:
        rows: height of the grid.
        columns: width of the grid.

    Returns:
        ``(rows * columns, rows * columns)`` integers below ``(2 * rows - 1) * (2 * columns - 1)``.
    """
    y, x = (axis.reshape(-1) for axis in np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij"))
    down, across = y[:, None] - y[None, :] + rows - 1, x[:, None] - x[None, :] + columns - 1
    return down * (2 * columns - 1) + across


def grid_index_with_token(rows: int, columns: int) -> Index:
    """``grid_index`` with a class token in front, to which the table's last three rows belong (BEiT).

    Returns:
        ``(1 + rows * columns, 1 + rows * columns)``; from the token to a cell, from a cell to the token, from the
        token to itself, in this order, are the last three rows.
    """
    count = (2 * rows - 1) * (2 * columns - 1)
    index = np.zeros((rows * columns + 1,) * 2, np.int64)
    index[1:, 1:] = grid_index(rows, columns)
    index[0, :], index[:, 0], index[0, 0] = count, count + 1, count + 2
    return index


def distance_buckets(buckets: int = 32, reach: int = 128) -> Index:
    """Bucket of every distance from 0 to ``reach``, for one direction: exact at first, then logarithmic (T5, MPNet).

    Args:
        buckets: number for both directions.
        reach: from here on all distances share the last bucket.

    Returns:
        ``(reach + 1,)`` integers below ``buckets // 2``.
    """
    half = buckets // 2
    exact = half // 2
    steps = half - exact
    distance = [int(place) for place in range(reach + 1)]
    # PyTorch takes exact + int(log(distance / exact) / log(reach / exact) * steps) in float32, and at a border the
    # rounding of the logarithm would decide. The same in integers: (distance / exact) ** steps >= (reach / exact) ** n.
    borders = [reach**n * exact ** (steps - n) for n in range(1, steps)]
    far = [exact + sum(place**steps >= border for border in borders) for place in distance]
    return np.array([place if place < exact else row for place, row in zip(distance, far, strict=True)])

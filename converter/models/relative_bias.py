"""Learned numbers for relative positions of a grid, resized where the grid is another (BEiT, https://arxiv.org/abs/2106.08254)."""

from __future__ import annotations

from typing import Any

from keras import ops

from converter.models.relative import grid_index_with_token
from converter.models.resize import resize

Tensor = Any


def resized_bias(table: Tensor, trained: tuple[int, int], grid: tuple[int, int]) -> Tensor:
    """The term added to the scores of a class token and the cells of a grid.

    Args:
        table: ``(distances + 3, heads)``, the last three rows those of the token, see ``grid_index_with_token``.
        trained: rows and columns of the grid that the table is for.
        grid: rows and columns of the current grid.

    Returns:
        ``(1, heads, 1 + rows * columns, 1 + rows * columns)``.
    """
    rows, columns = (2 * size - 1 for size in trained)
    cells = rows * columns
    # PyTorch takes the width for the height here; it shows where images are not square.
    inner = ops.reshape(table[:cells], (columns, rows, -1))
    inner = resize(inner, 2 * grid[0] - 1, 2 * grid[1] - 1, "bilinear")
    heads = int(inner.shape[-1])
    table = ops.concatenate([ops.reshape(inner, (-1, heads)), table[cells:]], axis=0)
    numbers = ops.take(table, ops.convert_to_tensor(grid_index_with_token(*grid).astype("int32")), axis=0)
    return ops.transpose(numbers, (2, 0, 1))[None]

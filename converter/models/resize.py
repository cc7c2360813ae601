"""Resizing a grid as ``torch.nn.functional.interpolate`` does without antialiasing, as two small matrices.

``keras.ops.image.resize`` computes another bicubic (its constant differs) and cannot be compared with PyTorch.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import keras
import numpy as np
from keras import ops

Tensor = Any
_A = -0.75  # PyTorch's cubic coefficient: aten/src/ATen/native/UpSample.h


def resize(grid: Tensor, rows: int, columns: int, kind: Literal["bicubic", "bilinear"]) -> Tensor:
    """Resizes a grid of vectors.

    Args:
        grid: ``(height, width, channels)``.
        rows: wanted height.
        columns: wanted width.
        kind: interpolation, half-pixel centres, borders clamped.

    Returns:
        ``(rows, columns, channels)``.
    """
    height, width = int(grid.shape[0]), int(grid.shape[1])
    if (height, width) == (rows, columns):
        return grid
    dtype = keras.backend.standardize_dtype(grid.dtype)
    if dtype in ("float16", "bfloat16"):
        grid = ops.cast(grid, "float32")  # half precision shifts what lies between, and PyTorch avoids it too
    down = ops.cast(ops.convert_to_tensor(weights(height, rows, kind)), grid.dtype)
    across = ops.cast(ops.convert_to_tensor(weights(width, columns, kind)), grid.dtype)
    return ops.cast(ops.einsum("rh,hwc,kw->rkc", down, grid, across), dtype)


def weights(size: int, wanted: int, kind: str) -> np.ndarray[Any, Any]:
    """Matrix ``(wanted, size)`` that resizes one axis."""
    matrix = np.zeros((wanted, size))
    for i in range(wanted):
        centre = (i + 0.5) * size / wanted - 0.5
        if kind == "bilinear":
            centre = max(centre, 0.0)
        floor = math.floor(centre)
        part = centre - floor
        taps = (1 - part, part) if kind == "bilinear" else _cubic(part)
        first = floor - (0 if kind == "bilinear" else 1)
        for j, weight in enumerate(taps):
            matrix[i, min(max(first + j, 0), size - 1)] += weight
    return matrix


def _cubic(part: float) -> tuple[float, float, float, float]:
    """Weights of the four neighbours of a point ``part`` behind the second (Keys, 1981)."""

    def near(x: float) -> float:
        return ((_A + 2) * x - (_A + 3)) * x * x + 1

    def far(x: float) -> float:
        return ((_A * x - 5 * _A) * x + 8 * _A) * x - 4 * _A

    return far(part + 1), near(part), near(1 - part), far(2 - part)

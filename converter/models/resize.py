"""Resizing a grid as ``torch.nn.functional.interpolate`` does, with and without antialiasing, as two small matrices.

``keras.ops.image.resize`` computes another bicubic (its constant differs) and cannot be compared with PyTorch.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import keras
import numpy as np
from keras import ops

Tensor = Any
Kind = Literal["bicubic", "bilinear", "antialiased bicubic"]
_A = -0.75  # PyTorch's cubic coefficient: aten/src/ATen/native/UpSample.h
_A_OF_ANTIALIASING = -0.5  # as in PIL: aten/src/ATen/native/cpu/UpSampleKernel.cpp, HelperInterpCubic::aa_filter


def resize(grid: Tensor, rows: int, columns: int, kind: Kind) -> Tensor:
    """Resizes a grid of vectors.

    Args:
        grid: ``(height, width, channels)``.
        rows: wanted height.
        columns: wanted width.
        kind: interpolation, half-pixel centres; borders are clamped, and left out with antialiasing.

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


def weights(size: int, wanted: int, kind: Kind) -> np.ndarray[Any, Any]:
    """Matrix ``(wanted, size)`` that resizes one axis."""
    if kind == "antialiased bicubic":
        return _antialiased(size, wanted)
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


def _antialiased(size: int, wanted: int) -> np.ndarray[Any, Any]:
    """Shrinking, the filter is as much wider as the result is smaller; what would lie outside is left out."""
    scale = size / wanted
    stretch = max(scale, 1.0)
    matrix = np.zeros((wanted, size))
    for i in range(wanted):
        centre = scale * (i + 0.5)
        first = max(int(centre - 2 * stretch + 0.5), 0)
        last = min(int(centre + 2 * stretch + 0.5), size)
        for j in range(first, last):
            matrix[i, j] = _keys(abs(j - centre + 0.5) / stretch, _A_OF_ANTIALIASING)
    matrix /= matrix.sum(axis=1, keepdims=True)
    return matrix


def _cubic(part: float) -> tuple[float, float, float, float]:
    """Weights of the four neighbours of a point ``part`` behind the second."""
    return _keys(part + 1, _A), _keys(part, _A), _keys(1 - part, _A), _keys(2 - part, _A)


def _keys(x: float, a: float) -> float:
    """The cubic of Keys (1981) at a distance ``x`` of at most 2, and 0 beyond."""
    if x < 1:
        return ((a + 2) * x - (a + 3)) * x * x + 1
    return ((a * x - 5 * a) * x + 8 * a) * x - 4 * a if x < 2 else 0.0

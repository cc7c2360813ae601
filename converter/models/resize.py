"""Resizing a grid as ``torch.nn.functional.interpolate`` does, with and without antialiasing, as two small matrices.

``keras.ops.image.resize`` computes another bicubic (its constant differs) and cannot be compared with PyTorch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import keras
import numpy as np
from keras import ops

from converter.models.parts import widened

Tensor = Any
Kind = Literal["bicubic", "bilinear", "antialiased bicubic", "antialiased bilinear"]
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
    grid = widened(grid)  # half precision shifts the values between, and PyTorch avoids it too
    down = ops.cast(ops.convert_to_tensor(weights(height, rows, kind)), grid.dtype)
    across = ops.cast(ops.convert_to_tensor(weights(width, columns, kind)), grid.dtype)
    return ops.cast(ops.einsum("rh,hwc,kw->rkc", down, grid, across), dtype)


def resize_each(grid: Tensor, shapes: Tensor, length: Any) -> Tensor:
    """Resizes one square grid of vectors to the shape of each image, bilinear with antialiasing.

    Shapes are numbers of a graph here, not known when it is made, so the weights are computed and not tabulated.

    Args:
        grid: ``(side, side, channels)``.
        shapes: rows and columns of each image, int32 ``(images, 2)``, all positive.
        length: how many vectors each image has; those behind its last are its first again, as in PyTorch.

    Returns:
        ``(images, length, channels)``, row by row.
    """
    side, dtype = int(grid.shape[0]), keras.backend.standardize_dtype(grid.dtype)
    grid = widened(grid)
    places = ops.expand_dims(ops.arange(length, dtype="int32"), 0)
    rows, columns = shapes[:, :1], shapes[:, 1:]
    places = ops.where(places < rows * columns, places, ops.zeros_like(places))
    row = ops.floor_divide(places, columns)
    down = _triangles(row, rows, side, grid.dtype)
    across = _triangles(places - row * columns, columns, side, grid.dtype)
    # One product: each result is the grid, weighted by what its row and its column weigh.
    both = ops.expand_dims(down, 3) * ops.expand_dims(across, 2)
    both = ops.reshape(both, (-1, length, side * side))
    return ops.cast(ops.matmul(both, ops.reshape(grid, (side * side, -1))), dtype)


def _triangles(index: Tensor, wanted: Tensor, size: int, dtype: Any) -> Tensor:
    """Weights ``(images, length, size)`` of the results ``index`` along an axis of length ``wanted``.

    Source: aten/src/ATen/native/cpu/UpSampleKernel.cpp, HelperInterpLinear::aa_filter.
    """
    scale = ops.expand_dims(size / ops.cast(wanted, dtype), 2)
    centre = (ops.cast(ops.expand_dims(index, 2), dtype) + 0.5) * scale - 0.5
    apart = ops.absolute(ops.arange(size, dtype=dtype) - centre) / ops.maximum(scale, 1.0)
    heights = ops.maximum(1.0 - apart, 0.0)
    return heights / ops.sum(heights, axis=-1, keepdims=True)


def weights(size: int, wanted: int, kind: Kind) -> np.ndarray[Any, Any]:
    """Matrix ``(wanted, size)`` that resizes one axis."""
    if kind == "antialiased bicubic":
        return _antialiased(size, wanted, 2, lambda x: _keys(x, _A_OF_ANTIALIASING))
    if kind == "antialiased bilinear":
        return _antialiased(size, wanted, 1, lambda x: max(1.0 - x, 0.0))
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


def _antialiased(size: int, wanted: int, reach: int, height: Callable[[float], float]) -> np.ndarray[Any, Any]:
    """When shrinking, the filter widens as the result shrinks; positions outside are left out.

    Args:
        size: of the axis.
        wanted: its size afterwards.
        reach: how far the filter goes to either side.
        height: the filter at a distance of at most ``reach``.
    """
    scale = size / wanted
    stretch = max(scale, 1.0)
    matrix = np.zeros((wanted, size))
    for i in range(wanted):
        centre = scale * (i + 0.5)
        first = max(int(centre - reach * stretch + 0.5), 0)
        last = min(int(centre + reach * stretch + 0.5), size)
        for j in range(first, last):
            matrix[i, j] = height(abs(j - centre + 0.5) / stretch)
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

"""The Fourier transform of a text's hidden states, over its tokens and its channels, as products of matrices.

"FNet: Mixing Tokens with Fourier Transforms" (https://arxiv.org/abs/2105.03824), section 3.2; the real part alone counts.
Products, because no runtime of an exported file has a transform over two axes.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from keras import ops

Tensor = Any


def waves(count: Any, dtype: str) -> tuple[Tensor, Tensor]:
    """Cosines and sines of ``2 pi j k / count`` for j and k below ``count``.

    Args:
        count: how many; a number, or a tensor in a graph whose texts have any length.
        dtype: of the result.

    Returns:
        Two of ``(count, count)``.
    """
    if isinstance(count, int):
        places: Any = np.arange(count)
        angles = (2 * math.pi / count) * (places[:, None] * places % count)
        return ops.convert_to_tensor(np.cos(angles), dtype), ops.convert_to_tensor(np.sin(angles), dtype)
    places = ops.arange(count, dtype="int32")
    turns = ops.expand_dims(places, 1) * ops.expand_dims(places, 0) % count
    angles = ops.cast(turns, dtype) * (2 * math.pi / ops.cast(count, dtype))
    return ops.cos(angles), ops.sin(angles)


def real_part(x: Tensor, tokens: tuple[Tensor, Tensor], channels: tuple[Tensor, Tensor]) -> Tensor:
    """The real part of the transform of ``(batch, length, width)`` over its last two axes, of the same shape.

    Args:
        x: in the dtype of the waves.
        tokens: the waves of its length.
        channels: the waves of its width.
    """
    rows = ops.reshape(x, (-1, x.shape[-1]))
    real, imaginary = (ops.reshape(ops.matmul(rows, wave), ops.shape(x)) for wave in channels)
    return ops.matmul(tokens[0], real) - ops.matmul(tokens[1], imaginary)

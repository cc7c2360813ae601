"""Attention in a sliding window (Longformer, https://arxiv.org/abs/2004.05150): a token sees its neighbours on either side.

Queries are cut into chunks as long as the reach. A chunk meets its own keys and those of the two chunks beside it. So
memory grows with length times window, not with the square of the length.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops

from converter.models.masks import lowest
from converter.models.parts import Dropout, in_float32

Tensor = Any


def sliding_attention(
    parts: Any, x: Tensor, keep: Tensor, reach: int, heads: int, drop: Dropout, training: bool = False
) -> tuple[Tensor, Tensor]:
    """Scaled dot-product attention of each token to those at most ``reach`` away, then the dense ``out``.

    Args:
        parts: an object with the dense parts ``query``, ``key``, ``value`` and ``out``.
        x: ``(batch, length, width)``.
        keep: ``(batch, length)``, 1 where a token is, 0 where padding is, which attention ignores on both sides.
        reach: half the window.
        heads: number of heads.
        drop: dropout of the weights.
        training: whether dropout is on.

    Returns:
        The output ``(batch, length, width)`` and the weights after dropout ``(batch, heads, length, 2 * reach + 1)``,
        from ``reach`` places before a token to ``reach`` places behind it.
    """
    batch, length = ops.shape(x)[0], ops.shape(x)[1]
    chunks = (length + reach - 1) // reach
    rest = chunks * reach - length

    def by_head(dense: Any) -> Tensor:
        y = dense(x)
        return ops.reshape(y, (batch, length, heads, y.shape[-1] // heads))

    query, key, value = by_head(parts.query), by_head(parts.key), by_head(parts.value)
    head = query.shape[-1]
    # Chunks are along the batch, so that nothing has more than four axes.
    query = ops.transpose(ops.reshape(padded(query, 0, rest), (-1, reach, heads, head)), (0, 2, 1, 3))
    key, value = (with_neighbours(y, chunks, reach, rest) for y in (key, value))
    keep = ops.expand_dims(ops.cast(keep, query.dtype), (2, 3))
    asks = ops.reshape(padded(keep, 0, rest), (-1, 1, reach, 1))
    answers = ops.reshape(with_neighbours(keep, chunks, reach, rest), (-1, 1, 1, 3 * reach))
    seen = answers * ops.cast(band(reach), query.dtype)
    scores = ops.matmul(query, ops.transpose(key, (0, 2, 3, 1)))
    weights = in_float32(lambda y: softmax_where(y * head**-0.5, seen), scores)
    weights = drop(weights * asks, training)
    mixed = ops.transpose(ops.matmul(weights, ops.transpose(value, (0, 2, 1, 3))), (0, 2, 1, 3))
    mixed = ops.reshape(mixed, (batch, chunks * reach, heads * head))[:, :length]
    return parts.out(mixed), around(weights, reach, batch, chunks)[:, :, :length]


def padded(x: Tensor, before: Any, behind: Any) -> Tensor:
    """``(batch, length, heads, n)`` with zeros before and behind it."""
    batch, _, heads, width = ops.shape(x)
    zeros = [ops.zeros((batch, count, heads, width), dtype=x.dtype) for count in (before, behind)]
    return ops.concatenate([zeros[0], x, zeros[1]], axis=1)


def with_neighbours(x: Tensor, chunks: Any, reach: int, rest: Any) -> Tensor:
    """``(batch, length, heads, n)`` to ``(batch * chunks, 3 * reach, heads, n)``: each chunk between those beside it."""
    _, _, heads, width = x.shape
    x, whole = padded(x, reach, reach + rest), chunks * reach
    beside = [x[:, first : first + whole] for first in (0, reach, 2 * reach)]
    return ops.concatenate([ops.reshape(part, (-1, reach, heads, width)) for part in beside], axis=1)


def band(reach: int) -> np.ndarray[Any, Any]:
    """Which of the ``3 * reach`` keys of its chunk each of ``reach`` queries sees."""
    ahead = np.arange(3 * reach)[None, :] - np.arange(reach)[:, None]
    return (ahead >= 0) & (ahead <= 2 * reach)


def softmax_where(scores: Tensor, seen: Tensor) -> Tensor:
    """The softmax of the scores where ``seen`` is 1."""
    return ops.softmax(scores + (1.0 - ops.cast(seen, scores.dtype)) * lowest(scores.dtype), axis=-1)


def around(weights: Tensor, reach: int, batch: Any, chunks: Any) -> Tensor:
    """Weights ``(batch * chunks, heads, reach, 3 * reach)`` to ``(batch, heads, length, 2 * reach + 1)``: only the band."""
    # Row r starts at r: with one more number to a row it would start a number earlier, so that all rows start at 0.
    rows, heads = ops.shape(weights)[0], weights.shape[1]
    flat = ops.reshape(weights, (rows, heads, 3 * reach * reach))
    flat = ops.concatenate([flat, ops.zeros((rows, heads, reach), dtype=flat.dtype)], axis=-1)
    shifted = ops.reshape(flat, (rows, heads, reach, 3 * reach + 1))[..., : 2 * reach + 1]
    by_chunk = ops.transpose(ops.reshape(shifted, (batch, chunks, heads, reach, 2 * reach + 1)), (0, 2, 1, 3, 4))
    return ops.reshape(by_chunk, (batch, heads, chunks * reach, 2 * reach + 1))

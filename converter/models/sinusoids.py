"""Positions as waves of many lengths ("Attention Is All You Need", https://arxiv.org/abs/1706.03762, section 3.5)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def sinusoids(positions: int, width: int) -> Array:
    """A row for each position: sines, then cosines, as tensor2tensor has them; of an odd width the last number is 0.

    Args:
        positions: how many.
        width: of a row, 4 at least.

    Returns:
        ``(positions, width)``, float32, of angles in float32 as in PyTorch, rounded correctly.
    """
    half = width // 2
    falling = np.arange(half, dtype=np.float32) * np.float32(-math.log(10000) / (half - 1))
    frequencies = np.exp(falling.astype(np.float64)).astype(np.float32)
    angles = (np.arange(positions, dtype=np.float32)[:, None] * frequencies).astype(np.float64)
    rows = np.concatenate([np.sin(angles), np.cos(angles), np.zeros((positions, width % 2))], axis=1)
    return rows.astype(np.float32)

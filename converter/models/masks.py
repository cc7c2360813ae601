"""What is added to the scores of masked positions, and how low that is."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from converter.models.portable import is_portable

Tensor = Any

LOWEST = {"float16": -65504.0, "float64": -1.7976931348623157e308}


def mask_bias(mask: Tensor, dtype: Any) -> Tensor:
    """``(batch, length)`` of 1 and 0 to ``(batch, 1, 1, length)`` of 0 and the lowest finite number of ``dtype``."""
    # Not by indexing with None: LiteRT has no operator for an axis that is new between others.
    keep = ops.expand_dims(ops.cast(mask, dtype), (1, 2))
    return (1.0 - keep) * lowest(dtype)


def lowest(dtype: Any) -> float:
    """The lowest finite number that every float of this width can hold; see ``portable``."""
    name = "float16" if is_portable() else keras.backend.standardize_dtype(dtype)
    return LOWEST.get(name, -3.3895313892515355e38)

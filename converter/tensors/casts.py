"""Which dtypes a checkpoint may hold, how wide they are, and what each container calls them."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

DTYPES: dict[str, int] = {
    "float64": 8,
    "float32": 4,
    "float16": 2,
    "bfloat16": 2,
    "int64": 8,
    "int32": 4,
    "int16": 2,
    "int8": 1,
    "uint64": 8,
    "uint32": 4,
    "uint16": 2,
    "uint8": 1,
    "bool": 1,
}
FLOATS = ("float64", "float32", "float16", "bfloat16")


@functools.cache
def numpy_dtype(name: str) -> np.dtype[Any]:
    """The NumPy dtype, little-endian, of one of ``DTYPES``; bfloat16 is that of ml_dtypes."""
    if name == "bfloat16":
        import ml_dtypes  # 20 ms, and seldom needed

        dtype: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
        return dtype
    return np.dtype(name).newbyteorder("<")

"""Values of the buffers that a checkpoint may hold or leave out: they follow from the config."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from converter.errors import ConfigError
from converter.names.expressions import Value, integer

Array = np.ndarray[Any, Any]
# The largest ESM-2 asks for 5.3 million, BEiT with pictures of 640 by 640 for 2.6, Swin's largest window for one.
MAX_ELEMENTS = 2**23
# Of a number in bfloat16, to which a checkpoint may have been cast as a whole; 0 is 0 in every dtype.
_ROUNDING = 2**-8


def swin_relative_position_index(fields: Mapping[str, Value]) -> Array:
    """Which row of the bias table a pair of positions of a Swin window uses.

    Args:
        fields: with ``window_size``, w.

    Returns:
        ``(w * w, w * w)``, int64: for positions (y, x) and (v, u), row ``(y - v + w - 1) * (2 w - 1) + x - u + w - 1``.

    Source: Liu et al., Swin Transformer (arXiv:2103.14030), section 3.2.
    """
    window = integer("pair(window_size)[0]", fields)
    _check_size("window_size", window**4)
    y, x = np.divmod(np.arange(window * window), window)
    rows = y[:, None] - y[None, :] + window - 1
    columns = x[:, None] - x[None, :] + window - 1
    index: Array = rows * (2 * window - 1) + columns
    return index


def swinv2_relative_coords_table(fields: Mapping[str, Value]) -> Array:
    """The relative place of a pair of positions in a Swin V2 window, log-spaced.

    Args:
        fields: with ``window_size``, w, and ``height`` and ``width`` of the window that a distance of 1 is for; 0 for w.

    Returns:
        ``(1, 2 w - 1, 2 w - 1, 2)``, float32: ``sign(d) log2(1 + 8 |d|) / 3`` of distances d down and across.

    Source: Liu et al., Swin Transformer V2 (arXiv:2111.09883), section 3.3.
    """
    window = integer("window_size", fields)
    _check_size("window_size", 2 * (2 * window) ** 2)
    ends = [integer(f"{side} - 1 if height > 0 else window_size - 1", fields) for side in ("height", "width")]
    distances = [np.arange(1 - window, window) / max(end, 1) for end in ends]
    spaced = [np.sign(d) * np.log2(1 + 8 * np.abs(d)) / 3 for d in distances]
    return np.stack(np.meshgrid(*spaced, indexing="ij"), axis=-1)[None].astype(np.float32)


def beit_relative_position_index(fields: Mapping[str, Value]) -> Array:
    """Which row of the bias table a pair of BEiT's tokens uses; the class token comes first.

    Args:
        fields: with ``image_size`` and ``patch_size``, which give h by w patches.

    Returns:
        ``(1 + h * w, 1 + h * w)``, int64: rows of the table as for Swin, then three for class token to patch, patch to
        class token, and class token to itself.

    Source: Bao et al., BEiT (arXiv:2106.08254), and its published code.
    """
    height = integer("pair(image_size)[0] // pair(patch_size)[0]", fields)
    width = integer("pair(image_size)[1] // pair(patch_size)[1]", fields)
    _check_size("image_size", (1 + height * width) ** 2)
    y, x = np.divmod(np.arange(height * width), width)
    rows = y[:, None] - y[None, :] + height - 1
    columns = x[:, None] - x[None, :] + width - 1
    last = (2 * height - 1) * (2 * width - 1) + 3
    index = np.empty((1 + height * width,) * 2, np.int64)
    index[1:, 1:] = rows * (2 * width - 1) + columns
    index[0, :] = last - 3
    index[:, 0] = last - 2
    index[0, 0] = last - 1
    return index


def position_ids(fields: Mapping[str, Value]) -> Array:
    """Positions 0, 1, 2 ... as early versions of transformers stored them.

    Args:
        fields: with ``length``, how many.

    Returns:
        ``(1, length)``, int64.
    """
    return np.arange(_length(fields))[None, :]


def zeros(fields: Mapping[str, Value]) -> Array:
    """A bias that transformers' TensorFlow class creates although the config has none.

    Args:
        fields: with ``length``.

    Returns:
        ``(length,)``, float32, all zero.
    """
    return np.zeros(_length(fields), np.float32)


def zero_table(fields: Mapping[str, Value]) -> Array:
    """A table that transformers' TensorFlow class creates although the config asks for none.

    Args:
        fields: with ``rows`` and ``length``.

    Returns:
        ``(rows, length)``, float32, all zero.
    """
    rows, length = (integer(name, fields) for name in ("rows", "length"))
    _check_size("a table", rows * length)
    return np.zeros((rows, length), np.float32)


def holds(stored: Array, value: Array) -> bool:
    """Whether a stored buffer is the one that follows from the config; floats up to rounding."""
    if value.dtype.kind == "f" and stored.shape == value.shape:
        return bool(np.all(np.abs(stored.astype(np.float64) - value) <= _ROUNDING * np.abs(value)))
    return np.array_equal(stored, value)


def _length(fields: Mapping[str, Value]) -> int:
    length = integer("length", fields)
    _check_size("a length", length)
    return length


def _check_size(what: str, elements: int) -> None:
    if elements > MAX_ELEMENTS:
        raise ConfigError(
            f"config.json: {what} asks for a buffer of {elements:,} elements, more than any model has; correct the config"
        )


BUFFERS: Mapping[str, Callable[[Mapping[str, Value]], Array]] = {
    "beit_relative_position_index": beit_relative_position_index,
    "position_ids": position_ids,
    "swin_relative_position_index": swin_relative_position_index,
    "swinv2_relative_coords_table": swinv2_relative_coords_table,
    "zero_table": zero_table,
    "zeros": zeros,
}

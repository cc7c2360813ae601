"""Random images as a vision tower takes them: whole, or cut into patches, each image of another shape."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray[Any, Any]]
OF_PATCHES = ("pixel_attention_mask", "spatial_shapes")


def make_images(vision: Mapping[str, Any], count: int, noise: np.random.Generator, size: Any = None) -> Arrays:
    """Images for a tower of this config.

    Args:
        vision: fields of the config.
        count: how many.
        noise: where they come from.
        size: another size than the config's, of whole images.
    """
    channels = vision.get("num_channels", 3)
    if "num_patches" in vision:
        return _cut(vision, channels, count, noise)
    size = size or vision["image_size"]
    height, width = size if isinstance(size, (list, tuple)) else (size, size)
    return {"pixel_values": noise.standard_normal((count, channels, height, width)).astype(np.float32)}


def _cut(vision: Mapping[str, Any], channels: int, count: int, noise: np.random.Generator) -> Arrays:
    """More patches than the table of positions has, so that wide, tall and greater images fit, and the table's own shape."""
    side = math.isqrt(vision["num_patches"])
    length = side * (side + 1)
    shapes = [(side, side), (side + 1, side - 1), (1, side + 2), (length // 2, 2), (side - 1, side + 1), (2, 1), (1, 1)]
    wanted = np.array([shapes[n % len(shapes)] for n in range(count)], np.int64)
    mask = (np.arange(length) < wanted.prod(axis=1, keepdims=True)).astype(np.int64)
    patches = noise.standard_normal((count, length, channels * vision["patch_size"] ** 2)).astype(np.float32)
    return {"pixel_values": patches, "pixel_attention_mask": mask, "spatial_shapes": wanted}

"""Patches that come cut out of images of any shape, each image with positions for its own (https://arxiv.org/abs/2307.06304)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from keras import ops

from converter.errors import ModelError
from converter.models.inputs import seen
from converter.models.parts import CompositeLayer, Dense, Embedding
from converter.models.resize import resize_each

Tensor = Any


class PatchEmbeddings(CompositeLayer):
    """Projects each patch and adds the position that it has in its image.

    The positions are a square table, which is resized to the rows and columns of each image.
    """

    def __init__(self, values: int, positions: int, width: int, names: Mapping[str, str], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.side, self.width = math.isqrt(positions), width
        self.positions = self.part(names["positions"], Embedding(positions, width, std=width**-0.5))
        self.patches = self.part(names["patches"], Dense(values, width, std=values**-0.5))

    def call(self, pixel_values: Tensor, spatial_shapes: Tensor) -> Tensor:
        """``(images, patches, values)`` and the rows and columns ``(images, 2)`` to ``(images, patches, width)``."""
        x = self.patches(pixel_values)
        grid = ops.reshape(ops.convert_to_tensor(self.positions.table), (self.side, self.side, self.width))
        return ops.add(x, resize_each(grid, spatial_shapes, ops.shape(pixel_values)[1]))


def check_shapes(shapes: Tensor, length: int | None) -> None:
    """Refuses shapes without a patch or with too many, if the values are known.

    Raises:
        ModelError: names the first such image.
    """
    found = seen(shapes)
    if found is None or length is None:
        return
    for image, (rows, columns) in enumerate(found.tolist()):
        if rows < 1 or columns < 1 or rows * columns > length:
            raise ModelError(
                f"spatial_shapes[{image}] is {rows} x {columns}; expected at least one row and one column, and at most the "
                f"{length} patches that pixel_values has. Pass what the image processor made of the same images."
            )

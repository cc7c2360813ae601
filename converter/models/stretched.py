"""Positions that are resized to the length of each text, bilinearly, as ``torch.nn.functional.interpolate`` does it."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from converter.models.embeddings import TextEmbeddings, TextSpec
from converter.models.parts import Make, Part, rows_of, widened

Tensor = Any


class StretchedPositions(Part):
    """A table ``(1, 1, rows, width)`` of learned positions."""

    def __init__(self, rows: int, width: int, std: float) -> None:
        super().__init__()
        self.rows, self.width, self.std = rows, width, std
        self.table: Any = None

    def build(self, make: Make) -> None:
        """Creates ``position_embedding (1, 1, rows, width)``."""
        name = "position_embedding"
        self.table = self.weights[name] = make(name, (1, 1, self.rows, self.width), "normal", self.std, autocast=False)

    def __call__(self, length: Any) -> Tensor:
        """Positions ``(1, length, width)``; the length may be a tensor."""
        table = ops.reshape(ops.convert_to_tensor(self.table), (self.rows, self.width))
        return ops.expand_dims(stretched(table, length), 0)


def stretched(table: Tensor, length: Any) -> Tensor:
    """Rows ``(rows, width)`` resized to ``(length, width)``: half-pixel centres, the ends clamped.

    PyTorch takes the centres in the dtype of the table, or in float32 where that is half precision, and so does this.

    Source: aten/src/ATen/native/UpSample.h, area_pixel_compute_source_index.
    """
    rows, dtype = int(table.shape[0]), keras.backend.standardize_dtype(table.dtype)
    if isinstance(length, int) and length == rows:
        return table
    wide = widened(table)
    kind = keras.backend.standardize_dtype(wide.dtype)
    step = ops.cast(rows, kind) / ops.cast(length, kind)
    centres = ops.maximum((ops.cast(ops.arange(length, dtype="int32"), kind) + 0.5) * step - 0.5, 0.0)
    before = ops.minimum(ops.cast(centres, "int32"), rows - 1)
    part = ops.expand_dims(centres - ops.cast(before, kind), 1)
    after = ops.minimum(before + 1, rows - 1)
    return ops.cast(rows_of(wide, before) * (1 - part) + rows_of(wide, after) * part, dtype)


class StretchedEmbeddings(TextEmbeddings):
    """Words plus positions, which are resized to the length of the text."""

    def __init__(self, spec: TextSpec, seeds: Any = None, **kwargs: Any) -> None:
        positions = StretchedPositions(spec.positions, spec.width, spec.width**-0.5)
        super().__init__(spec, seeds, {"positions": positions}, **kwargs)

    def call(
        self, input_ids: Tensor, position_ids: Tensor, token_type_ids: Tensor | None = None, training: bool = False
    ) -> Tensor:
        """Ids ``(batch, length)`` to ``(batch, length, width)``."""
        del position_ids, token_type_ids, training
        x = self.words(input_ids)
        return x + ops.cast(self.positions(ops.shape(input_ids)[1]), x.dtype)

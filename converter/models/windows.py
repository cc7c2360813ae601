"""Attention within windows that shift from block to block (Swin, https://arxiv.org/abs/2103.14030, section 3.2)."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops

from converter.models.blocks import Block, BlockSpec
from converter.models.portable import is_portable
from converter.models.relative import grid_index

Tensor = Any
Size = tuple[int, int]


class WindowBlock(Block):
    """A block whose attention stays within windows of ``window`` by ``window`` patches.

    Its call takes ``x (batch, height * width, width)``, ``size``, height and width in patches, and ``training``. It returns
    hidden states of the same shape, and weights ``(batch * windows, heads, window ** 2, window ** 2)``.
    """

    # Added to scores between regions that the shift brought together.
    shut = -100.0

    def __init__(self, spec: BlockSpec, window: int, shift: int, seeds: Any = None, **kwargs: Any) -> None:
        super().__init__(spec, seeds, **kwargs)
        self.window, self.shift = window, shift

    def shift_of(self, size: Size) -> int:
        """By how much the windows of a grid of this size are shifted."""
        return 0 if min(size) <= self.window else self.shift

    def learned(self) -> Tensor:
        """Terms that relative positions add to the scores, ``(1, heads, window ** 2, window ** 2)``: rows of a table."""
        return self.by_position(self.table.value)

    def by_position(self, table: Tensor) -> Tensor:
        """The row of a table ``((2 window - 1) ** 2, heads)`` for every pair of places, as ``learned`` gives it."""
        index = ops.convert_to_tensor(grid_index(self.window, self.window).astype("int32"))
        return ops.transpose(ops.take(table, index, axis=0), (2, 0, 1))[None]

    def in_windows(self, x: Tensor, size: Size, training: bool) -> tuple[Tensor, Tensor]:
        """Attention of ``x (batch, height * width, width)`` within windows; the grid is padded to whole ones."""
        (height, width), shift = size, self.shift_of(size)
        x = ops.reshape(x, (-1, height, width, self.spec.width))
        down, right = -height % self.window, -width % self.window
        if down or right:
            x = ops.pad(x, ((0, 0), (0, down), (0, right), (0, 0)))
        padded = (height + down, width + right)
        if shift:
            x = rolled(x, shift)
        x, weights = self.attend(self._cut(x, padded), self._bias(padded, shift, x), training)
        x = self._join(self.drop_hidden(x, training), padded)
        if shift:
            x = rolled(x, -shift)
        return ops.reshape(x[:, :height, :width], (-1, height * width, self.spec.width)), weights

    def _cut(self, x: Tensor, size: Size) -> Tensor:
        """``(batch, height, width, channels)`` to ``(batch * windows, window ** 2, channels)``."""
        side, width = self.window, self.spec.width
        x = ops.reshape(x, (-1, side, size[1] // side, side * width))
        return ops.reshape(ops.transpose(x, (0, 2, 1, 3)), (-1, side * side, width))

    def _join(self, x: Tensor, size: Size) -> Tensor:
        """Undoes ``_cut``."""
        side, width = self.window, self.spec.width
        x = ops.reshape(x, (-1, size[1] // side, side, side * width))
        return ops.reshape(ops.transpose(x, (0, 2, 1, 3)), (-1, *size, width))

    def _bias(self, size: Size, shift: int, x: Tensor) -> Tensor:
        """Relative positions, and after a shift ``shut`` between regions: ``(1 or batch * windows, heads, n, n)``."""
        learned = self.learned()
        if not shift:
            return learned
        shut = ops.cast(ops.convert_to_tensor(self._regions(size, shift)), x.dtype)[:, None]
        return ops.add(learned, ops.tile(shut, (ops.shape(x)[0], 1, 1, 1)))

    def _regions(self, size: Size, shift: int) -> np.ndarray[Any, Any]:
        """``(windows, n, n)``: 0 within a region, ``shut`` between two."""
        marks = [np.digitize(np.arange(length), (length - self.window, length - shift)) for length in size]
        region = marks[0][:, None] * 3 + marks[1][None, :]
        rows, columns, side = size[0] // self.window, size[1] // self.window, self.window
        cut = region.reshape(rows, side, columns, side).transpose(0, 2, 1, 3).reshape(-1, side * side)
        return np.where(cut[:, :, None] == cut[:, None, :], 0.0, self.shut)


def rolled(x: Tensor, by: int) -> Tensor:
    """``(batch, height, width, channels)``, whose rows and columns ``by`` come first and those before them last.

    LiteRT has no operator for a roll; slices take twice the time of one.
    """
    if not is_portable():
        return ops.roll(x, (-by, -by), (1, 2))
    x = ops.concatenate([x[:, by:], x[:, :by]], axis=1)
    return ops.concatenate([x[:, :, by:], x[:, :, :by]], axis=2)

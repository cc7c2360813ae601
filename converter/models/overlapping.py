"""Patches of an image that overlap: a convolution whose stride is less than its kernel, over an image with a border of zeros."""

from __future__ import annotations

from typing import Any

from keras import ops

from converter.models.embeddings import Patches

Tensor = Any
Size = tuple[int, int]


class OverlappingPatches(Patches):
    """Kernel ``(height, width, in, out)``, where PyTorch keeps ``(out, in, height, width)``."""

    def __init__(self, channels: int, patch: Size, width: int, stride: Size, border: Size, *, std: float) -> None:
        super().__init__(channels, patch, width, bias=True, std=std)
        self.stride, self.border = stride, border

    def grid_of(self, size: Size) -> Size:
        """Rows and columns of patches of images of this height and width."""
        sizes = zip(size, self.border, self.patch, self.stride, strict=True)
        rows, columns = ((side + 2 * border - patch) // stride + 1 for side, border, patch, stride in sizes)
        return rows, columns

    def __call__(self, pixels: Tensor) -> Tensor:
        """``(batch, channels, height, width)`` to ``(batch, patches, out)``, row by row."""
        rows, columns = self.grid_of((pixels.shape[2], pixels.shape[3]))
        x = ops.pad(ops.transpose(pixels, (0, 2, 3, 1)), ((0, 0), *((side, side) for side in self.border), (0, 0)))
        kernel = ops.convert_to_tensor(self.kernel)
        x = ops.conv(x, kernel, strides=self.stride, padding="valid", data_format="channels_last")
        return ops.add(ops.reshape(x, (ops.shape(pixels)[0], rows * columns, self.width)), self.bias)

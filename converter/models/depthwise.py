"""Convolutions of every channel by itself, channels last ("Xception", https://arxiv.org/abs/1610.02357)."""

from __future__ import annotations

from typing import Any

from keras import ops

from converter.models.parts import Make, Part, as_dtype

Tensor = Any


class Depthwise(Part):
    """Kernel ``(height, width, 1, channels)``, where PyTorch keeps ``(channels, 1, height, width)``; both sides odd."""

    def __init__(self, channels: int, size: tuple[int, int], std: float, *, bias: bool = True) -> None:
        super().__init__()
        self.channels, self.size, self.std, self.has_bias = channels, size, std, bias
        self.kernel: Any = None
        self.bias: Any = None

    def build(self, make: Make) -> None:
        """Creates ``kernel`` and, if there is one, ``bias (channels,)``."""
        self.kernel = self.weights["kernel"] = make("kernel", (*self.size, 1, self.channels), "normal", self.std)
        if self.has_bias:
            self.bias = self.weights["bias"] = make("bias", (self.channels,), "constant", 0.0)

    def __call__(self, x: Tensor) -> Tensor:
        """``(batch, height, width, channels)`` to the same shape."""
        half = self.compute_dtype
        kernel = ops.transpose(as_dtype(ops.convert_to_tensor(self.kernel), half), (0, 1, 3, 2))
        y = ops.depthwise_conv(as_dtype(x, half), kernel, padding="same", data_format="channels_last")
        return y if self.bias is None else ops.add(y, as_dtype(self.bias, half))

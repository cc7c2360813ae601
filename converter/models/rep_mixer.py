"""Blocks that mix tokens by convolutions: RepMixer (FastViT, https://arxiv.org/abs/2303.14189) over texts.

As they are trained, with their branches apart (MobileCLIP, https://arxiv.org/abs/2311.17049).
"""

from __future__ import annotations

from functools import partial
from typing import Any

from keras import ops

from converter.models.activations import activation
from converter.models.batch_norm import BatchNorm, CountingLayer
from converter.models.depthwise import Depthwise
from converter.models.parts import Dense, Make, Raw, as_dtype, in_float32

Tensor = Any


class PointwiseDense(Dense):
    """A dense layer that is a convolution of 1 by 1: kernel ``(1, 1, in, out)``, where PyTorch keeps ``(out, in, 1, 1)``."""

    def build(self, make: Make) -> None:
        """Creates ``kernel (1, 1, in, out)`` and ``bias (out,)``."""
        shape = (1, 1, self.inputs, self.outputs)
        self.kernel = self.weights["kernel"] = make("kernel", shape, "normal", self.std)
        self.bias = self.weights["bias"] = make("bias", (self.outputs,), "constant", 0.0)

    def __call__(self, x: Tensor) -> Tensor:
        """``(..., in)`` to ``(..., out)``."""
        half = self.compute_dtype
        rows = ops.reshape(as_dtype(x, half), (-1, self.inputs))
        y = ops.matmul(rows, ops.reshape(as_dtype(self.kernel, half), (self.inputs, self.outputs)))
        return ops.reshape(ops.add(y, as_dtype(self.bias, half)), (*ops.shape(x)[:-1], self.outputs))


class RepMixer(CountingLayer):
    """Mixes each channel along the text, then the channels of each token; padding takes part, as in PyTorch.

    Args:
        width: channels.
        inner: width between the two dense layers.
        reach: length of the kernels, odd.
        act: name of the activation.
        layer_scale: its initial value.
        std: of new kernels.
    """

    def __init__(
        self, width: int, inner: int, reach: int, act: str, layer_scale: float, std: float, **kwargs: Any
    ) -> None:
        super().__init__(autocast=False, **kwargs)
        self.width = width
        sides = (1, reach)
        self.scale2 = self.part("layer_scale", Raw((width, 1, 1), value=layer_scale))
        self.scale1 = self.part("token_mixer/layer_scale", Raw((width, 1, 1), value=layer_scale))
        self.reference = self.part("token_mixer/reference_batchnorm", BatchNorm(width))
        self.skipped = self.part("token_mixer/mixer/batchnorm_skip", BatchNorm(width))
        self.mixing = self.part("token_mixer/mixer/conv", Depthwise(width, sides, std, bias=False))
        self.mixed = self.part("token_mixer/mixer/batchnorm_conv", BatchNorm(width))
        self.spreading = self.part("conv_feed_forward/depthwise_conv", Depthwise(width, sides, std, bias=False))
        self.spread = self.part("conv_feed_forward/depthwise_batchnorm", BatchNorm(width))
        self.up = self.part("conv_feed_forward/mlp/fc1", PointwiseDense(width, inner, std=std))
        self.down = self.part("conv_feed_forward/mlp/fc2", PointwiseDense(inner, width, std=std))
        self.act = partial(in_float32, activation(act))

    def call(self, x: Tensor, training: bool = False) -> Tensor:
        """``(batch, length, width)`` to the same shape."""
        live = self.counts(training)
        x = ops.expand_dims(x, 1)
        # In mixed precision only convolutions and products are taken in half; sums are float32, as under PyTorch's autocast.
        y = ops.add(self.mixed(self.mixing(x), live), self.skipped(x, live))
        y = ops.subtract(y, self.reference(x, live))
        x = ops.add(x, ops.multiply(y, self.along(self.scale1)))
        y = self.down(self.act(self.up(self.spread(self.spreading(x), live))))
        return ops.squeeze(ops.add(x, ops.multiply(y, self.along(self.scale2))), 1)

    def along(self, scale: Raw) -> Tensor:
        """A layer scale ``(width, 1, 1)`` as ``(width,)``."""
        return ops.reshape(scale.value, (self.width,))

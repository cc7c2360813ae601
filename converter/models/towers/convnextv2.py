"""ConvNeXt V2 (https://arxiv.org/abs/2301.00808): ConvNeXt in which channels compete by global response normalisation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keras import ops

from converter.models.blocks import block_names
from converter.models.conv_stages import ConvBlock, ConvSpec
from converter.models.parts import Raw, in_float32
from converter.models.towers.convnext import ConvNextTower

Tensor = Any

BLOCK = block_names(
    depthwise="dwconv", norm="layernorm", up="pwconv1", gain="grn/weight", offset="grn/bias", down="pwconv2"
)
TINY = 1e-6  # added to the mean of all responses


class ConvNextV2Block(ConvBlock):
    """A block whose inner channels are scaled by their share of the response to the whole image."""

    def __init__(self, spec: ConvSpec, seeds: Any = None, **kwargs: Any) -> None:
        shape = (1, 1, 1, 4 * spec.width)
        super().__init__(spec, seeds, own={"gain": Raw(shape), "offset": Raw(shape)}, **kwargs)

    def inner(self, x: Tensor) -> Tensor:
        """``x + gain * x * share + offset``, where a channel's share is its length over the mean of all channels'."""
        x = self.act(x)

        def responded(x: Tensor) -> Tensor:
            squares = ops.sum(ops.square(x), axis=(1, 2), keepdims=True)
            # A channel without response has a length of 0, whose gradient is 0, not infinite.
            lengths = ops.sqrt(ops.where(ops.equal(squares, 0), ops.ones_like(squares), squares))
            lengths = ops.where(ops.equal(squares, 0), ops.zeros_like(squares), lengths)
            share = lengths / (ops.sum(lengths, axis=-1, keepdims=True) / x.shape[-1] + TINY)
            gain, offset = (ops.cast(ops.convert_to_tensor(part.value), x.dtype) for part in (self.gain, self.offset))
            return gain * (x * share) + offset + x

        return in_float32(responded, x)


class ConvNextV2Tower(ConvNextTower):
    """``convnextv2``."""

    main_layer = "convnextv2"
    block = ConvNextV2Block

    def names(self, config: Any) -> Mapping[str, str]:
        """The block's."""
        del config
        return BLOCK

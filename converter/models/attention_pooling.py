"""Pooling by attention: a learned probe asks all tokens (Set Transformer, https://arxiv.org/abs/1810.00825)."""

from __future__ import annotations

import math
from typing import Any

from keras import ops

from converter.models.activations import activation
from converter.models.blocks import BlockSpec, attention
from converter.models.parts import CompositeLayer, Dense, Dropout, Norm, Raw

Tensor = Any


class AttentionPooling(CompositeLayer):
    """A probe attends to all patches; then an MLP whose residual is the attention's output.

    ``in_proj_weight (3 width, width)`` holds query, key and value one below the other, in PyTorch's layout.
    """

    def __init__(self, block: BlockSpec, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        width, std = block.width, block.spread.query
        self.block = block
        self.probe = self.part("probe", Raw((1, 1, width), std=std))
        self.weight = self.part("attention/in_proj_weight", Raw((3 * width, width), std=std / math.sqrt(2)))
        self.offset = self.part("attention/in_proj_bias", Raw((3 * width,)))
        self.out = self.part("attention/out_proj", Dense(width, width, std=std))
        self.norm = self.part("layernorm", Norm(width, block.eps))
        self.up = self.part("mlp/fc1", Dense(width, block.inner, std=block.spread.up))
        self.down = self.part("mlp/fc2", Dense(block.inner, width, std=block.spread.down))
        self.act = activation(block.act)

    def query(self, x: Tensor) -> Tensor:
        """The first third of the joint projection."""
        return self._third(x, 0)

    def key(self, x: Tensor) -> Tensor:
        """The second third of the joint projection."""
        return self._third(x, 1)

    def value(self, x: Tensor) -> Tensor:
        """The last third of the joint projection."""
        return self._third(x, 2)

    def _third(self, x: Tensor, index: int) -> Tensor:
        rows = slice(index * self.block.width, (index + 1) * self.block.width)
        return ops.matmul(x, ops.transpose(self.weight.value[rows])) + self.offset.value[rows]

    def call(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """``(batch, patches, width)`` to ``(batch, width)``; ``bias`` is added to the scores ``(batch, 1, 1, patches)``."""
        probe = ops.broadcast_to(
            ops.cast(ops.convert_to_tensor(self.probe.value), x.dtype), (ops.shape(x)[0], 1, self.block.width)
        )
        y, _ = attention(self, probe, x, bias, self.block.heads, Dropout(0.0, None))
        return (y + self.down(self.act(self.up(self.norm(y)))))[:, 0]

"""Query, key and value by one product, as checkpoints have them whose weights are kept joint."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from keras import ops

from converter.models.blocks import Block, BlockSpec, attention
from converter.models.parts import Dense, Make, Part, as_dtype

Tensor = Any


class JointDense(Part):
    """Query, key and value of ``torch.nn.MultiheadAttention``: one below the other, in PyTorch's layout."""

    def __init__(self, inputs: int, outputs: int, *, std: float = 0.02) -> None:
        super().__init__()
        self.inputs, self.outputs, self.std = inputs, outputs, std
        self.kernel: Any = None
        self.bias: Any = None

    def build(self, make: Make) -> None:
        """Creates ``in_proj_weight (3 * out, in)`` and ``in_proj_bias (3 * out,)``."""
        shape = (3 * self.outputs, self.inputs)
        self.kernel = self.weights["in_proj_weight"] = make("in_proj_weight", shape, "normal", self.std)
        self.bias = self.weights["in_proj_bias"] = make("in_proj_bias", shape[:1], "constant", 0.0)

    def __call__(self, rows: Tensor) -> Tensor:
        """``(rows, in)`` to ``(rows, 3 * out)``."""
        half = self.compute_dtype
        y = ops.matmul(as_dtype(rows, half), ops.transpose(as_dtype(self.kernel, half)))
        return ops.add(y, as_dtype(self.bias, half))


def in_thirds(block: Any, x: Tensor) -> Any:
    """What ``attention`` asks for ``query``, ``key``, ``value`` and ``out``, the first three taken from one product.

    Args:
        block: with the parts ``qkv``, ``(rows, width)`` to ``(rows, 3 * inside)``, and ``out``.
        x: hidden states ``(batch, length, width)``.
    """
    query, key, value = ops.split(block.qkv(ops.reshape(x, (-1, x.shape[-1]))), 3, axis=-1)
    return SimpleNamespace(query=lambda _: query, key=lambda _: key, value=lambda _: value, out=block.out)


class JointBlock(Block):
    """A block with one part ``qkv`` for query, key and value."""

    def __init__(self, spec: BlockSpec, seeds: Any = None, **kwargs: Any) -> None:
        super().__init__(spec, seeds, {"qkv": self.joint(spec)}, **kwargs)

    def joint(self, spec: BlockSpec) -> Part:
        """The part."""
        inside = (spec.width // spec.heads) * spec.heads
        return Dense(spec.width, 3 * inside, bias="query" not in spec.unbiased, std=spec.spread.query)

    def attend(self, x: Tensor, bias: Tensor | None, training: bool) -> tuple[Tensor, Tensor]:
        """Multi-head attention of ``x`` to itself; returns its output and the weights."""
        return attention(in_thirds(self, x), x, x, bias, self.spec.heads, self.drop_attention, training)

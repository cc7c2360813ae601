"""Root mean square layer normalisation (https://arxiv.org/abs/1910.07467): a layer norm without centre and offset."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import keras
from keras import ops

from converter.models.blocks import Block, BlockSpec
from converter.models.parts import Make, Part, as_dtype, in_float32

Tensor = Any


class RMSNorm(Part):
    """``x / sqrt(mean(x ** 2) + eps) * gamma`` over the last axis."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.width, self.eps = width, eps
        self.gamma: Any = None

    def build(self, make: Make) -> None:
        """Creates ``gamma (width,)``, which mixed precision leaves as it is."""
        self.gamma = self.weights["gamma"] = make("gamma", (self.width,), "constant", 1.0, autocast=False)

    def __call__(self, x: Tensor) -> Tensor:
        """``x`` normalised; half precision in float32 and rounded once."""
        return in_float32(self._normed, x)

    def _normed(self, x: Tensor) -> Tensor:
        # Not ops.mean, which on JAX averages float64 in float32.
        scale = ops.rsqrt(ops.sum(ops.square(x), axis=-1, keepdims=True) / self.width + self.eps)
        return x * scale * as_dtype(self.gamma, keras.backend.standardize_dtype(x.dtype))


class RMSBlock(Block):
    """A block whose two norms are of this kind."""

    def __init__(
        self, spec: BlockSpec, seeds: Any = None, own: Mapping[str, Part] = MappingProxyType({}), **kwargs: Any
    ) -> None:
        norms = {role: RMSNorm(spec.width, spec.eps) for role in ("norm1", "norm2")}
        super().__init__(spec, seeds, {**norms, **own}, **kwargs)

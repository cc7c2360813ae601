"""A norm without statistics ("MobileBERT", https://arxiv.org/abs/2004.02984, section 3.3): it scales and shifts only."""

from __future__ import annotations

from typing import Any

from keras import ops

from converter.models.parts import Make, Part, as_dtype

Tensor = Any


class NoNorm(Part):
    """``x * weight + bias``, in the place of a layer norm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.weight: Any = None
        self.bias: Any = None

    def build(self, make: Make) -> None:
        """Creates ``bias (width,)`` and ``weight (width,)``."""
        self.bias = self.weights["bias"] = make("bias", (self.width,), "constant", 0.0)
        self.weight = self.weights["weight"] = make("weight", (self.width,), "constant", 1.0)

    def __call__(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """``x``, or its sum with ``residual``, scaled and shifted."""
        x = x if residual is None else ops.add(x, residual)
        return x * as_dtype(self.weight, x.dtype) + as_dtype(self.bias, x.dtype)

"""How a tower becomes one vector: the first token through a dense layer, or as the tower's own file says."""

from __future__ import annotations

from typing import Any

from converter.models.activations import activation
from converter.models.parts import CompositeLayer, Dense

Tensor = Any


class FirstToken(CompositeLayer):
    """``act(dense(x[:, 0]))``, BERT's pooler."""

    def __init__(self, width: int, outputs: int, std: float, act: str = "tanh", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dense = self.part("dense", Dense(width, outputs, std=std))
        self.act = activation(act, "pooler_act")

    def call(self, x: Tensor) -> Tensor:
        """``(batch, length, width)`` to ``(batch, outputs)``."""
        return self.act(self.dense(x[:, 0]))

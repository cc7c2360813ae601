"""One more norm after the last block, where the blocks have theirs first (https://arxiv.org/abs/2002.04745)."""

from __future__ import annotations

from typing import Any, ClassVar

from converter.models.parts import Norm
from converter.models.towers.bert import BertTower

Tensor = Any


class LastNorm(BertTower):
    """BERT's frame with a norm between the last block and the pooler."""

    ties_last = True
    # Its path below the main layer.
    last_norm: ClassVar[str]

    def assemble_blocks(self, config: Any) -> None:
        """The blocks, then the norm."""
        super().assemble_blocks(config)
        self.norm = self.part(f"{self.main_layer}/{self.last_norm}", Norm(config.hidden_size, config.layer_norm_eps))

    def after(self, x: Tensor, input_ids: Tensor) -> tuple[Tensor, Tensor | None]:
        """Normalised hidden states and the pooler's view of them."""
        return super().after(self.norm(x), input_ids)

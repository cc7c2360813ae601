"""AltCLIP's text tower (https://arxiv.org/abs/2211.06679): XLM-RoBERTa, a norm, a dense layer; the first position counts."""

from __future__ import annotations

from typing import Any

from converter.models.parts import Dense, Norm
from converter.models.towers.roberta import RobertaTower

Tensor = Any


class AltCLIPTextTower(RobertaTower):
    """``altclip_text_model``."""

    main_layer = "altclip"
    root = "altclip/roberta"
    has_pooler = False

    def assemble(self, config: Any) -> None:
        """RoBERTa's parts, and what comes behind them."""
        super().assemble(config)
        self.transformation = self.part(
            f"{self.main_layer}/transformation",
            Dense(config.hidden_size, config.project_dim, std=config.initializer_range),
        )
        self.norm = self.part(f"{self.main_layer}/pre_LN", Norm(config.hidden_size, config.layer_norm_eps))

    def after(self, x: Tensor, input_ids: Tensor) -> tuple[Tensor, Tensor | None]:
        """Hidden states as wide as the projection takes them, and the first of each text."""
        del input_ids
        x = self.transformation(self.norm(x))
        return x, x[:, 0]

"""Chinese-CLIP's text tower (https://arxiv.org/abs/2211.01335): BERT without a pooler; the first token is projected."""

from __future__ import annotations

from typing import Any

from converter.models.towers.bert import BertTower

Tensor = Any


class ChineseCLIPTextTower(BertTower):
    """``chinese_clip_text_model``."""

    has_pooler = False

    def after(self, x: Tensor, input_ids: Tensor) -> tuple[Tensor, Tensor | None]:
        """Hidden states, and the first of each text."""
        del input_ids
        return x, x[:, 0]

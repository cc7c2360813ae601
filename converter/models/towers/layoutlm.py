"""LayoutLM (https://arxiv.org/abs/1912.13318): BERT that adds the place and size of a word on its page."""

from __future__ import annotations

from typing import Any

from converter.models.embeddings import TextSpec
from converter.models.towers.bert import EMBEDDINGS, BertTower, bert_embeddings, with_firsts

# How often a table is looked up for a box: x is left and right, y is upper and lower.
LOOKED_UP = {"x": 2, "y": 2, "h": 1, "w": 1}


class LayoutLMTower(BertTower):
    """``layoutlm``; every box is 0, 0, 0, 0, as in PyTorch's dual encoder, which takes no ``bbox``."""

    main_layer = "layoutlm"

    def words(self, config: Any) -> TextSpec:
        """BERT's, with the tables of places before the norm."""
        names = with_firsts(EMBEDDINGS, **{axis: f"{axis}_position_embeddings" for axis in LOOKED_UP})
        firsts = {axis: (config.max_2d_position_embeddings, times) for axis, times in LOOKED_UP.items()}
        return bert_embeddings(config, names=names, firsts=firsts)

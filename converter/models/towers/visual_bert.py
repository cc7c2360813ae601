"""VisualBERT (https://arxiv.org/abs/1908.03557): BERT that may read features of pictures behind the words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from converter.models.embeddings import TextEmbeddings, TextSpec
from converter.models.parts import Dense, Embedding, Part
from converter.models.towers.bert import BertTower, bert_embeddings

NAMES = {
    "words": "word_embeddings",
    "positions": "position_embeddings",
    "types": "token_type_embeddings",
    "norm": "LayerNorm",
    "visual_types": "visual_token_type_embeddings",
    "visual_positions": "visual_position_embeddings",
    "visual_map": "visual_projection",
}


@dataclass(frozen=True, kw_only=True)
class VisualSpec(TextSpec):
    """Embeddings beside which those of pictures are kept; ``features`` is the width of the latter."""

    features: int


class VisualEmbeddings(TextEmbeddings):
    """BERT's, and what is kept for the checkpoint's sake: the tables and the map of features of pictures."""

    def __init__(self, spec: VisualSpec, seeds: Any = None, **kwargs: Any) -> None:
        own: dict[str, Part] = {
            "visual_types": Embedding(spec.types or 0, spec.width, std=spec.std),
            "visual_positions": Embedding(spec.positions, spec.width, std=spec.std),
            "visual_map": Dense(spec.features, spec.width, std=spec.std),
        }
        super().__init__(spec, seeds, own, **kwargs)


class VisualBertTower(BertTower):
    """``visual_bert``; no pictures are given here, as in PyTorch's dual encoder, which takes no ``visual_embeds``."""

    main_layer = "visual_bert"
    embedded = VisualEmbeddings

    def words(self, config: Any) -> TextSpec:
        """BERT's, with those of pictures behind them."""
        return VisualSpec(**vars(bert_embeddings(config, names=NAMES)), features=config.visual_embedding_dim)

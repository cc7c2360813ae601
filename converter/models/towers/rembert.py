"""RemBERT (https://arxiv.org/abs/2010.12821): BERT with narrow embeddings, widened before the first block."""

from __future__ import annotations

from typing import Any

from converter.models.embeddings import TextSpec
from converter.models.parts import Dense
from converter.models.towers.bert import BertTower, bert_embeddings

Tensor = Any


class RemBertTower(BertTower):
    """``rembert``."""

    main_layer = "rembert"

    def words(self, config: Any) -> TextSpec:
        """BERT's, with a separate width."""
        return bert_embeddings(config, width=config.input_embedding_size)

    def assemble_encoder(self, config: Any) -> None:
        """The map from the embeddings' width to the blocks', then BERT's encoder."""
        widen = Dense(config.input_embedding_size, config.hidden_size, std=config.initializer_range)
        self.widen = self.part("rembert/encoder/embedding_hidden_mapping_in", widen)
        super().assemble_encoder(config)

    def before(self, x: Tensor) -> Tensor:
        """The map."""
        return self.widen(x)

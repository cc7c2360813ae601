"""ALBERT (https://arxiv.org/abs/1909.11942): BERT with narrow embeddings and a few blocks that serve many times."""

from __future__ import annotations

from typing import Any

from converter.models.activations import tanh
from converter.models.blocks import Block, block_names
from converter.models.embeddings import TextEmbeddings
from converter.models.parts import Dense
from converter.models.text_tower import TextTower
from converter.models.towers.bert import bert_block, bert_embeddings

Tensor = Any

BLOCK = block_names(
    query="attention/query",
    key="attention/key",
    value="attention/value",
    out="attention/dense",
    norm1="attention/LayerNorm",
    up="ffn",
    down="ffn_output",
    norm2="full_layer_layer_norm",
)


class AlbertTower(TextTower):
    """``albert``."""

    main_layer = "albert"

    def assemble(self, config: Any) -> None:
        """Embeddings, the map to the blocks' width, groups of blocks, pooler."""
        width, narrow, std = config.hidden_size, config.embedding_size, config.initializer_range
        spec = bert_embeddings(config, width=narrow)
        block = bert_block(config, names=BLOCK, mlp_dropout=0.0)
        self.embeddings = self.layer("albert/embeddings", TextEmbeddings, spec, self.seeds)
        self.widen = self.part("albert/encoder/embedding_hidden_mapping_in", Dense(narrow, width, std=std))
        path = "albert/encoder/albert_layer_groups_._{}/albert_layers_._{}"
        groups = [
            [self.layer(path.format(i, j), Block, block, self.seeds) for j in range(config.inner_group_num)]
            for i in range(config.num_hidden_groups)
        ]
        per_group = config.num_hidden_layers / config.num_hidden_groups
        self.blocks = [b for i in range(config.num_hidden_layers) for b in groups[int(i / per_group)]]
        if self.add_pooling_layer:
            self.pooler = self.part("albert/pooler", Dense(width, width, std=std))

    def before(self, x: Tensor) -> Tensor:
        """The map from the embeddings' width to the blocks'."""
        return self.widen(x)

    def after(self, x: Tensor, input_ids: Tensor) -> tuple[Tensor, Tensor | None]:
        """The last block's output; the first token through the pooler."""
        del input_ids
        return x, (tanh(self.pooler(x[:, 0])) if self.pooler is not None else None)

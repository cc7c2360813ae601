"""BERT (https://arxiv.org/abs/1810.04805): words, positions and types added up, norm-after blocks, pooler."""

from __future__ import annotations

from typing import Any, ClassVar

from converter.models.blocks import Block, BlockSpec, Spread, block_names
from converter.models.embeddings import TextEmbeddings, TextSpec
from converter.models.pooling import FirstToken
from converter.models.text_tower import TextTower

EMBEDDINGS = {
    "words": "word_embeddings",
    "types": "token_type_embeddings",
    "positions": "position_embeddings",
    "norm": "LayerNorm",
}
BLOCK = block_names(
    query="attention/self/query",
    key="attention/self/key",
    value="attention/self/value",
    out="attention/output/dense",
    norm1="attention/output/LayerNorm",
    up="intermediate/dense",
    down="output/dense",
    norm2="output/LayerNorm",
)


def bert_embeddings(config: Any, **changes: Any) -> TextSpec:
    """The embeddings of BERT and, with changes, of those that follow it."""
    fields: dict[str, Any] = {
        "vocabulary": config.vocab_size,
        "positions": config.max_position_embeddings,
        "types": getattr(config, "type_vocab_size", None),
        "width": config.hidden_size,
        "names": EMBEDDINGS,
        "std": config.initializer_range,
        "eps": config.layer_norm_eps,
        "dropout": config.hidden_dropout_prob,
        "padding": config.pad_token_id,
    }
    return TextSpec(**{**fields, **changes})


def bert_block(config: Any, **changes: Any) -> BlockSpec:
    """The block of BERT and, with changes, of those that follow it."""
    fields: dict[str, Any] = {
        "width": config.hidden_size,
        "heads": config.num_attention_heads,
        "inner": config.intermediate_size,
        "act": config.hidden_act,
        "eps": config.layer_norm_eps,
        "norm_first": False,
        "names": BLOCK,
        "spread": Spread.even(config.initializer_range),
        "attention_dropout": config.attention_probs_dropout_prob,
        "hidden_dropout": config.hidden_dropout_prob,
    }
    return BlockSpec(**{**fields, **changes})


class BertTower(TextTower):
    """``bert``."""

    main_layer = "bert"
    has_pooler: ClassVar[bool] = True

    def assemble(self, config: Any) -> None:
        """Embeddings, blocks, pooler."""
        self.assemble_embeddings(config)
        self.assemble_encoder(config)

    def assemble_embeddings(self, config: Any) -> None:
        """What comes before the first block."""
        self.embeddings = self.layer(f"{self.main_layer}/embeddings", TextEmbeddings, self.words(config), self.seeds)

    def words(self, config: Any) -> TextSpec:
        """The embeddings' shape."""
        return bert_embeddings(config)

    def assemble_encoder(self, config: Any) -> None:
        """Blocks and pooler."""
        root, block, width = self.main_layer, bert_block(config), config.hidden_size
        self.blocks = [
            self.layer(f"{root}/encoder/layer_._{i}", Block, block, self.seeds) for i in range(config.num_hidden_layers)
        ]
        if self.add_pooling_layer and self.has_pooler:
            self.pooler = self.layer(f"{root}/pooler", FirstToken, width, width, config.initializer_range)

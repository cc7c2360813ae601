"""BERT (https://arxiv.org/abs/1810.04805): words, positions and types added up, norm-after blocks, pooler."""

from __future__ import annotations

from collections.abc import Mapping
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
# As some relatives create them.
POSITIONS_FIRST = {role: EMBEDDINGS[role] for role in ("words", "positions", "types", "norm")}
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


def with_firsts(names: Mapping[str, str], **paths: str) -> dict[str, str]:
    """The paths of an embedding with tables whose first row is added, which come before the norm."""
    return {**{role: path for role, path in names.items() if role != "norm"}, **paths, "norm": names["norm"]}


def bert_block(config: Any, **changes: Any) -> BlockSpec:
    """The block of BERT and, with changes, of those that follow it."""
    fields: dict[str, Any] = {
        "width": config.hidden_size,
        "heads": config.num_attention_heads,
        "inner": config.intermediate_size,
        "act": getattr(config, "hidden_act", "gelu"),
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
    # Where the parts of a BERT are, if not right below the main layer.
    root: ClassVar[str] = ""
    # What the list of blocks is called.
    listed: ClassVar[str] = "encoder/layer"
    has_pooler: ClassVar[bool] = True
    # The layer of the embeddings, which takes what ``words`` gives.
    embedded: ClassVar[type[TextEmbeddings]] = TextEmbeddings
    # The layer of one block, with the arguments of ``block``.
    encoder_block: type[Block] = Block

    def assemble(self, config: Any) -> None:
        """Embeddings, blocks, pooler."""
        self.assemble_embeddings(config)
        self.assemble_encoder(config)

    def assemble_embeddings(self, config: Any) -> None:
        """What comes before the first block."""
        self.embeddings = self.layer(
            f"{self.root or self.main_layer}/embeddings", self.embedded, self.words(config), self.seeds
        )

    def words(self, config: Any) -> TextSpec:
        """The embeddings' shape."""
        return bert_embeddings(config)

    def assemble_encoder(self, config: Any) -> None:
        """Blocks and pooler."""
        self.assemble_blocks(config)
        if self.add_pooling_layer and self.has_pooler:
            self.assemble_pooler(config)

    def assemble_pooler(self, config: Any) -> None:
        """The first token through a dense layer."""
        width = config.hidden_size
        self.pooler = self.layer(f"{self.main_layer}/pooler", FirstToken, width, width, config.initializer_range)

    def assemble_blocks(self, config: Any) -> None:
        """The blocks."""
        block = self.block(config)
        self.blocks = [
            self.layer(f"{self.root or self.main_layer}/{self.listed}_._{i}", self.encoder_block, block, self.seeds)
            for i in range(config.num_hidden_layers)
        ]

    def block(self, config: Any) -> BlockSpec:
        """A block's shape."""
        return bert_block(config)

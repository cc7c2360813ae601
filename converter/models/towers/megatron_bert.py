"""Megatron-BERT (https://arxiv.org/abs/1909.08053): BERT with the norms first and one more at the end."""

from __future__ import annotations

from typing import Any

from converter.models.blocks import BlockSpec, block_names
from converter.models.embeddings import TextSpec
from converter.models.towers.bert import bert_block, bert_embeddings
from converter.models.towers.last_norm import LastNorm

EMBEDDINGS = {"words": "word_embeddings", "positions": "position_embeddings", "types": "token_type_embeddings"}
BLOCK = block_names(
    norm1="attention/ln",
    query="attention/self/query",
    key="attention/self/key",
    value="attention/self/value",
    out="attention/output/dense",
    norm2="ln",
    up="intermediate/dense",
    down="output/dense",
)


class MegatronBertTower(LastNorm):
    """``megatron-bert``."""

    main_layer = "megatron_bert"
    last_norm = "encoder/ln"

    def words(self, config: Any) -> TextSpec:
        """BERT's without the norm."""
        return bert_embeddings(config, names=EMBEDDINGS)

    def block(self, config: Any) -> BlockSpec:
        """BERT's with the norms first."""
        return bert_block(config, names=BLOCK, norm_first=True)

"""XLM-RoBERTa-XL (https://arxiv.org/abs/2105.00572): RoBERTa with the norms first and one more at the end."""

from __future__ import annotations

from typing import Any

from converter.models.blocks import BlockSpec, block_names
from converter.models.embeddings import TextSpec
from converter.models.towers.bert import bert_block, bert_embeddings
from converter.models.towers.last_norm import LastNorm
from converter.models.towers.roberta import RobertaTower

EMBEDDINGS = {"words": "word_embeddings", "types": "token_type_embeddings", "positions": "position_embeddings"}
BLOCK = block_names(
    norm1="attention/self_attn_layer_norm",
    query="attention/self/query",
    key="attention/self/key",
    value="attention/self/value",
    out="attention/output/dense",
    norm2="LayerNorm",
    up="intermediate/dense",
    down="output/dense",
)


class XLMRobertaXLTower(LastNorm, RobertaTower):
    """``xlm-roberta-xl``."""

    main_layer = "roberta_xl"
    last_norm = "encoder/LayerNorm"

    def block(self, config: Any) -> BlockSpec:
        """BERT's with the norms first, and no dropout after the MLP."""
        return bert_block(config, names=BLOCK, norm_first=True, mlp_dropout=0.0)

    def words(self, config: Any) -> TextSpec:
        """RoBERTa's without the norm."""
        return bert_embeddings(config, names=EMBEDDINGS, position_padding=config.pad_token_id)

"""RoBERTa with the norms first and one more at the end (https://arxiv.org/abs/1904.01038, fairseq)."""

from __future__ import annotations

from typing import Any

from converter.models.blocks import BlockSpec, block_names
from converter.models.towers.bert import bert_block
from converter.models.towers.last_norm import LastNorm
from converter.models.towers.roberta import RobertaTower

BLOCK = block_names(
    query="attention/self/query",
    key="attention/self/key",
    value="attention/self/value",
    out="attention/output/dense",
    norm1="attention/LayerNorm",
    norm2="intermediate/LayerNorm",
    up="intermediate/dense",
    down="output/dense",
)


class RobertaPreLayerNormTower(LastNorm, RobertaTower):
    """``roberta-prelayernorm``."""

    main_layer = "roberta_prelayernorm"
    last_norm = "LayerNorm"

    def block(self, config: Any) -> BlockSpec:
        """BERT's with the norms first."""
        return bert_block(config, names=BLOCK, norm_first=True)

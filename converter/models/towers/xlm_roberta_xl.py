"""XLM-RoBERTa-XL (https://arxiv.org/abs/2105.00572): RoBERTa with the norms first and one more at the end."""

from __future__ import annotations

from typing import Any

from converter.models.blocks import Block, block_names
from converter.models.embeddings import TextSpec
from converter.models.parts import Norm
from converter.models.pooling import FirstToken
from converter.models.towers.bert import bert_block, bert_embeddings
from converter.models.towers.roberta import RobertaTower

Tensor = Any

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


class XLMRobertaXLTower(RobertaTower):
    """``xlm-roberta-xl``."""

    main_layer = "roberta_xl"
    ties_last = True

    def assemble_encoder(self, config: Any) -> None:
        """Blocks, norm, pooler."""
        root, width = self.main_layer, config.hidden_size
        block = bert_block(config, names=BLOCK, norm_first=True, mlp_dropout=0.0)
        self.blocks = [
            self.layer(f"{root}/encoder/layer_._{i}", Block, block, self.seeds) for i in range(config.num_hidden_layers)
        ]
        self.norm = self.part(f"{root}/encoder/LayerNorm", Norm(width, config.layer_norm_eps))
        if self.add_pooling_layer:
            self.pooler = self.layer(f"{root}/pooler", FirstToken, width, width, config.initializer_range)

    def words(self, config: Any) -> TextSpec:
        """RoBERTa's without the norm."""
        return bert_embeddings(config, names=EMBEDDINGS, position_padding=config.pad_token_id)

    def after(self, x: Tensor, input_ids: Tensor) -> tuple[Tensor, Tensor | None]:
        """Normalised hidden states and the pooler's view of them."""
        return super().after(self.norm(x), input_ids)

"""MPNet (https://arxiv.org/abs/2004.09297): BERT without token types, with relative distances in its scores."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops

from converter.errors import UnsupportedOption
from converter.models.blocks import Block, block_names
from converter.models.embeddings import TextEmbeddings
from converter.models.parts import Embedding
from converter.models.pooling import FirstToken
from converter.models.relative import distance_buckets
from converter.models.text_tower import TextTower
from converter.models.towers.bert import bert_block, bert_embeddings

Tensor = Any

EMBEDDINGS = {"words": "word_embeddings", "positions": "position_embeddings", "norm": "LayerNorm"}
BLOCK = block_names(
    query="attention/attn/q",
    key="attention/attn/k",
    value="attention/attn/v",
    out="attention/attn/o",
    norm1="attention/LayerNorm",
    up="intermediate/dense",
    down="output/dense",
    norm2="output/LayerNorm",
)
PAD = 1  # PyTorch's MPNet does not look at pad_token_id
BUCKETS = 32  # nor at relative_attention_num_buckets, except for the rows of the table


class MPNetTower(TextTower):
    """``mpnet``."""

    main_layer = "mpnet"
    counts_after_padding = True
    type_table = False
    pad = PAD

    def assemble(self, config: Any) -> None:
        """Relative distances, blocks, pooler, embeddings."""
        width, std, block = config.hidden_size, config.initializer_range, bert_block(config, names=BLOCK)
        rows = config.relative_attention_num_buckets
        if rows < BUCKETS:
            raise UnsupportedOption(
                f"text_config.relative_attention_num_buckets is {rows}, supported is {BUCKETS} or more: PyTorch sorts "
                f"distances into {BUCKETS} buckets whatever the config says, so that texts of some length would fail. "
                "Set it to the rows of relative_attention_bias."
            )
        table = Embedding(rows, config.num_attention_heads, std=std)
        self.distances = self.part("mpnet/encoder/relative_attention_bias", table)
        self.blocks = [
            self.layer(f"mpnet/encoder/layer_._{i}", Block, block, self.seeds) for i in range(config.num_hidden_layers)
        ]
        if self.add_pooling_layer:
            self.pooler = self.layer("mpnet/pooler", FirstToken, width, width, std)
        words = bert_embeddings(config, names=EMBEDDINGS, types=None, padding=PAD, position_padding=PAD)
        self.embeddings = self.layer("mpnet/embeddings", TextEmbeddings, words, self.seeds)

    def bias(self, input_ids: Tensor, attention_mask: Tensor | None, dtype: Any) -> Tensor | None:
        """A learned number for each head and bucket of distance, plus the mask."""
        near = distance_buckets(BUCKETS)
        places = ops.arange(ops.shape(input_ids)[1], dtype="int32")
        ahead = ops.expand_dims(places, 0) - ops.expand_dims(places, 1)
        distance = ops.minimum(ops.abs(ahead), len(near) - 1)
        bucket = ops.take(ops.convert_to_tensor(near.astype(np.int32)), distance, axis=0)
        bucket = bucket + ops.cast(ahead > 0, "int32") * int(near.max() + 1)
        learned = ops.transpose(self.distances(bucket), (2, 0, 1))[None]
        masked = super().bias(input_ids, attention_mask, dtype)
        return learned if masked is None else ops.add(learned, masked)

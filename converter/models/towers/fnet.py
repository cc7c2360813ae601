"""FNet (https://arxiv.org/abs/2105.03824): BERT with a Fourier transform in the place of attention; padding counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, ClassVar

import keras
from keras import ops

from converter.models.blocks import Block, BlockSpec, Spread, block_names
from converter.models.embeddings import TextEmbeddings, TextSpec
from converter.models.fourier import real_part, waves
from converter.models.parts import Dense, Dropout, widened
from converter.models.towers.bert import POSITIONS_FIRST, BertTower, bert_embeddings

Tensor = Any

NAMES = block_names(
    norm1="fourier/output/LayerNorm", up="intermediate/dense", down="output/dense", norm2="output/LayerNorm"
)


class MappedEmbeddings(TextEmbeddings):
    """BERT's, through a dense layer."""

    def __init__(self, spec: TextSpec, seeds: Any = None, **kwargs: Any) -> None:
        super().__init__(
            replace(spec, dropout=0.0), None, {"map": Dense(spec.width, spec.width, std=spec.std)}, **kwargs
        )
        self.drop_mapped = Dropout(spec.dropout, seeds)

    def call(
        self, input_ids: Tensor, position_ids: Tensor, token_type_ids: Tensor | None = None, training: bool = False
    ) -> Tensor:
        """Ids ``(batch, length)`` to ``(batch, length, width)``."""
        x = super().call(input_ids, position_ids, token_type_ids, training)
        return self.drop_mapped(ops.cast(self.map(x), x.dtype), training)


class FourierBlock(Block):
    """BERT's, which mixes tokens by a Fourier transform; what it is given as ``bias`` are the waves of tokens and channels."""

    ends: ClassVar[Mapping[str, str]] = MappingProxyType({"mlp_output": "down"})

    def attend(self, x: Tensor, bias: Any, training: bool) -> tuple[Tensor, None]:
        """Every token and channel of ``x`` mixed."""
        del training
        tokens, channels = bias
        return ops.cast(real_part(widened(x), tokens, channels), x.dtype), None


class FNetTower(BertTower):
    """``fnet``; it takes a mask as PyTorch's does, which looks at none."""

    main_layer = "fnet"
    embedded = MappedEmbeddings
    encoder_block = FourierBlock

    def words(self, config: Any) -> TextSpec:
        """BERT's, with the dense layer behind the norm."""
        return bert_embeddings(config, names={**POSITIONS_FIRST, "map": "projection"})

    def block(self, config: Any) -> BlockSpec:
        """BERT's, without dropout behind the transform."""
        return BlockSpec(
            width=config.hidden_size,
            heads=1,
            inner=config.intermediate_size,
            act=config.hidden_act,
            eps=config.layer_norm_eps,
            norm_first=False,
            names=NAMES,
            spread=Spread.even(config.initializer_range),
            mlp_dropout=config.hidden_dropout_prob,
        )

    def bias(self, input_ids: Tensor, attention_mask: Tensor | None, dtype: Any) -> Any:
        """Not a bias: the waves that mix tokens, and those that mix channels."""
        del attention_mask
        dtype = "float64" if keras.backend.standardize_dtype(dtype) == "float64" else "float32"
        return waves(ops.shape(input_ids)[1], dtype), waves(int(self.config.hidden_size), dtype)

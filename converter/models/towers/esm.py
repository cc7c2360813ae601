"""ESM (ESM-2, https://doi.org/10.1126/science.ade2574): BERT of proteins, norm-first, its positions rotary or learned."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from converter.errors import UnsupportedOption
from converter.models.blocks import QKV, Block, BlockSpec, block_names
from converter.models.embeddings import TextEmbeddings, TextSpec
from converter.models.parts import Dense, Embedding
from converter.models.rotary import Frequencies, TurnedBlock
from converter.models.towers.bert import BLOCK, bert_block, bert_embeddings
from converter.models.towers.last_norm import LastNorm
from converter.models.towers.roberta import check_pad

Tensor = Any

NAMES = block_names(
    **{role: BLOCK[role] for role in QKV},
    out="attention/output/dense",
    norm1="attention/LayerNorm",
    up="intermediate/dense",
    down="output/dense",
    norm2="LayerNorm",
)
FREQUENCIES = "attention/self/rotary_embeddings/inv_freq"
KEPT = 1 - 0.15 * 0.8  # how many tokens were not masked in training


class EsmEmbeddings(TextEmbeddings):
    """Words, maybe positions and a norm; 0 where padding is. Texts with ``mask_token`` are scaled as by dropout."""

    def __init__(self, spec: TextSpec, mask_token: int | None, seeds: Any = None, **kwargs: Any) -> None:
        words = Embedding(spec.vocabulary, spec.width, std=spec.std, padding=spec.padding)
        super().__init__(spec, seeds, {"words": words}, **kwargs)
        self.mask_token = mask_token

    def call(
        self, input_ids: Tensor, position_ids: Tensor, attention_mask: Tensor | None = None, training: bool = False
    ) -> Tensor:
        """Ids ``(batch, length)`` to ``(batch, length, width)``."""
        del training
        x = self.words(input_ids)
        if self.mask_token is not None:
            x = self.without_masked(x, input_ids, attention_mask)
        if "positions" in self.spec.names:
            x = x + self.positions(position_ids)
        if "norm" in self.spec.names:
            x = self.norm(x)
        return x if attention_mask is None else x * ops.expand_dims(ops.cast(attention_mask, x.dtype), -1)

    def without_masked(self, x: Tensor, input_ids: Tensor, attention_mask: Tensor | None) -> Tensor:
        """Masked tokens dropped, the others scaled to what training had; the share is float32 in every dtype."""
        masked = ops.equal(input_ids, self.mask_token)
        tokens = ops.shape(input_ids)[1] if attention_mask is None else ops.sum(attention_mask, axis=1)
        share = ops.sum(ops.cast(masked, "float32"), axis=1) / ops.cast(tokens, "float32")
        x = ops.where(ops.expand_dims(masked, -1), ops.zeros_like(x), x) * KEPT
        return x / ops.cast(ops.reshape(1 - share, (-1, 1, 1)), x.dtype)


class EsmTower(LastNorm):
    """``esm``; the head that predicts contacts belongs to the checkpoint, and no dual encoder asks it."""

    main_layer = "esm"
    last_norm = "encoder/emb_layer_norm_after"
    type_table = False

    def assemble(self, config: Any) -> None:
        """BERT's parts and the head.

        Raises:
            UnsupportedOption: PyTorch could not run with such a config.
        """
        check_pad(config)
        width, heads = config.hidden_size, config.num_attention_heads
        self.rotary = config.position_embedding_type == "rotary"
        self.counts_after_padding = not self.rotary
        if width % heads or (self.rotary and width // heads % 2):
            raise UnsupportedOption(
                f"text_config.hidden_size is {width}, supported is a multiple of num_attention_heads, {heads}"
                f"{', and of twice that for rotary positions' if self.rotary else ''}. Correct the config."
            )
        if config.token_dropout and not isinstance(config.mask_token_id, int):
            raise UnsupportedOption(
                f"text_config.mask_token_id is {config.mask_token_id}, supported with token_dropout is an integer. Set it to "
                "the tokenizer's."
            )
        self.encoder_block = TurnedBlock if self.rotary else Block
        super().assemble(config)
        self.contacts = self.part("esm/contact_head/regression", Dense(config.num_hidden_layers * heads, 1))
        base = getattr(config, "rope_theta", 10000.0)
        self.frequencies = [
            self.part(f"esm/encoder/layer_._{i}/{FREQUENCIES}", Frequencies(width // heads, base))
            for i in range(config.num_hidden_layers if self.rotary else 0)
        ]

    def assemble_embeddings(self, config: Any) -> None:
        """Words, and what the config asks for."""
        names = {"words": "word_embeddings"}
        names |= {} if self.rotary else {"positions": "position_embeddings"}
        names |= {"norm": "layer_norm"} if config.emb_layer_norm_before else {}
        spec = bert_embeddings(config, names=names, dropout=0.0, position_padding=config.pad_token_id)
        mask_token = config.mask_token_id if config.token_dropout else None
        self.embeddings = self.layer("esm/embeddings", EsmEmbeddings, spec, mask_token)

    def block(self, config: Any) -> BlockSpec:
        """BERT's with the norms first, and an activation that no field changes."""
        return bert_block(config, names=NAMES, norm_first=True)

    def embed(self, input_ids: Tensor, position_ids: Tensor, *beside: Any) -> Tensor:
        """Words and what is added to them; padding is 0."""
        _, attention_mask, training = beside
        return self.embeddings(input_ids, position_ids, attention_mask, training=training)

    def beside(self, input_ids: Tensor, attention_mask: Tensor | None, position_ids: Tensor, dtype: Any) -> Any:
        """The mask's bias; with rotary positions for each block by how much tokens are turned, and the bias."""
        mask = self.bias(input_ids, attention_mask, dtype)
        if not self.rotary:
            return mask
        return [(each.turn(position_ids, keras.backend.standardize_dtype(dtype)), mask) for each in self.frequencies]

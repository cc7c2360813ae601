"""The text tower of TIPSv2 (TIPS, https://arxiv.org/abs/2410.16512): norm-first, positions as waves, the mean of its tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from keras import ops

from converter.errors import UnsupportedOption
from converter.models.blocks import BlockSpec, Spread, block_names
from converter.models.embeddings import TextSpec
from converter.models.joint import JointBlock, JointDense
from converter.models.parts import Embedding, Norm, Part, in_float32, rows_of
from converter.models.sinusoids import sinusoids
from converter.models.text_tower import TextTower

Tensor = Any

NAMES = block_names(qkv="attn", out="attn/out_proj", norm1="ln_1", up="mlp/c_fc", down="mlp/c_proj", norm2="ln_2")


class JointFirstBlock(JointBlock):
    """A block whose joint weights are those of ``torch.nn.MultiheadAttention``."""

    def joint(self, spec: BlockSpec) -> Part:
        """The part."""
        return JointDense(spec.width, spec.width, std=spec.spread.query)


@dataclass
class Words:
    """What other towers have as embeddings: the table of words, which is all that a checkpoint has of them here."""

    words: Embedding
    spec: TextSpec

    @property
    def weight(self) -> Any:
        """The table ``(vocabulary, width)``."""
        return self.words.table


class Tipsv2TextTower(TextTower):
    """``tipsv2_text_model``."""

    main_layer = "tipsv2"
    type_table = False

    def assemble(self, config: Any) -> None:
        """Words, blocks, norm.

        Raises:
            UnsupportedOption: rows of positions have no width.
        """
        width, std, eps = config.hidden_size, config.initializer_range, config.layer_norm_eps
        if width < 4:
            raise UnsupportedOption(f"text_config.hidden_size is {width}, expected 4 or more. Correct the config.")
        words = Embedding(config.vocab_size, width, std=std)
        spec = TextSpec(config.vocab_size, config.max_position_embeddings, None, width, {}, std, eps)
        self.embeddings = Words(self.part("tipsv2/token_embedding", words), spec)
        block = BlockSpec(
            width=width,
            heads=config.num_attention_heads,
            inner=config.intermediate_size,
            act=config.hidden_act,
            eps=eps,
            norm_first=True,
            names=NAMES,
            spread=Spread.even(std),
            attention_dropout=config.attention_dropout,
        )
        self.blocks = [
            self.layer(f"tipsv2/transformer/resblocks_._{i}", JointFirstBlock, block, self.seeds)
            for i in range(config.num_hidden_layers)
        ]
        self.norm = self.part("tipsv2/ln_final", Norm(width, eps))

    def embed(self, input_ids: Tensor, position_ids: Tensor, *beside: Any) -> Tensor:
        """Words, scaled, plus waves."""
        del beside
        config, words = self.config, self.embeddings.words(input_ids)
        table = sinusoids(config.max_position_embeddings, config.hidden_size)
        waves = rows_of(ops.convert_to_tensor(table, words.dtype), position_ids)
        return words * (config.hidden_size**0.5 if config.scale_sqrt_depth else 1.0) + waves

    def finish(self, x: Tensor, input_ids: Tensor, attention_mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Normalised hidden states, and their mean where the mask is 1."""
        del input_ids
        last = self.norm(x)
        return last, in_float32(lambda x: self.mean(x, attention_mask), last)

    def mean(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """``(batch, length, width)`` to ``(batch, width)``."""
        if mask is None:
            return ops.sum(x, axis=1) / ops.cast(ops.shape(x)[1], x.dtype)
        summed = ops.sum(x * ops.expand_dims(ops.cast(mask, x.dtype), -1), axis=1)
        # In float32 as in PyTorch whatever the model is in: there the sum of a mask of integers is one.
        count = ops.sum(ops.cast(mask, "float32"), axis=1, keepdims=True) + self.config.pooling_epsilon
        return summed / ops.cast(count, x.dtype)

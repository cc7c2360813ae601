"""LiLT (https://arxiv.org/abs/2202.13669): RoBERTa beside a narrow encoder of places on a page, with whose scores it attends."""

from __future__ import annotations

from typing import Any

from keras import ops

from converter.errors import UnsupportedOption
from converter.models.blocks import QKV, BlockSpec, block_names
from converter.models.double_blocks import LAYOUT_MLP, LAYOUT_OUT, LAYOUT_QKV, DoubleBlock, DoubleSpec
from converter.models.parts import CompositeLayer, Dense, Dropout, Embedding, Norm
from converter.models.towers.bert import BLOCK, bert_block
from converter.models.towers.roberta import RobertaInOrder

Tensor = Any

# What a place has, and how often each table is looked up: x is left and right, y is upper and lower.
LOOKED_UP = ("x", "y", "x", "y", "h", "w")


class PlaceEmbeddings(CompositeLayer):
    """Of each token the place 0, 0, 0, 0, since PyTorch's dual encoder takes no ``bbox``, and its position."""

    def __init__(self, config: Any, seeds: Any = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        width, std = config.hidden_size, config.initializer_range
        narrow = width // config.channel_shrink_ratio
        self.axes = {
            axis: self.part(
                f"{axis}_position_embeddings", Embedding(config.max_2d_position_embeddings, width // 6, std=std)
            )
            for axis in dict.fromkeys(LOOKED_UP)
        }
        positions = Embedding(config.max_position_embeddings, narrow, std=std, padding=config.pad_token_id)
        self.positions = self.part("box_position_embeddings", positions)
        self.map = self.part("box_linear_embeddings", Dense(width, narrow, std=std))
        self.norm = self.part("LayerNorm", Norm(narrow, config.layer_norm_eps))
        self.drop = Dropout(config.hidden_dropout_prob, seeds)

    def call(self, position_ids: Tensor, training: bool = False) -> Tensor:
        """Ids ``(batch, length)`` to ``(batch, length, narrow)``."""
        place = self.map(ops.concatenate([self.axes[axis].table[0] for axis in LOOKED_UP])[None])
        x = self.positions(position_ids)
        return self.drop(self.norm(x + ops.cast(place, x.dtype)), training)


class LiltTower(RobertaInOrder):
    """``lilt``."""

    main_layer = "lilt"
    encoder_block = DoubleBlock

    def assemble_embeddings(self, config: Any) -> None:
        """RoBERTa's, and those of places.

        Raises:
            UnsupportedOption: PyTorch could not run with these widths.
        """
        width, heads, ratio = config.hidden_size, config.num_attention_heads, config.channel_shrink_ratio
        if width % 6 or width // heads % ratio:
            raise UnsupportedOption(
                f"text_config.hidden_size is {width}, supported is a multiple of 6, of which each of the {heads} heads has a "
                f"multiple of channel_shrink_ratio, {ratio}: PyTorch cannot run others. Correct the config."
            )
        super().assemble_embeddings(config)
        self.places = self.layer("lilt/layout_embeddings", PlaceEmbeddings, config, self.seeds)

    def block(self, config: Any) -> BlockSpec:
        """BERT's, with the narrow one."""
        head = {role: BLOCK[role] for role in QKV} | LAYOUT_QKV
        middle = {role: BLOCK[role] for role in ("out", "norm1")} | LAYOUT_OUT
        names = block_names(**head, **middle, **{role: BLOCK[role] for role in ("up", "down", "norm2")}, **LAYOUT_MLP)
        narrow, inner = (size // config.channel_shrink_ratio for size in (config.hidden_size, config.intermediate_size))
        return DoubleSpec(**vars(bert_block(config, names=names)), narrow=narrow, narrow_inner=inner)

    def embed(self, input_ids: Tensor, position_ids: Tensor, *beside: Any) -> Tensor:
        """Words and places side by side."""
        words = super().embed(input_ids, position_ids, *beside)
        places = self.places(position_ids, training=beside[-1])
        places = ops.broadcast_to(places, (*ops.shape(words)[:2], places.shape[-1]))
        return ops.concatenate([words, places], axis=-1)

    def encode(self, x: Tensor, *args: Any) -> tuple[Tensor, dict[str, Any]]:
        """The blocks; their hidden states are the words' alone."""
        width = self.config.hidden_size
        x, taps = super().encode(x, *args)
        states = taps["hidden_states"]
        return x[:, :, :width], {**taps, "hidden_states": states and tuple(state[:, :, :width] for state in states)}

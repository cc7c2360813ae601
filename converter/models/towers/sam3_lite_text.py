"""The text tower of SAM3-LiteText (https://arxiv.org/abs/2602.12173): MobileCLIP's, with convolutions at either end."""

from __future__ import annotations

from typing import Any

from keras import ops

from converter.errors import UnsupportedOption
from converter.models.blocks import Block, BlockSpec, Spread, block_names
from converter.models.embeddings import TextSpec
from converter.models.parts import Dense, Norm
from converter.models.rep_mixer import RepMixer
from converter.models.stretched import StretchedEmbeddings
from converter.models.text_tower import TextTower

Tensor = Any

NAMES = block_names(
    norm1="layer_norm1",
    key="self_attn/k_proj",
    value="self_attn/v_proj",
    query="self_attn/q_proj",
    out="self_attn/out_proj",
    norm2="layer_norm2",
    up="mlp/fc1",
    down="mlp/fc2",
)
STD = 0.02


class Sam3LiteTextTower(TextTower):
    """``sam3_lite_text_text_model``; pooled at the greatest id, projected. It looks at no ``position_ids``, as in PyTorch."""

    main_layer = "sam3_lite_text"
    type_table = False
    ties_last = True

    def assemble(self, config: Any) -> None:
        """Embeddings, mixers around blocks, norm, projection.

        Raises:
            UnsupportedOption: mixers have nothing between them, or kernels have no middle.
        """
        root, width = "sam3_lite_text", config.hidden_size
        count, reach = config.num_hidden_layers, config.repmixer_kernel_size
        mixes = config.use_repmixer_blocks
        if mixes and count < 3:
            raise UnsupportedOption(
                f"text_config.num_hidden_layers is {count}, supported is 3 or more with use_repmixer_blocks: PyTorch gives no "
                "hidden states of a tower without attention. Correct the config."
            )
        if mixes and reach % 2 == 0:
            raise UnsupportedOption(
                f"text_config.repmixer_kernel_size is {reach}, supported is an odd number: PyTorch cannot add up what an even "
                "one gives. Correct the config."
            )
        if config.projection_dim != width:
            raise UnsupportedOption(
                f"text_config.projection_dim is {config.projection_dim}, supported is {width}: PyTorch's dual encoder projects "
                "what is as wide as the hidden states. Set it to hidden_size."
            )
        words = TextSpec(
            vocabulary=config.vocab_size,
            positions=config.max_position_embeddings,
            types=None,
            width=width,
            names={"words": "token_embedding", "positions": "position_embedding"},
            std=STD,
            eps=config.layer_norm_eps,
        )
        block = BlockSpec(
            width=width,
            heads=config.num_attention_heads,
            inner=config.intermediate_size,
            act=config.hidden_act,
            eps=config.layer_norm_eps,
            norm_first=True,
            names=NAMES,
            spread=Spread.even(STD),
            attention_dropout=config.attention_dropout,
        )
        mixer = (width, block.inner, reach, block.act, config.layer_scale_init_value, STD)
        self.embeddings = self.layer(f"{root}/embeddings", StretchedEmbeddings, words)
        self.mixers: list[Any] = []
        for i in range(count):
            if mixes and i in (0, count - 1):
                self.mixers.append(self.layer(f"{root}/layers_._{i}", RepMixer, *mixer))
            else:
                self.blocks.append(self.layer(f"{root}/layers_._{i}", Block, block, self.seeds))
        self.norm = self.part(f"{root}/final_layer_norm", Norm(width, config.layer_norm_eps))
        self.projection = self.part(
            f"{root}/projection", Dense(width, config.projection_dim, bias=False, std=width**-0.5)
        )

    def check_length(self, input_ids: Tensor) -> None:
        """Texts may have any length."""

    def encode(
        self,
        x: Tensor,
        bias: Any,
        output_attentions: bool | None,
        output_hidden_states: bool | None,
        training: bool,
    ) -> tuple[Tensor, dict[str, Any]]:
        """Runs mixers and blocks; hidden states and weights are those of the blocks, as PyTorch gives them out."""
        first, last = self.mixers or (None, None)
        x = x if first is None else first(x, training=training)
        x, taps = super().encode(x, bias, output_attentions, output_hidden_states, training)
        return x if last is None else last(x, training=training), taps

    def after(self, x: Tensor, input_ids: Tensor) -> tuple[Tensor, Tensor | None]:
        """Normalised hidden states, and the first with the greatest id of its text, projected."""
        x = self.norm(x)
        place = ops.cast(ops.argmax(input_ids, axis=-1), "int32")
        return x, self.projection(ops.squeeze(ops.take_along_axis(x, ops.expand_dims(place, (1, 2)), axis=1), 1))

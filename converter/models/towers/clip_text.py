"""CLIP's text tower: causal, norm-first, pooled at the end-of-text token (arXiv 2103.00020)."""

from __future__ import annotations

from typing import Any

from keras import ops

from converter.errors import UnsupportedOption
from converter.models.blocks import Block
from converter.models.embeddings import TextEmbeddings, TextSpec
from converter.models.masks import lowest
from converter.models.parts import Norm
from converter.models.text_tower import TextTower
from converter.models.towers.clip_vision import clip_block

Tensor = Any

EMBEDDINGS = {"words": "token_embedding", "positions": "position_embedding"}


class CLIPTextTower(TextTower):
    """``clip_text_model``."""

    main_layer = "clip"
    type_table = False

    def assemble(self, config: Any) -> None:
        """Embeddings, blocks, norm."""
        if not isinstance(config.eos_token_id, int):
            raise UnsupportedOption(
                f"text_config.eos_token_id is {config.eos_token_id}, supported is one integer: "
                "the text is pooled there. Set it to the tokenizer's."
            )
        words = TextSpec(
            vocabulary=config.vocab_size,
            positions=config.max_position_embeddings,
            types=None,
            width=config.hidden_size,
            names=EMBEDDINGS,
            std=0.02 * config.initializer_factor,
            eps=config.layer_norm_eps,
        )
        root, block = "clip/text_model", clip_block(config)
        self.embeddings = self.layer(f"{root}/embeddings", TextEmbeddings, words)
        self.blocks = [
            self.layer(f"{root}/encoder/layers_._{i}", Block, block, self.seeds)
            for i in range(config.num_hidden_layers)
        ]
        self.norm = self.part(f"{root}/final_layer_norm", Norm(config.hidden_size, config.layer_norm_eps))

    def bias(self, input_ids: Tensor, attention_mask: Tensor | None, dtype: Any) -> Tensor | None:
        """Each token sees itself and earlier tokens, except padding."""
        places = ops.arange(ops.shape(input_ids)[1], dtype="int32")
        visible = ops.expand_dims(ops.expand_dims(places, 0) <= ops.expand_dims(places, 1), (0, 1))
        if attention_mask is not None:
            visible = ops.logical_and(visible, ops.expand_dims(ops.cast(attention_mask, "bool"), (1, 2)))
        return (1.0 - ops.cast(visible, dtype)) * lowest(dtype)

    def ends(self, input_ids: Tensor) -> Tensor:
        """Greatest at the end of each text.

        ``eos_token_id`` 2 is a mistake in old configs: there the highest id is the end of the text.
        """
        eos = self.config.eos_token_id
        return input_ids if eos == 2 else ops.cast(ops.equal(input_ids, eos), "int32")

    def after(self, x: Tensor, input_ids: Tensor) -> tuple[Tensor, Tensor | None]:
        """Normalised hidden states, and the one at the end-of-text token; the first of a text without any, as in PyTorch."""
        x = self.norm(x)
        place = ops.cast(ops.argmax(self.ends(input_ids), axis=-1), "int32")
        return x, ops.squeeze(ops.take_along_axis(x, ops.expand_dims(place, (1, 2)), axis=1), 1)

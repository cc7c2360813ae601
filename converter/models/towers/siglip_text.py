"""SigLIP's text tower (https://arxiv.org/abs/2303.15343): CLIP's without the causal mask, pooled at the last position."""

from __future__ import annotations

from typing import Any

from converter.models.blocks import Block
from converter.models.embeddings import TextEmbeddings, TextSpec
from converter.models.parts import Dense, Norm
from converter.models.text_tower import TextTower
from converter.models.towers.clip_text import EMBEDDINGS
from converter.models.towers.siglip_vision import siglip_block

Tensor = Any


class SiglipTextTower(TextTower):
    """``siglip_text_model``."""

    main_layer = "siglip"
    type_table = False

    def assemble(self, config: Any) -> None:
        """Embeddings, blocks, norm, head."""
        width = config.hidden_size
        std = width**-0.5
        words = TextSpec(
            vocabulary=config.vocab_size,
            positions=config.max_position_embeddings,
            types=None,
            width=width,
            names=EMBEDDINGS,
            std=std,
            eps=config.layer_norm_eps,
        )
        root, block = "siglip/text_model", siglip_block(config)
        self.embeddings = self.layer(f"{root}/embeddings", TextEmbeddings, words)
        self.blocks = [
            self.layer(f"{root}/encoder/layers_._{i}", Block, block, self.seeds)
            for i in range(config.num_hidden_layers)
        ]
        self.norm = self.part(f"{root}/final_layer_norm", Norm(width, config.layer_norm_eps))
        if self.add_pooling_layer:
            self.pooler = self.part(f"{root}/head", Dense(width, config.projection_size, std=std))

    def after(self, x: Tensor, input_ids: Tensor) -> tuple[Tensor, Tensor | None]:
        """Normalised hidden states, and the head's view of the last position, which may be padding."""
        del input_ids
        x = self.norm(x)
        return x, (self.pooler(x[:, -1]) if self.pooler is not None else None)

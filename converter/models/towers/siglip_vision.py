"""SigLIP's vision tower (https://arxiv.org/abs/2303.15343): no class token; a learned probe attends to all patches."""

from __future__ import annotations

from typing import Any

from converter.models.attention_pooling import AttentionPooling
from converter.models.blocks import Block, BlockSpec, Spread
from converter.models.embeddings import ImageEmbeddings, ImageSpec
from converter.models.parts import Norm
from converter.models.towers.clip_vision import BLOCK
from converter.models.vision_tower import Size, VisionTower

Tensor = Any

EMBEDDINGS = {"positions": "position_embedding", "patches": "patch_embedding"}


def siglip_block(config: Any) -> BlockSpec:
    """The block that both of SigLIP's towers have: CLIP's, begun as Glorot says."""
    width, inner = config.hidden_size, config.intermediate_size
    std, joint = width**-0.5, (2 / (width + inner)) ** 0.5
    return BlockSpec(
        width=width,
        heads=config.num_attention_heads,
        inner=inner,
        act=config.hidden_act,
        eps=config.layer_norm_eps,
        norm_first=True,
        names=BLOCK,
        spread=Spread(std, std, joint, joint),
        attention_dropout=config.attention_dropout,
    )


class SiglipVisionTower(VisionTower):
    """``siglip_vision_model``."""

    main_layer = "siglip"

    def assemble(self, config: Any) -> None:
        """Embeddings, blocks, norm, attention pooling."""
        width = config.hidden_size
        std = width**-0.5
        images = ImageSpec.of(
            config,
            width=width,
            names=EMBEDDINGS,
            bias=True,
            flat=True,
            std=std,
            token_std=0.0,
        )
        block = siglip_block(config)
        root = "siglip/vision_model"
        self.embeddings = self.layer(f"{root}/embeddings", ImageEmbeddings, images)
        self.blocks = self.stack(f"{root}/encoder/layers", config.num_hidden_layers, Block, block, self.seeds)
        self.norm = self.part(f"{root}/post_layernorm", Norm(width, config.layer_norm_eps))
        if self.add_pooling_layer:
            self.pooler = self.layer(f"{root}/head", AttentionPooling, block)

    def check_size(self, size: Size) -> None:
        """As many patches as positions; what is left over at the borders is cut off, as in PyTorch."""
        patch, grid = self.embeddings.spec.patch, self.embeddings.spec.grid
        if (size[0] // patch[0]) * (size[1] // patch[1]) != grid[0] * grid[1]:
            self.refuse_size(size)

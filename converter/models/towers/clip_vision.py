"""CLIP's vision tower: a ViT with a norm before the first block, pooled at the class token (arXiv 2103.00020)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from converter.models.blocks import Block, BlockSpec, Spread, block_names
from converter.models.embeddings import ImageEmbeddings, ImageSpec
from converter.models.parts import Norm
from converter.models.vision_tower import VisionTower

Tensor = Any

EMBEDDINGS = {"token": "class_embedding", "positions": "position_embedding", "patches": "patch_embedding"}
BLOCK = block_names(
    query="self_attn/q_proj",
    key="self_attn/k_proj",
    value="self_attn/v_proj",
    out="self_attn/out_proj",
    norm1="layer_norm1",
    up="mlp/fc1",
    down="mlp/fc2",
    norm2="layer_norm2",
)


def clip_block(config: Any) -> BlockSpec:
    """The block that both of CLIP's towers have."""
    factor = config.initializer_factor
    deep = config.hidden_size**-0.5 * (2 * config.num_hidden_layers) ** -0.5 * factor
    return BlockSpec(
        width=config.hidden_size,
        heads=config.num_attention_heads,
        inner=config.intermediate_size,
        act=config.hidden_act,
        eps=config.layer_norm_eps,
        norm_first=True,
        names=BLOCK,
        spread=Spread(deep, config.hidden_size**-0.5 * factor, (2 * config.hidden_size) ** -0.5 * factor, deep),
        attention_dropout=config.attention_dropout,
    )


class CLIPVisionTower(VisionTower):
    """``clip_vision_model``; a relative says under what root its parts are, and which are of another kind."""

    main_layer = "clip"
    root: ClassVar[str] = "clip/vision_model"
    embedding_names: ClassVar[Mapping[str, str]] = EMBEDDINGS
    embeddings_of: ClassVar[type[ImageEmbeddings]] = ImageEmbeddings
    block_of: ClassVar[type[Block]] = Block

    def assemble(self, config: Any) -> None:
        """Embeddings, norm, blocks, norm of the class token."""
        width, factor = config.hidden_size, config.initializer_factor
        images = ImageSpec.of(
            config,
            width=width,
            names=self.embedding_names,
            bias=False,
            flat=True,
            std=config.initializer_range * factor,
            token_std=width**-0.5 * factor,
        )
        root, block = self.root, clip_block(config)
        self.embeddings = self.layer(f"{root}/embeddings", self.embeddings_of, images)
        self.pre_norm = self.part(f"{root}/pre_layrnorm", Norm(width, config.layer_norm_eps))
        count = config.num_hidden_layers
        self.blocks = self.stack(f"{root}/encoder/layers", count, self.block_of, block, self.seeds)
        self.post_norm = self.part(f"{root}/post_layernorm", Norm(width, config.layer_norm_eps))

    def before(self, x: Tensor) -> Tensor:
        """The norm that CLIP has in front of its blocks."""
        return self.pre_norm(super().before(x))

    def after(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """The last block's output unchanged; the class token normalised."""
        return x, self.post_norm(x[:, 0])

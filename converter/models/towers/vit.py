"""ViT (https://arxiv.org/abs/2010.11929): class token, learned positions, norm-first blocks, first-token pooler."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from converter.models.blocks import QKV, Block, BlockSpec, Spread, block_names
from converter.models.embeddings import ImageEmbeddings, ImageSpec
from converter.models.parts import Norm
from converter.models.pooling import FirstToken
from converter.models.vision_tower import VisionTower

Tensor = Any

# What files call these parts of most relatives, too.
PLACES = {"positions": "position_embeddings", "patches": "patch_embeddings/projection"}
ATTENTION = {role: f"attention/attention/{role}" for role in QKV}
BLOCK = block_names(
    **ATTENTION,
    out="attention/output/dense",
    up="intermediate/dense",
    down="output/dense",
    norm1="layernorm_before",
    norm2="layernorm_after",
)


def vit_images(config: Any, **changes: Any) -> ImageSpec:
    """The embeddings of ViT and, with changes, of those that follow it."""
    fields: dict[str, Any] = {
        "width": config.hidden_size,
        "bias": True,
        "flat": False,
        "std": config.initializer_range,
        "token_std": config.initializer_range,
        "dropout": getattr(config, "hidden_dropout_prob", 0.0),
    }
    return ImageSpec.of(config, **{**fields, **changes})


def vit_block(config: Any, **changes: Any) -> BlockSpec:
    """The block of ViT and, with changes, of those that follow it."""
    fields: dict[str, Any] = {
        "width": config.hidden_size,
        "heads": config.num_attention_heads,
        "inner": getattr(config, "intermediate_size", 0),
        "act": config.hidden_act,
        "eps": getattr(config, "layer_norm_eps", 0.0),
        "norm_first": True,
        "names": BLOCK,
        "spread": Spread.even(config.initializer_range),
        "unbiased": () if getattr(config, "qkv_bias", True) else QKV,
        "attention_dropout": getattr(config, "attention_probs_dropout_prob", 0.0),
        "hidden_dropout": getattr(config, "hidden_dropout_prob", 0.0),
    }
    return BlockSpec(**{**fields, **changes})


class ViTTower(VisionTower):
    """``vit``."""

    main_layer = "vit"
    tokens: ClassVar[Mapping[str, str]] = {"token": "cls_token"}
    embedding: type[ImageEmbeddings] = ImageEmbeddings

    def assemble(self, config: Any) -> None:
        """Embeddings, blocks, norm, pooler."""
        width, std = config.hidden_size, config.initializer_range
        block = vit_block(config, head_width=getattr(config, "head_dim", None))
        root = self.main_layer
        self.embeddings = self.layer(f"{root}/embeddings", self.embedding, self.images(config), self.seeds)
        self.blocks = self.stack(f"{root}/encoder/layer", config.num_hidden_layers, Block, block, self.seeds)
        self.norm = self.part(f"{root}/layernorm", Norm(width, config.layer_norm_eps))
        if self.add_pooling_layer:
            outputs = getattr(config, "pooler_output_size", None) or width
            act = getattr(config, "pooler_act", None) or "tanh"
            self.pooler = self.layer(f"{root}/pooler", FirstToken, width, outputs, std, act)

    def images(self, config: Any) -> ImageSpec:
        """The embeddings' shape."""
        return vit_images(config, names={**self.tokens, **PLACES})

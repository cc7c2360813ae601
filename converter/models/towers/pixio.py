"""Pixio (https://arxiv.org/abs/2512.15715): a ViT of several class tokens, whose mean it is pooled to."""

from __future__ import annotations

from typing import Any

from keras import ops

from converter.models.blocks import QKV, Block
from converter.models.embeddings import ResizedImageEmbeddings
from converter.models.parts import Norm
from converter.models.towers.vit import vit_block, vit_images
from converter.models.vision_tower import AnySizeTower

Tensor = Any

EMBEDDINGS = {"token": "cls_token", "positions": "position_embeddings", "patches": "patch_embeddings/projection"}
BLOCK = {
    "query": "attention/attention/query",
    "key": "attention/attention/key",
    "value": "attention/attention/value",
    "out": "attention/output/dense",
    "norm1": "norm1",
    "norm2": "norm2",
    "up": "intermediate/dense",
    "down": "output/dense",
}


class PixioTower(AnySizeTower):
    """``pixio``."""

    main_layer = "pixio"

    def assemble(self, config: Any) -> None:
        """Embeddings, blocks, norm."""
        images = vit_images(config, names=EMBEDDINGS, class_tokens=config.n_cls_tokens)
        block = vit_block(
            config,
            names=BLOCK,
            inner=int(config.hidden_size * config.mlp_ratio),
            unbiased=() if config.qkv_bias else QKV,
            drop_path=config.drop_path_rate,
        )
        self.embeddings = self.layer("pixio/embeddings", ResizedImageEmbeddings, images, self.seeds)
        self.blocks = [
            self.layer(f"pixio/encoder/layer_._{i}", Block, block, self.seeds) for i in range(config.num_hidden_layers)
        ]
        self.norm = self.part("pixio/layernorm", Norm(config.hidden_size, config.layer_norm_eps))

    def before(self, x: Tensor) -> Tensor:
        """Hidden states in the variables' dtype: under PyTorch's autocast tokens are float32, and what they join becomes so."""
        return ops.cast(x, self.variable_dtype)

    def after(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Normalised hidden states, and the mean of the class tokens'."""
        x, count = self.norm(x), self.config.n_cls_tokens
        return x, ops.sum(x[:, :count], axis=1) / count

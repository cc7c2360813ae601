"""Pixio (https://arxiv.org/abs/2512.15715): a ViT of several class tokens, whose mean it is pooled to."""

from __future__ import annotations

from typing import Any

from keras import ops

from converter.models.blocks import Block
from converter.models.embeddings import ResizedImageEmbeddings
from converter.models.parts import Norm
from converter.models.towers.vit import ATTENTION, PLACES, vit_block, vit_images
from converter.models.vision_tower import AnySizeTower

Tensor = Any

BLOCK = {
    **ATTENTION,
    "out": "attention/output/dense",
    "norm1": "norm1",
    "norm2": "norm2",
    "up": "intermediate/dense",
    "down": "output/dense",
}


class PixioTower(AnySizeTower):
    """``pixio``."""

    main_layer = "pixio"
    widens = True

    def assemble(self, config: Any) -> None:
        """Embeddings, blocks, norm."""
        images = vit_images(config, names={"token": "cls_token", **PLACES}, class_tokens=config.n_cls_tokens)
        block = vit_block(
            config,
            names=BLOCK,
            inner=int(config.hidden_size * config.mlp_ratio),
            drop_path=config.drop_path_rate,
        )
        self.embeddings = self.layer("pixio/embeddings", ResizedImageEmbeddings, images, self.seeds)
        self.blocks = self.stack("pixio/encoder/layer", config.num_hidden_layers, Block, block, self.seeds)
        self.norm = self.part("pixio/layernorm", Norm(config.hidden_size, config.layer_norm_eps))

    def after(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Normalised hidden states, and the mean of the class tokens'."""
        x, count = self.norm(x), self.config.n_cls_tokens
        return x, ops.sum(x[:, :count], axis=1) / count

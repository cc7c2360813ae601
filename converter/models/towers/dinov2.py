"""DINOv2 (https://arxiv.org/abs/2304.07193): ViT with layer scale, maybe SwiGLU, and positions for any image size."""

from __future__ import annotations

from typing import Any

from converter.models.blocks import Block, block_names
from converter.models.embeddings import ImageSpec, ResizedImageEmbeddings
from converter.models.parts import Norm
from converter.models.towers.vit import ATTENTION, PLACES, vit_block, vit_images
from converter.models.vision_tower import ClassTokenTower

Tensor = Any


def names_of(gated: bool) -> Any:
    """The block's names, with the MLP's as SwiGLU or not."""
    return block_names(
        norm1="norm1",
        **ATTENTION,
        out="attention/output/dense",
        scale1="layer_scale1/lambda1",
        norm2="norm2",
        **{"gate_and_up": "mlp/weights_in", "down": "mlp/weights_out"}
        if gated
        else {"up": "mlp/fc1", "down": "mlp/fc2"},
        scale2="layer_scale2/lambda1",
    )


class Dinov2Tower(ClassTokenTower):
    """``dinov2``."""

    main_layer = "dinov2"

    def images(self, config: Any) -> ImageSpec:
        """The embeddings' shape."""
        mask = {"mask_token": "mask_token"} if getattr(config, "use_mask_token", True) else {}
        return vit_images(config, names={"token": "cls_token", **mask, **PLACES})

    def assemble(self, config: Any) -> None:
        """Embeddings, blocks, norm."""
        root, width, gated = self.main_layer, config.hidden_size, config.use_swiglu_ffn
        inner = int(width * config.mlp_ratio)
        block = vit_block(
            config,
            inner=(int(inner * 2 / 3) + 7) // 8 * 8 if gated else inner,
            act="silu" if gated else config.hidden_act,
            names=names_of(gated),
            hidden_dropout=0.0,
            drop_path=config.drop_path_rate,
            layer_scale=config.layerscale_value,
        )
        self.embeddings = self.layer(f"{root}/embeddings", ResizedImageEmbeddings, self.images(config), self.seeds)
        self.blocks = self.stack(f"{root}/encoder/layer", config.num_hidden_layers, Block, block, self.seeds)
        self.norm = self.part(f"{root}/layernorm", Norm(width, config.layer_norm_eps))

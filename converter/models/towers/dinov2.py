"""DINOv2 (https://arxiv.org/abs/2304.07193): ViT with layer scale, maybe SwiGLU, and positions for any image size."""

from __future__ import annotations

from typing import Any

from converter.models.blocks import QKV, Block, block_names
from converter.models.embeddings import ImageSpec, ResizedImageEmbeddings
from converter.models.parts import Norm
from converter.models.towers.vit import vit_block, vit_images
from converter.models.vision_tower import AnySizeTower

Tensor = Any


def names_of(gated: bool) -> Any:
    """The block's names, with the MLP's as SwiGLU or not."""
    return block_names(
        norm1="norm1",
        query="attention/attention/query",
        key="attention/attention/key",
        value="attention/attention/value",
        out="attention/output/dense",
        scale1="layer_scale1/lambda1",
        norm2="norm2",
        **{"gate_and_up": "mlp/weights_in", "down": "mlp/weights_out"}
        if gated
        else {"up": "mlp/fc1", "down": "mlp/fc2"},
        scale2="layer_scale2/lambda1",
    )


class Dinov2Tower(AnySizeTower):
    """``dinov2``; pooled at the class token after the norm."""

    main_layer = "dinov2"

    def images(self, config: Any) -> ImageSpec:
        """The embeddings' shape."""
        mask = {"mask_token": "mask_token"} if getattr(config, "use_mask_token", True) else {}
        places = {"positions": "position_embeddings", "patches": "patch_embeddings/projection"}
        return vit_images(config, names={"token": "cls_token", **mask, **places})

    def assemble(self, config: Any) -> None:
        """Embeddings, blocks, norm."""
        root, width, gated = self.main_layer, config.hidden_size, config.use_swiglu_ffn
        inner = int(width * config.mlp_ratio)
        block = vit_block(
            config,
            inner=(int(inner * 2 / 3) + 7) // 8 * 8 if gated else inner,
            act="silu" if gated else config.hidden_act,
            names=names_of(gated),
            unbiased=() if config.qkv_bias else QKV,
            hidden_dropout=0.0,
            drop_path=config.drop_path_rate,
            layer_scale=config.layerscale_value,
        )
        self.embeddings = self.layer(f"{root}/embeddings", ResizedImageEmbeddings, self.images(config), self.seeds)
        self.blocks = [
            self.layer(f"{root}/encoder/layer_._{i}", Block, block, self.seeds) for i in range(config.num_hidden_layers)
        ]
        self.norm = self.part(f"{root}/layernorm", Norm(width, config.layer_norm_eps))

    def after(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Normalised hidden states, and the class token's."""
        x = self.norm(x)
        return x, x[:, 0]

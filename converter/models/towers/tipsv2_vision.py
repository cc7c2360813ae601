"""TIPSv2's vision tower (https://arxiv.org/abs/2410.16512): DINOv2 with registers under other names, query to value in one."""

from __future__ import annotations

from typing import Any

from converter.models.blocks import block_names
from converter.models.embeddings import ResizedImageEmbeddings
from converter.models.joint import JointBlock
from converter.models.parts import Norm
from converter.models.towers.vit import vit_block, vit_images
from converter.models.vision_tower import ClassTokenTower

EMBEDDINGS = {
    "token": "cls_token",
    "mask_token": "mask_token",
    "positions": "pos_embed",
    "registers": "register_tokens",
    "patches": "patch_embed/proj",
}


def names_of(gated: bool) -> Any:
    """The block's names, with the MLP's as SwiGLU or not."""
    return block_names(
        norm1="norm1",
        qkv="attn/qkv",
        out="attn/proj",
        scale1="ls1/scale",
        norm2="norm2",
        **{"gate_and_up": "mlp/w12", "down": "mlp/w3"} if gated else {"up": "mlp/c_fc", "down": "mlp/c_proj"},
        scale2="ls2/scale",
    )


class TIPSv2VisionTower(ClassTokenTower):
    """``tipsv2_vision_model``."""

    main_layer = "tipsv2"

    def assemble(self, config: Any) -> None:
        """Embeddings, blocks, norm."""
        gated, inner = config.use_swiglu_ffn, int(config.hidden_size * config.mlp_ratio)
        images = vit_images(
            config, names=EMBEDDINGS, registers=config.num_register_tokens, resizing="antialiased bilinear"
        )
        block = vit_block(
            config,
            inner=(int(inner * 2 / 3) + 7) // 8 * 8 if gated else inner,
            act="silu" if gated else config.hidden_act,
            names=names_of(gated),
            hidden_dropout=0.0,
            drop_path=config.drop_path_rate,
            layer_scale=config.layerscale_value,
        )
        self.embeddings = self.flat_layer("tipsv2", ResizedImageEmbeddings, images, self.seeds)
        self.blocks = self.stack("tipsv2/blocks", config.num_hidden_layers, JointBlock, block, self.seeds)
        self.norm = self.part("tipsv2/norm", Norm(config.hidden_size, config.layer_norm_eps))

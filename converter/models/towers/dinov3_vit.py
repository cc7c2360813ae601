"""DINOv3 (https://arxiv.org/abs/2508.10104): DINOv2 with registers and rotary positions, by the place of a patch."""

from __future__ import annotations

from typing import Any

from converter.models.blocks import BlockSpec, block_names, lacking
from converter.models.embeddings import ResizedImageEmbeddings
from converter.models.parts import Norm
from converter.models.rotary import RotaryBlock, grid_turn, moved, patch_centres
from converter.models.tower import Tower
from converter.models.towers.vit import vit_block, vit_images
from converter.models.vision_tower import ClassTokenTower

Tensor = Any

EMBEDDINGS = {
    "token": "cls_token",
    "mask_token": "mask_token",
    "registers": "register_tokens",
    "patches": "patch_embeddings",
}
MOVING = ("pos_embed_shift", "pos_embed_jitter", "pos_embed_rescale")


def block_of(config: Any) -> BlockSpec:
    """The block, with the biases and the gate that the config says it has."""
    biases = {
        "query": config.query_bias,
        "key": config.key_bias,
        "value": config.value_bias,
        "out": config.proj_bias,
        **dict.fromkeys(("gate", "up", "down"), config.mlp_bias),
    }
    return vit_block(
        config,
        names=block_names(
            norm1="norm1",
            key="attention/k_proj",
            value="attention/v_proj",
            query="attention/q_proj",
            out="attention/o_proj",
            scale1="layer_scale1/lambda1",
            norm2="norm2",
            **({"gate": "mlp/gate_proj"} if config.use_gated_mlp else {}),
            up="mlp/up_proj",
            down="mlp/down_proj",
            scale2="layer_scale2/lambda1",
        ),
        unbiased=lacking(biases),
        attention_dropout=config.attention_dropout,
        drop_path=config.drop_path_rate,
        layer_scale=config.layerscale_value,
    )


class DINOv3ViTTower(ClassTokenTower):
    """``dinov3_vit``."""

    main_layer = "dinov3_vit"
    random_fields = (*Tower.random_fields, *MOVING)

    def assemble(self, config: Any) -> None:
        """Embeddings, blocks, norm."""
        root, width = self.main_layer, config.hidden_size
        images = vit_images(config, names=EMBEDDINGS, mask_rank=3, registers=config.num_register_tokens)
        self.embeddings = self.layer(f"{root}/embeddings", ResizedImageEmbeddings, images, self.seeds)
        self.blocks = self.stack(f"{root}/layer", config.num_hidden_layers, RotaryBlock, block_of(config), self.seeds)
        self.norm = self.part(f"{root}/norm", Norm(width, config.layer_norm_eps))

    def bias(self, pixel_values: Tensor, training: bool) -> Any:
        """Not a bias: by how much each token is turned."""
        config = self.config
        centres: Any = patch_centres(*self.embeddings.grid_of(pixel_values))
        if training:
            shift, jitter, rescale = (getattr(config, field) for field in MOVING)
            centres = moved(centres, shift, jitter, rescale, self.seeds)
        head = config.hidden_size // config.num_attention_heads
        return grid_turn(centres, head, config.rope_theta, 1 + config.num_register_tokens)

"""BEiT (https://arxiv.org/abs/2106.08254): ViT with relative positions and layer scale; the mean of patches pools."""

from __future__ import annotations

from typing import Any

from keras import ops

from converter.models.blocks import Block, block_names
from converter.models.embeddings import ImageSpec, ResizedImageEmbeddings
from converter.models.parts import Norm, Raw
from converter.models.relative_bias import resized_bias
from converter.models.towers.vit import ATTENTION, vit_block, vit_images
from converter.models.vision_tower import AnySizeTower

Tensor = Any

TABLE = "relative_position_bias/relative_position_bias_table"


def names_of(scaled: bool, table: bool) -> Any:
    """The block's names, with what the config says it has."""
    return block_names(
        **({"scale1": "lambda_1", "scale2": "lambda_2"} if scaled else {}),
        **ATTENTION,
        **({"table": f"attention/attention/{TABLE}"} if table else {}),
        out="attention/output/dense",
        up="intermediate/dense",
        down="output/dense",
        norm1="layernorm_before",
        norm2="layernorm_after",
    )


class BeitTower(AnySizeTower):
    """``beit``."""

    main_layer = "beit"

    def assemble(self, config: Any) -> None:
        """Embeddings, maybe a shared table, blocks, norm of either the tokens or their mean."""
        width, count = config.hidden_size, config.num_hidden_layers
        self.embeddings = self.layer("beit/embeddings", ResizedImageEmbeddings, image_spec(config), self.seeds)
        rows, columns = self.embeddings.spec.grid
        table = ((2 * rows - 1) * (2 * columns - 1) + 3, config.num_attention_heads)
        if config.use_shared_relative_position_bias:
            self.shared = self.part(f"beit/encoder/{TABLE}", Raw(table))
        else:
            self.shared = None
        self.blocks = [
            self.layer(
                f"beit/encoder/layer_._{i}",
                Block,
                vit_block(
                    config,
                    names=names_of(config.layer_scale_init_value > 0, config.use_relative_position_bias),
                    unbiased=("key",),
                    drop_path=config.drop_path_rate * i / max(count - 1, 1),
                    layer_scale=config.layer_scale_init_value,
                    table=table,
                ),
                self.seeds,
            )
            for i in range(count)
        ]
        if not config.use_mean_pooling:
            self.norm = self.part("beit/layernorm", Norm(width, config.layer_norm_eps))
        elif self.add_pooling_layer:
            self.norm = self.part("beit/pooler/layernorm", Norm(width, config.layer_norm_eps))

    def bias(self, pixel_values: Tensor, training: bool) -> Any:
        """The shared table's values plus each block's own, for the current grid of patches."""
        del training
        trained, grid = self.embeddings.spec.grid, self.embeddings.grid_of(pixel_values)
        shared = 0.0 if self.shared is None else resized_bias(self.shared.value, trained, grid)
        if self.config.use_relative_position_bias:
            return [shared + resized_bias(block.table.value, trained, grid) for block in self.blocks]
        return None if self.shared is None else shared

    def after(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """With mean pooling, unchanged hidden states and the patches' mean normed; else all normed, and the token."""
        mean, pools = self.config.use_mean_pooling, self.add_pooling_layer
        if not mean:
            x = self.norm(x)
            return x, (x[:, 0] if pools else None)
        return x, (self.norm(ops.sum(x[:, 1:], axis=1) / (x.shape[1] - 1)) if pools else None)


def image_spec(config: Any) -> ImageSpec:
    """The embeddings, with what the config says they have."""
    names = {
        "token": "cls_token",
        **({"mask_token": "mask_token"} if config.use_mask_token else {}),
        **({"positions": "position_embeddings"} if config.use_absolute_position_embeddings else {}),
        "patches": "patch_embeddings/projection",
    }
    return vit_images(config, names=names, mask_rank=3)

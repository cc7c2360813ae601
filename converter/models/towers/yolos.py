"""YOLOS (https://arxiv.org/abs/2106.00666): ViT with detection tokens, and positions added between its blocks, too."""

from __future__ import annotations

import math
from typing import Any

from keras import ops

from converter.errors import UnsupportedOption
from converter.models.blocks import Block
from converter.models.embeddings import ImageEmbeddings, ImageSpec, pair
from converter.models.parts import Norm, Raw
from converter.models.pooling import FirstToken
from converter.models.resize import resize
from converter.models.towers.vit import vit_block, vit_images
from converter.models.vision_tower import AnySizeTower, Size

Tensor = Any

EMBEDDINGS = {
    "token": "cls_token",
    "detection": "detection_tokens",
    "table": "position_embeddings",
    "patches": "patch_embeddings/projection",
}


class DetectionEmbeddings(ImageEmbeddings):
    """A class token, the patches and the detection tokens, each with its position."""

    def __init__(self, spec: ImageSpec, detections: int, seeds: Any = None, **kwargs: Any) -> None:
        length = math.prod(spec.grid) + 1 + detections
        own = {"detection": Raw((1, detections, spec.width)), "table": Raw((1, length, spec.width))}
        super().__init__(spec, seeds, own, **kwargs)

    def call(self, pixel_values: Tensor, training: bool = False) -> Tensor:
        """``(batch, channels, height, width)`` to ``(batch, 1 + patches + detections, width)``."""
        x = self.patches(pixel_values)
        x = ops.concatenate([self.for_each(x, "token"), x, self.for_each(x, "detection")], axis=1)
        return self.drop(ops.add(x, self.resized(self.table.value, self.grid_of(pixel_values))), training)

    def resized(self, table: Tensor, grid: Size) -> Tensor:
        """Positions ``(1, length, width)`` with those of the patches resized to a grid."""
        trained, table = self.spec.grid, ops.convert_to_tensor(table)
        if grid == trained:
            return table
        patches = ops.reshape(table[:, 1 : 1 + math.prod(trained)], (*trained, self.spec.width))
        patches = ops.reshape(resize(patches, *grid, "bicubic"), (1, math.prod(grid), self.spec.width))
        return ops.concatenate([table[:, :1], patches, table[:, 1 + math.prod(trained) :]], axis=1)


class PlacedBlock(Block):
    """A block that adds positions to its input, where it is given any; they are no bias, and scores stay as they are."""

    def call(
        self, x: Tensor, bias: Tensor | None = None, output_attentions: bool = False, training: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Attention, then MLP, each with its residual; see ``Block``."""
        return super().call(x if bias is None else ops.add(x, bias), None, output_attentions, training)


class YolosTower(AnySizeTower):
    """``yolos``; pooled as ViT is."""

    main_layer = "yolos"
    widens = True

    def assemble(self, config: Any) -> None:
        """Embeddings, positions between blocks, blocks, norm, pooler."""
        width, std, count = config.hidden_size, config.initializer_range, config.num_hidden_layers
        images = vit_images(config, names=EMBEDDINGS)
        self.embeddings = self.layer(
            "yolos/embeddings", DetectionEmbeddings, images, config.num_detection_tokens, self.seeds
        )
        self.middle = None
        if config.use_mid_position_embeddings:
            height, across = pair(config.image_size)
            length = 1 + math.prod(images.grid) + config.num_detection_tokens
            if height * across // config.patch_size**2 != math.prod(images.grid):
                raise UnsupportedOption(
                    f"vision_config.image_size is {height} x {across}, no whole patches of {config.patch_size}: PyTorch "
                    "cannot run its positions between the blocks then. Correct the config."
                )
            self.middle = self.part("yolos/encoder/mid_position_embeddings", Raw((count - 1, 1, length, width)))
        self.blocks = self.stack("yolos/encoder/layer", count, PlacedBlock, vit_block(config), self.seeds)
        self.norm = self.part("yolos/layernorm", Norm(width, config.layer_norm_eps))
        if self.add_pooling_layer:
            self.pooler = self.layer("yolos/pooler", FirstToken, width, width, std)

    def bias(self, pixel_values: Tensor, training: bool) -> Any:
        """Not a bias: the positions that each block adds to what it is given; the first adds none."""
        del training
        if self.middle is None:
            return None
        grid, tables = self.embeddings.grid_of(pixel_values), ops.convert_to_tensor(self.middle.value)
        return [None, *(self.embeddings.resized(tables[i], grid) for i in range(len(self.blocks) - 1))]

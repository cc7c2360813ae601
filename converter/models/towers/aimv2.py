"""AIMv2's vision tower (https://arxiv.org/abs/2411.14402): RMS norms, gated MLPs, a class token that asks at the end."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops

from converter.models.blocks import QKV, BlockSpec, attention, block_names, lacking
from converter.models.embeddings import ImageEmbeddings, ImageSpec
from converter.models.parts import CompositeLayer, Dense, Dropout, Raw
from converter.models.rms_norm import RMSBlock, RMSNorm
from converter.models.towers.siglip_vision import SiglipVisionTower
from converter.models.towers.vit import vit_block, vit_images
from converter.models.vision_tower import Size

Tensor = Any
Array = np.ndarray[Any, Any]

BLOCK = block_names(
    key="attention/k_proj",
    value="attention/v_proj",
    query="attention/q_proj",
    out="attention/out_proj",
    gate="ffn/gate_proj",
    up="ffn/up_proj",
    down="ffn/down_proj",
    norm1="rms_norm1",
    norm2="rms_norm2",
)
TEMPERATURE = 10000.0


def sinusoids(rows: int, columns: int, width: int) -> Array:
    """Positions that are not learned: sines and cosines of the column, then of the row, ``(rows * columns, width)``.

    Source: section 3.4 of https://arxiv.org/abs/2104.02057, the column first as AIMv2 was trained.
    """
    frequency = 1.0 / TEMPERATURE ** (np.arange(width // 4) / (width // 4))
    row, column = (axis.reshape(-1, 1) * frequency for axis in np.indices((rows, columns), np.float64))
    return np.concatenate([np.sin(column), np.cos(column), np.sin(row), np.cos(row)], axis=1)


class NormedEmbeddings(ImageEmbeddings):
    """Patches, normed, plus positions: learned ones, or sinusoids for images of any size."""

    def __init__(self, spec: ImageSpec, eps: float, **kwargs: Any) -> None:
        super().__init__(spec, own={"norm": RMSNorm(spec.width, eps)}, **kwargs)

    def projected(self, pixel_values: Tensor) -> Tensor:
        """The patches, normed; where no positions are learned, they are added here."""
        x = self.norm(self.patches(pixel_values))
        if "positions" in self.spec.names:
            return x
        places = sinusoids(*self.grid_of(pixel_values), self.spec.width)
        return x + ops.cast(ops.convert_to_tensor(places[None]), x.dtype)


class ClassTokenPooling(CompositeLayer):
    """A class token attends to all patches as it is: its query is not projected."""

    def __init__(self, spec: BlockSpec, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        width, std = spec.width, spec.spread.query
        bias = "key" not in spec.unbiased
        self.heads = spec.heads
        self.token = self.part("cls_token", Raw((1, 1, width), std=std))
        self.key = self.part("k_proj", Dense(width, width, bias=bias, std=std))
        self.value = self.part("v_proj", Dense(width, width, bias=bias, std=std))
        self.out = self.part("output_proj", Dense(width, width, std=std))

    def query(self, x: Tensor) -> Tensor:
        """The class token itself."""
        return x

    def call(self, x: Tensor) -> Tensor:
        """``(batch, patches, width)`` to ``(batch, width)``."""
        token = ops.cast(ops.convert_to_tensor(self.token.value), x.dtype)
        asked = ops.broadcast_to(token, (ops.shape(x)[0], 1, x.shape[-1]))
        return attention(self, asked, x, None, self.heads, Dropout(0.0, None))[0][:, 0]


class AIMv2VisionTower(SiglipVisionTower):
    """``aimv2_vision_model``."""

    main_layer = "aimv2"

    def assemble(self, config: Any) -> None:
        """Embeddings, blocks, norm, pooling."""
        places = {} if config.is_native else {"positions": "position_embedding"}
        images = vit_images(config, names={"patches": "patch_embed", "norm": "rms_norm", **places}, flat=True)
        block = vit_block(
            config,
            eps=config.rms_norm_eps,
            names=BLOCK,
            unbiased=lacking(
                {
                    **dict.fromkeys((*QKV, "out"), config.qkv_bias),
                    **dict.fromkeys(("gate", "up", "down"), config.mlp_bias),
                }
            ),
            attention_dropout=config.attention_dropout,
        )
        self.embeddings = self.layer("aimv2/embeddings", NormedEmbeddings, images, config.rms_norm_eps)
        self.blocks = self.stack("aimv2/encoder/layers", config.num_hidden_layers, RMSBlock, block, self.seeds)
        self.norm = self.part("aimv2/rms_norm", RMSNorm(config.hidden_size, config.rms_norm_eps))
        if self.add_pooling_layer:
            self.pooler = self.layer("aimv2/head", ClassTokenPooling, block)

    def check_size(self, size: Size) -> None:
        """With sinusoids any size that has a patch; else as many patches as positions."""
        if not self.config.is_native:
            super().check_size(size)
        elif min(length // patch for length, patch in zip(size, self.embeddings.spec.patch, strict=True)) < 1:
            self.refuse_size(size)

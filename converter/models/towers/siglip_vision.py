"""SigLIP's vision tower (https://arxiv.org/abs/2303.15343): no class token; a learned probe attends to all patches."""

from __future__ import annotations

import math
from typing import Any

from keras import ops

from converter.models.activations import activation
from converter.models.blocks import Block, BlockSpec, Spread, attention
from converter.models.embeddings import ImageEmbeddings, ImageSpec, pair
from converter.models.parts import CompositeLayer, Dense, Dropout, Norm, Raw
from converter.models.towers.clip_vision import BLOCK
from converter.models.vision_tower import Size, VisionTower

Tensor = Any

EMBEDDINGS = {"positions": "position_embedding", "patches": "patch_embedding"}


def siglip_block(config: Any) -> BlockSpec:
    """The block that both of SigLIP's towers have: CLIP's, begun as Glorot says."""
    width, inner = config.hidden_size, config.intermediate_size
    std, joint = width**-0.5, (2 / (width + inner)) ** 0.5
    return BlockSpec(
        width=width,
        heads=config.num_attention_heads,
        inner=inner,
        act=config.hidden_act,
        eps=config.layer_norm_eps,
        norm_first=True,
        names=BLOCK,
        spread=Spread(std, std, joint, joint),
        attention_dropout=config.attention_dropout,
    )


class AttentionPooling(CompositeLayer):
    """A probe attends to all patches; then an MLP whose residual is the attention's output.

    ``in_proj_weight (3 width, width)`` holds query, key and value one below the other, in PyTorch's layout.
    """

    def __init__(self, block: BlockSpec, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        width, std = block.width, block.spread.query
        self.block = block
        self.probe = self.part("probe", Raw((1, 1, width), std=std))
        self.weight = self.part("attention/in_proj_weight", Raw((3 * width, width), std=std / math.sqrt(2)))
        self.offset = self.part("attention/in_proj_bias", Raw((3 * width,)))
        self.out = self.part("attention/out_proj", Dense(width, width, std=std))
        self.norm = self.part("layernorm", Norm(width, block.eps))
        self.up = self.part("mlp/fc1", Dense(width, block.inner, std=block.spread.up))
        self.down = self.part("mlp/fc2", Dense(block.inner, width, std=block.spread.down))
        self.act = activation(block.act)

    def query(self, x: Tensor) -> Tensor:
        """The first third of the joint projection."""
        return self._third(x, 0)

    def key(self, x: Tensor) -> Tensor:
        """The second third of the joint projection."""
        return self._third(x, 1)

    def value(self, x: Tensor) -> Tensor:
        """The last third of the joint projection."""
        return self._third(x, 2)

    def _third(self, x: Tensor, index: int) -> Tensor:
        rows = slice(index * self.block.width, (index + 1) * self.block.width)
        return ops.matmul(x, ops.transpose(self.weight.value[rows])) + self.offset.value[rows]

    def call(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """``(batch, patches, width)`` to ``(batch, width)``; ``bias`` is added to the scores ``(batch, 1, 1, patches)``."""
        probe = ops.broadcast_to(
            ops.cast(ops.convert_to_tensor(self.probe.value), x.dtype), (ops.shape(x)[0], 1, self.block.width)
        )
        y, _ = attention(self, probe, x, bias, self.block.heads, Dropout(0.0, None))
        return (y + self.down(self.act(self.up(self.norm(y)))))[:, 0]


class SiglipVisionTower(VisionTower):
    """``siglip_vision_model``."""

    main_layer = "siglip"

    def assemble(self, config: Any) -> None:
        """Embeddings, blocks, norm, attention pooling."""
        width = config.hidden_size
        std = width**-0.5
        images = ImageSpec(
            channels=config.num_channels,
            image=pair(config.image_size),
            patch=pair(config.patch_size),
            width=width,
            names=EMBEDDINGS,
            bias=True,
            flat=True,
            std=std,
            token_std=0.0,
        )
        block = siglip_block(config)
        root = "siglip/vision_model"
        self.embeddings = self.layer(f"{root}/embeddings", ImageEmbeddings, images)
        self.blocks = [
            self.layer(f"{root}/encoder/layers_._{i}", Block, block, self.seeds)
            for i in range(config.num_hidden_layers)
        ]
        self.norm = self.part(f"{root}/post_layernorm", Norm(width, config.layer_norm_eps))
        if self.add_pooling_layer:
            self.pooler = self.layer(f"{root}/head", AttentionPooling, block)

    def after(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Normalised hidden states and the probe's view of them."""
        x = self.norm(x)
        return x, (self.pooler(x) if self.pooler is not None else None)

    def check_size(self, size: Size) -> None:
        """As many patches as positions; what is left over at the borders is cut off, as in PyTorch."""
        patch, grid = self.embeddings.spec.patch, self.embeddings.spec.grid
        if (size[0] // patch[0]) * (size[1] // patch[1]) != grid[0] * grid[1]:
            self.refuse_size(size)

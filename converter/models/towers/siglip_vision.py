"""SigLIP's vision tower (https://arxiv.org/abs/2303.15343): no class token; a learned probe attends to all patches."""

from __future__ import annotations

from typing import Any

from keras import ops

from converter.models.blocks import Block, BlockSpec, Spread, attention
from converter.models.embeddings import ImageEmbeddings, ImageSpec, pair
from converter.models.parts import CompositeLayer, Dense, Dropout, Norm, Raw
from converter.models.towers.clip_vision import BLOCK
from converter.models.vision_tower import VisionTower

Tensor = Any

EMBEDDINGS = {"positions": "position_embedding", "patches": "patch_embedding"}


class AttentionPooling(CompositeLayer):
    """A probe attends to all patches; then an MLP whose residual is the attention's output.

    ``in_proj_weight (3 width, width)`` holds query, key and value one below the other, in PyTorch's layout.
    """

    def __init__(self, block: BlockSpec, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        width, std = block.width, block.spread.query
        self.block = block
        self.probe = self.part("probe", Raw((1, 1, width), std=1.0))
        self.weight = self.part("attention/in_proj_weight", Raw((3 * width, width), std=std))
        self.offset = self.part("attention/in_proj_bias", Raw((3 * width,)))
        self.out = self.part("attention/out_proj", Dense(width, width, std=std))
        self.norm = self.part("layernorm", Norm(width, block.eps))
        self.up = self.part("mlp/fc1", Dense(width, block.inner, std=block.spread.up))
        self.down = self.part("mlp/fc2", Dense(block.inner, width, std=block.spread.down))

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

    def call(self, x: Tensor) -> Tensor:
        """``(batch, patches, width)`` to ``(batch, width)``."""
        probe = ops.broadcast_to(
            ops.cast(ops.convert_to_tensor(self.probe.value), x.dtype), (ops.shape(x)[0], 1, self.block.width)
        )
        y, _ = attention(self, probe, x, None, self.block.heads, Dropout(0.0, None))
        act = self.act
        return (y + self.down(act(self.up(self.norm(y)))))[:, 0]

    @property
    def act(self) -> Any:
        """The activation of the tower's blocks."""
        from converter.models.activations import activation

        return activation(self.block.act)


class SiglipVisionTower(VisionTower):
    """``siglip_vision_model``."""

    model_types = ("siglip_vision_model",)
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
        block = BlockSpec(
            width=width,
            heads=config.num_attention_heads,
            inner=config.intermediate_size,
            act=config.hidden_act,
            eps=config.layer_norm_eps,
            norm_first=True,
            names=BLOCK,
            spread=Spread.even(std),
            attention_dropout=config.attention_dropout,
        )
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

    def fits(self, size: tuple[int, int]) -> bool:
        """As many patches as positions; what is left over at the borders is cut off, as in PyTorch."""
        wanted, patch = pair(self.config.image_size), pair(self.config.patch_size)
        count = (size[0] // patch[0]) * (size[1] // patch[1])
        return count == (wanted[0] // patch[0]) * (wanted[1] // patch[1])

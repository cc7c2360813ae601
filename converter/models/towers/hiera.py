"""Hiera (https://arxiv.org/abs/2306.00989) without its masks: stages that begin with the greatest of their queries."""

from __future__ import annotations

import math
from typing import Any

from keras import ops

from converter.errors import UnsupportedOption
from converter.models.blocks import block_names
from converter.models.embeddings import pair
from converter.models.mask_units import UnitBlock, UnrolledEmbeddings
from converter.models.parts import Norm
from converter.models.stages import StagedTower
from converter.models.vision_tower import Size

Tensor = Any

BLOCK = block_names(
    norm1="layernorm_before", qkv="attn/qkv", out="attn/proj", norm2="layernorm_after", up="mlp/fc1", down="mlp/fc2"
)


class HieraTower(StagedTower):
    """``hiera``; its stages pool at their beginning, so that nothing stands between them."""

    main_layer = "hiera"

    def assemble(self, config: Any) -> None:
        """Embeddings, stages of blocks, the norm of what is pooled.

        Raises:
            UnsupportedOption: PyTorch cannot run images of the config's own size.
        """
        self.embeddings = self.layer("hiera/embeddings", UnrolledEmbeddings, config)
        size = pair(config.image_size)
        if not self.embeddings.takes(size):
            raise UnsupportedOption(
                f"vision_config.image_size is {size[0]} x {size[1]}, no whole number of patches that query_stride divides at "
                "every stage: PyTorch cannot run it. Correct the config."
            )
        self.stages: list[Any] = []
        self.mergings: list[Any] = []
        self.tokens = self.embeddings.count
        for stage, depth in enumerate(config.depths):
            path = f"hiera/encoder/stages_._{stage}"
            self.stages.append([self.block(f"{path}/layers_._{number}", stage, number) for number in range(depth)])
        if self.add_pooling_layer:
            width = self.width_of(len(config.depths) - 1)
            self.pooler = self.part("hiera/pooler/layernorm", Norm(width, config.layer_norm_eps))

    def width_of(self, stage: int) -> int:
        """Width of a stage's tokens; the first stage's before it, too."""
        return int(self.config.embed_dim * self.config.embed_dim_multiplier ** max(stage, 0))

    def block(self, path: str, stage: int, number: int) -> Any:
        """A block; the first of a stage pools and widens, still within the units of the stage before.

        Raises:
            UnsupportedOption: PyTorch cannot run it.
        """
        config, width = self.config, self.width_of(stage)
        before = self.width_of(stage - 1) if number == 0 else width
        area = math.prod(config.query_stride)
        pools = area if number == 0 and 1 <= stage <= config.num_query_pool else 1
        masked = config.masked_unit_attention
        if pools > 1 and before == width:
            raise UnsupportedOption(
                f"vision_config.embed_dim_multiplier is {config.embed_dim_multiplier}, which makes stage {stage} no wider than "
                "the one before: PyTorch cannot pool there. Correct the config."
            )
        unit = None
        if masked[stage] or (number == 0 and masked[max(stage - 1, 0)]):
            unit = pools * int(math.prod(config.masked_unit_size) * area**-stage)
        if unit is not None and (unit == 0 or self.tokens % unit):
            raise UnsupportedOption(
                f"vision_config.masked_unit_size is {list(config.masked_unit_size)}, which does not divide the {self.tokens} "
                f"tokens of stage {stage}: PyTorch cannot run it. Correct the config."
            )
        self.tokens //= pools
        names = BLOCK if before == width else block_names(**BLOCK, wider="proj")
        return self.layer(path, UnitBlock, self.spec(stage, number, names=names), before, unit, pools, self.seeds)

    def bias(self, pixel_values: Tensor, training: bool) -> Any:
        """Nothing: blocks count tokens, not rows and columns."""
        del pixel_values, training

    def check_size(self, size: Size) -> None:
        """Images of as many patches as the config's."""
        if not self.embeddings.takes(size):
            self.refuse_size(size)

    def after(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Hidden states, and their mean, normalised."""
        return x, (self.pooler(ops.sum(x, axis=1) / x.shape[1]) if self.pooler is not None else None)

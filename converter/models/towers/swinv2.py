"""Swin V2 (https://arxiv.org/abs/2111.09883): Swin with cosine attention, log-spaced positions and the norm last."""

from __future__ import annotations

from typing import Any

from converter.errors import UnsupportedOption
from converter.models.blocks import QKV, block_names
from converter.models.cosine_windows import CosineWindowBlock
from converter.models.embeddings import pair
from converter.models.parts import CompositeLayer, Dense, Norm
from converter.models.stages import EPS, StagedTower, joined
from converter.models.vision_tower import Size

Tensor = Any

BLOCK = block_names(
    scale="attention/self/logit_scale",
    bias_up="attention/self/continuous_position_bias_mlp.0",
    bias_down="attention/self/continuous_position_bias_mlp.2",
    query="attention/self/query",
    key="attention/self/key",
    value="attention/self/value",
    out="attention/output/dense",
    norm1="layernorm_before",
    up="intermediate/dense",
    down="output/dense",
    norm2="layernorm_after",
)


class Merging(CompositeLayer):
    """Joins four neighbours into one patch of twice the width, normed after."""

    def __init__(self, width: int, std: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.width = width
        self.reduction = self.part("reduction", Dense(4 * width, 2 * width, bias=False, std=std))
        self.norm = self.part("norm", Norm(2 * width, EPS))

    def call(self, x: Tensor, size: Size) -> Tensor:
        """``(batch, height * width, channels)`` to ``(batch, ceil(height / 2) * ceil(width / 2), 2 * channels)``."""
        return self.norm(self.reduction(joined(x, size, self.width)))


class Swinv2Tower(StagedTower):
    """``swinv2``."""

    main_layer = "swinv2"
    merging = Merging

    def block(self, path: str, stage: int, number: int) -> Any:
        """A block; every second one is shifted, and where the window is as high as the grid, none."""
        config, unbiased = self.config, ("key",) if self.config.qkv_bias else QKV
        spec = self.spec(stage, number, norm_first=False, names=BLOCK, unbiased=unbiased)
        # The config's image decides, by its height; PyTorch keeps both for images of any size.
        rows = self.embeddings.spec.grid[0] // 2**stage
        if not rows:
            raise UnsupportedOption(
                f"image_size and patch_size leave no patch at stage {stage}; Swin V2's windows are as high at most as the "
                "grid of a stage. Correct the config."
            )
        shift = config.window_size // 2 if number % 2 and rows > config.window_size else 0
        sizes = config.pretrained_window_sizes
        pretrained = pair(sizes[stage]) if sizes is not None else (0, 0)
        return self.layer(path, CosineWindowBlock, spec, min(rows, config.window_size), shift, pretrained, self.seeds)

"""Swin (https://arxiv.org/abs/2103.14030): attention within windows, shifted every second time; stages that merge."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from keras import ops

from converter.errors import ModelError
from converter.models.blocks import QKV, block_names
from converter.models.embeddings import ImageSpec
from converter.models.parts import CompositeLayer, Dense, Norm
from converter.models.stages import EPS, StagedTower, halved, joined
from converter.models.vision_tower import Size
from converter.models.windows import WindowBlock

Tensor = Any

BLOCK = block_names(
    norm1="layernorm_before",
    table="attention/self/relative_position_bias_table",
    query="attention/self/query",
    key="attention/self/key",
    value="attention/self/value",
    out="attention/output/dense",
    norm2="layernorm_after",
    up="intermediate/dense",
    down="output/dense",
)


class SwinBlock(WindowBlock):
    """Norm first; stochastic depth only for attention, as in PyTorch."""

    def call(  # type: ignore[override]  # Keras calls it by name, with what the tower gives.
        self, x: Tensor, size: Size, training: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Windowed attention, then MLP, each with its residual; see ``WindowBlock``."""
        y, weights = self.in_windows(self.norm1(x), size, training)
        x = ops.add(x, self.drop_path(y, training))
        return ops.add(x, self.drop_mlp(self.mlp(self.norm2(x)), training)), weights


class Merging(CompositeLayer):
    """Joins four neighbours into one patch of twice the width, normed before."""

    def __init__(self, width: int, std: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.width = width
        self.reduction = self.part("reduction", Dense(4 * width, 2 * width, bias=False, std=std))
        self.norm = self.part("norm", Norm(4 * width, EPS))

    def call(self, x: Tensor, size: Size) -> Tensor:
        """``(batch, height * width, channels)`` to ``(batch, ceil(height / 2) * ceil(width / 2), 2 * channels)``."""
        return self.reduction(self.norm(joined(x, size, self.width)))


class SwinTower(StagedTower):
    """``swin``."""

    main_layer = "swin"
    merging = Merging
    kind: type[SwinBlock] = SwinBlock

    def images(self, config: Any) -> ImageSpec:
        """The embeddings' shape, maybe with positions."""
        spec = super().images(config)
        if not config.use_absolute_embeddings:
            return spec
        return replace(spec, names={"positions": "positional_embeddings", **spec.names})

    def block(self, path: str, stage: int, number: int) -> Any:
        """A block; every second one is shifted by half a window."""
        config, window = self.config, self.config.window_size
        spec = self.spec(
            stage,
            number,
            names=BLOCK,
            unbiased=() if config.qkv_bias else QKV,
            table=((2 * window - 1) ** 2, config.num_heads[stage]),
        )
        return self.layer(path, self.kind, spec, window, window // 2 if number % 2 else 0, self.seeds)

    def check_size(self, size: Size) -> None:
        """At every stage at least one window; with absolute positions exactly as many patches."""
        grid, config = self.embeddings.grid_of(size), self.config
        said, count = f"pixel_values is {size[0]} x {size[1]}", math.prod(self.embeddings.spec.grid)
        if config.use_absolute_embeddings and math.prod(grid) != count:
            raise ModelError(
                f"{said}, which makes {grid[0]} x {grid[1]} patches; there are absolute positions for {count}. "
                "Resize the images with the image processor that belongs to this vision tower."
            )
        for stage in range(len(config.depths)):
            if min(grid) < config.window_size:
                raise ModelError(
                    f"{said}, which leaves {grid[0]} x {grid[1]} patches at stage {stage}; window_size is "
                    f"{config.window_size}. Use larger images, or a config with smaller windows."
                )
            grid = halved(grid)

"""Swin (https://arxiv.org/abs/2103.14030): attention within windows, shifted every second time; stages that merge."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from keras import ops

from converter.errors import ModelError
from converter.models.blocks import QKV, Block, BlockSpec, Spread, block_names
from converter.models.embeddings import ImageSpec, Patches, pair
from converter.models.parts import CompositeLayer, Dense, Dropout, Norm, Raw
from converter.models.relative import grid_index
from converter.models.tower import asked
from converter.models.vision_tower import Size, VisionTower

Tensor = Any

EPS = 1e-5  # of embeddings and merging, whatever the config says
SHUT = -100.0  # added to scores between regions that the shift brought together

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


class WindowBlock(Block):
    """A block whose attention stays within windows of ``window`` by ``window`` patches."""

    def __init__(self, spec: BlockSpec, window: int, shift: int, seeds: Any = None, **kwargs: Any) -> None:
        super().__init__(spec, seeds, **kwargs)
        self.window, self.shift = window, shift

    def call(  # type: ignore[override]  # Keras calls it by name, with what the tower gives.
        self, x: Tensor, size: Size, training: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Windowed attention, then MLP, each with its residual.

        Args:
            x: hidden states ``(batch, height * width, width)``.
            size: height and width in patches.
            training: whether dropout is on.

        Returns:
            Hidden states of the same shape, and weights ``(batch * windows, heads, window ** 2, window ** 2)``.
        """
        height, width = size
        shift = 0 if min(size) <= self.window else self.shift
        y = ops.reshape(self.norm1(x), (-1, height, width, self.spec.width))
        down, right = -height % self.window, -width % self.window
        if down or right:
            y = ops.pad(y, ((0, 0), (0, down), (0, right), (0, 0)))
        padded = (height + down, width + right)
        if shift:
            y = ops.roll(y, (-shift, -shift), (1, 2))
        y, weights = self.attend(self._cut(y, padded), self._bias(padded, shift, x), training)
        y = self._join(self.drop_hidden(y, training), padded)
        if shift:
            y = ops.roll(y, (shift, shift), (1, 2))
        y = ops.reshape(y[:, :height, :width], (-1, height * width, self.spec.width))
        x = ops.add(x, self.drop_path(y, training))
        return ops.add(x, self.drop_hidden(self.mlp(self.norm2(x)), training)), weights

    def _cut(self, x: Tensor, size: Size) -> Tensor:
        """``(batch, height, width, channels)`` to ``(batch * windows, window ** 2, channels)``."""
        rows, columns, side = size[0] // self.window, size[1] // self.window, self.window
        x = ops.reshape(x, (-1, rows, side, columns, side, self.spec.width))
        return ops.reshape(ops.transpose(x, (0, 1, 3, 2, 4, 5)), (-1, side * side, self.spec.width))

    def _join(self, x: Tensor, size: Size) -> Tensor:
        """Undoes ``_cut``."""
        rows, columns, side = size[0] // self.window, size[1] // self.window, self.window
        x = ops.reshape(x, (-1, rows, columns, side, side, self.spec.width))
        return ops.reshape(ops.transpose(x, (0, 1, 3, 2, 4, 5)), (-1, *size, self.spec.width))

    def _bias(self, size: Size, shift: int, x: Tensor) -> Tensor:
        """Relative positions, and after a shift ``SHUT`` between regions: ``(1 or batch * windows, heads, n, n)``."""
        index = ops.convert_to_tensor(grid_index(self.window, self.window).astype("int32"))
        learned = ops.transpose(ops.take(self.table.value, index, axis=0), (2, 0, 1))[None]
        if not shift:
            return learned
        shut = ops.cast(ops.convert_to_tensor(self._regions(size, shift)), x.dtype)[:, None]
        return ops.add(learned, ops.tile(shut, (ops.shape(x)[0], 1, 1, 1)))

    def _regions(self, size: Size, shift: int) -> np.ndarray[Any, Any]:
        """``(windows, n, n)``: 0 within a region, ``SHUT`` between two."""
        marks = [np.digitize(np.arange(length), (length - self.window, length - shift)) for length in size]
        region = marks[0][:, None] * 3 + marks[1][None, :]
        rows, columns, side = size[0] // self.window, size[1] // self.window, self.window
        cut = region.reshape(rows, side, columns, side).transpose(0, 2, 1, 3).reshape(-1, side * side)
        return np.where(cut[:, :, None] == cut[:, None, :], 0.0, SHUT)


class Merging(CompositeLayer):
    """Joins four neighbours into one patch of twice the width; odd sizes are padded."""

    def __init__(self, width: int, std: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.width = width
        self.reduction = self.part("reduction", Dense(4 * width, 2 * width, bias=False, std=std))
        self.norm = self.part("norm", Norm(4 * width, EPS))

    def call(self, x: Tensor, size: Size) -> Tensor:
        """``(batch, height * width, channels)`` to ``(batch, ceil(height / 2) * ceil(width / 2), 2 * channels)``."""
        x = ops.reshape(x, (-1, *size, self.width))
        if size[0] % 2 or size[1] % 2:
            x = ops.pad(x, ((0, 0), (0, size[0] % 2), (0, size[1] % 2), (0, 0)))
        x = ops.concatenate([x[:, row::2, column::2] for column in range(2) for row in range(2)], axis=-1)
        return self.reduction(self.norm(ops.reshape(x, (-1, math.prod(halved(size)), 4 * self.width))))


def halved(size: Size) -> Size:
    """Height and width in patches after a merging."""
    return (size[0] + 1) // 2, (size[1] + 1) // 2


class SwinEmbeddings(CompositeLayer):
    """Patches of the image, padded to whole patches, normalised, maybe plus positions."""

    def __init__(self, spec: ImageSpec, seeds: Any = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.spec = spec
        parts = {
            "positions": Raw((1, spec.grid[0] * spec.grid[1], spec.width), std=spec.std),
            "patches": Patches(spec.channels, spec.patch, spec.width, bias=True, std=spec.std),
            "norm": Norm(spec.width, EPS),
        }
        for role, path in spec.names.items():
            setattr(self, role, self.part(path, parts[role]))
        self.drop = Dropout(spec.dropout, seeds)

    def grid_of(self, size: Size) -> Size:
        """Rows and columns of patches of images of this height and width, which are padded to whole patches."""
        height, width = self.spec.patch
        return -(-size[0] // height), -(-size[1] // width)

    def call(self, pixel_values: Tensor, training: bool = False) -> Tensor:
        """``(batch, channels, height, width)`` to ``(batch, patches, width)``."""
        sizes = zip(pixel_values.shape[2:], self.spec.patch, strict=True)
        down, right = (-int(size) % patch for size, patch in sizes)
        if down or right:
            pixel_values = ops.pad(pixel_values, ((0, 0), (0, 0), (0, down), (0, right)))
        x = self.norm(self.patches(pixel_values))
        if "positions" in self.spec.names:
            x = x + self.positions.value
        return self.drop(x, training)


class SwinTower(VisionTower):
    """``swin``; hidden states and attention weights are given out once per stage, as in PyTorch."""

    main_layer = "swin"

    def assemble(self, config: Any) -> None:
        """Embeddings, stages of blocks with a merging between them, norm."""
        positions = {"positions": "positional_embeddings"} if config.use_absolute_embeddings else {}
        images = ImageSpec(
            channels=config.num_channels,
            image=pair(config.image_size),
            patch=pair(config.patch_size),
            width=config.embed_dim,
            names={**positions, "patches": "patch_embeddings/projection", "norm": "norm"},
            bias=True,
            flat=False,
            std=config.initializer_range,
            token_std=0.0,
            dropout=config.hidden_dropout_prob,
        )
        self.embeddings = self.layer("swin/embeddings", SwinEmbeddings, images, self.seeds)
        self.stages: list[Any] = []
        self.mergings: list[Any] = []
        for stage in range(len(config.depths)):
            self.stages.append(self._stage(config, stage))
            if stage < len(config.depths) - 1:
                path = f"swin/encoder/layers.{stage}/downsample"
                width = config.embed_dim * 2**stage
                self.mergings.append(self.layer(path, Merging, width, config.initializer_range))
        width = config.embed_dim * 2 ** (len(config.depths) - 1)
        self.norm = self.part("swin/layernorm", Norm(width, config.layer_norm_eps))

    def _stage(self, config: Any, stage: int) -> list[Any]:
        width, heads, window = config.embed_dim * 2**stage, config.num_heads[stage], config.window_size
        spec = BlockSpec(
            width=width,
            heads=heads,
            inner=int(config.mlp_ratio * width),
            act=config.hidden_act,
            eps=config.layer_norm_eps,
            norm_first=True,
            names=BLOCK,
            spread=Spread.even(config.initializer_range),
            unbiased=() if config.qkv_bias else QKV,
            attention_dropout=config.attention_probs_dropout_prob,
            hidden_dropout=config.hidden_dropout_prob,
            table=((2 * window - 1) ** 2, heads),
        )
        before, count = sum(config.depths[:stage]), max(sum(config.depths) - 1, 1)
        return [
            self.layer(
                f"swin/encoder/layers.{stage}/blocks.{i}",
                WindowBlock,
                replace(spec, drop_path=config.drop_path_rate * (before + i) / count),
                window,
                window // 2 if i % 2 else 0,
                self.seeds,
            )
            for i in range(config.depths[stage])
        ]

    def bias(self, pixel_values: Tensor, training: bool) -> Any:
        """Not a bias: the grid of patches, which the blocks make theirs from."""
        del training
        return self.embeddings.grid_of((int(pixel_values.shape[2]), int(pixel_values.shape[3])))

    def check_size(self, size: Size) -> None:
        """At every stage at least one window; with absolute positions as many patches as they are for."""
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

    def encode(
        self,
        x: Tensor,
        bias: Any,
        output_attentions: bool | None,
        output_hidden_states: bool | None,
        training: bool,
    ) -> tuple[Tensor, dict[str, Any]]:
        """Runs the stages; hidden states are those after each merging, weights those of each stage's last block."""
        size: Size = bias
        states, attentions = [x], []
        for stage, blocks in enumerate(self.stages):
            weights = None
            for block in blocks:
                x, weights = block(x, size=size, training=training)
            attentions.append(weights)
            if stage < len(self.mergings):
                x = self.mergings[stage](x, size=size)
                size = halved(size)
            states.append(x)
        wanted = asked(output_hidden_states, self.config, "output_hidden_states")
        weighed = asked(output_attentions, self.config, "output_attentions")
        return x, {
            "hidden_states": tuple(states) if wanted else None,
            "attentions": tuple(attentions) if weighed else None,
        }

    def after(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Normalised hidden states and their mean."""
        x = self.norm(x)
        return x, (ops.sum(x, axis=1) / x.shape[1] if self.add_pooling_layer else None)

"""Towers in stages, each of fewer and wider patches than the one before (Swin, https://arxiv.org/abs/2103.14030)."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any, ClassVar

from keras import ops

from converter.models.blocks import BlockSpec, Spread
from converter.models.embeddings import ImageSpec, Patches
from converter.models.parts import CompositeLayer, Dropout, Norm, Raw
from converter.models.tower import asked
from converter.models.vision_tower import Size, VisionTower

Tensor = Any

EPS = 1e-5  # of embeddings and merging, for any config


def halved(size: Size) -> Size:
    """Height and width in patches after a merging."""
    return (size[0] + 1) // 2, (size[1] + 1) // 2


def drop_path_rate(config: Any, stage: int, number: int) -> float:
    """The rate of stochastic depth of a stage's block: it grows evenly from the first block to the last of the tower."""
    rate: float = config.drop_path_rate * (sum(config.depths[:stage]) + number) / max(sum(config.depths) - 1, 1)
    return rate


def joined(x: Tensor, size: Size, width: int) -> Tensor:
    """Four neighbours side by side, odd sizes padded.

    Args:
        x: ``(batch, height * width, channels)``.
        size: height and width in patches.
        width: channels.

    Returns:
        ``(batch, ceil(height / 2) * ceil(width / 2), 4 * channels)``: upper left, lower left, upper right, lower right.
    """
    x = ops.reshape(x, (-1, *size, width))
    if size[0] % 2 or size[1] % 2:
        x = ops.pad(x, ((0, 0), (0, size[0] % 2), (0, size[1] % 2), (0, 0)))
    x = ops.concatenate([x[:, row::2, column::2] for column in range(2) for row in range(2)], axis=-1)
    return ops.reshape(x, (-1, math.prod(halved(size)), 4 * width))


class PaddedEmbeddings(CompositeLayer):
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


class StagedTower(VisionTower):
    """Stages of blocks with a merging between them; hidden states and weights are given out once per stage, as in PyTorch."""

    # What makes a stage's patches fewer and wider: called with the width before and a standard deviation.
    merging: type[CompositeLayer]
    norm_at_end: ClassVar[bool] = True

    def assemble(self, config: Any) -> None:
        """Embeddings, stages of blocks with a merging between them, maybe a norm."""
        root, std, count = self.main_layer, config.initializer_range, len(config.depths)
        self.embeddings = self.layer(f"{root}/embeddings", PaddedEmbeddings, self.images(config), self.seeds)
        self.stages: list[Any] = []
        self.mergings: list[Any] = []
        for stage in range(count):
            path, width = f"{root}/encoder/layers.{stage}", self.width_of(stage)
            self.stages.append([self.block(f"{path}/blocks.{i}", stage, i) for i in range(config.depths[stage])])
            if stage < count - 1:
                self.mergings.append(self.layer(f"{path}/downsample", self.merging, width, std))
        if self.norm_at_end:
            self.norm = self.part(f"{root}/layernorm", Norm(self.width_of(count - 1), config.layer_norm_eps))

    def width_of(self, stage: int) -> int:
        """Width of a stage's tokens."""
        return int(self.config.embed_dim * 2**stage)

    def spec(self, stage: int, number: int, **changes: Any) -> BlockSpec:
        """What the blocks of all such towers have alike, and with changes what one has."""
        config, width = self.config, self.width_of(stage)
        # Of what attention gives, too, as PyTorch has it.
        dropped = getattr(config, "attention_probs_dropout_prob", 0.0)
        fields: dict[str, Any] = {
            "width": width,
            "heads": config.num_heads[stage],
            "inner": int(config.mlp_ratio * width),
            "act": config.hidden_act,
            "eps": config.layer_norm_eps,
            "norm_first": True,
            "spread": Spread.even(config.initializer_range),
            "attention_dropout": dropped,
            "hidden_dropout": dropped,
            "mlp_dropout": getattr(config, "hidden_dropout_prob", 0.0),
            "drop_path": drop_path_rate(config, stage, number),
        }
        return BlockSpec(**{**fields, **changes})

    @abstractmethod
    def block(self, path: str, stage: int, number: int) -> Any:
        """Makes a stage's block of this number, from 0, under a path."""

    def images(self, config: Any) -> ImageSpec:
        """The embeddings' shape."""
        return ImageSpec.of(
            config,
            width=config.embed_dim,
            names={"patches": "patch_embeddings/projection", "norm": "norm"},
            bias=True,
            flat=False,
            std=config.initializer_range,
            token_std=0.0,
            dropout=config.hidden_dropout_prob,
        )

    def bias(self, pixel_values: Tensor, training: bool) -> Any:
        """Not a bias: the grid of patches, which the blocks make theirs from."""
        del training
        return self.embeddings.grid_of((int(pixel_values.shape[2]), int(pixel_values.shape[3])))

    def check_size(self, size: Size) -> None:
        """Any size: images are padded to whole patches, and grids to whole windows."""

    def encode(
        self,
        x: Tensor,
        bias: Any,
        output_attentions: bool | None,
        output_hidden_states: bool | None,
        training: bool,
    ) -> tuple[Tensor, dict[str, Any]]:
        """Runs the stages; one of the hidden states for each, and the weights of its last block."""
        size: Size = bias
        states, attentions = [x], []
        for stage, blocks in enumerate(self.stages):
            weights, inside = None, []
            for block in blocks:
                given = x
                x, weights = block(x, size=size, training=training)
                inside += [given, x]
            attentions.append(weights)
            if stage < len(self.mergings):
                x = self.mergings[stage](x, size=size)
                size = halved(size)
            states.append(self.state(tuple(inside), x))
        wanted = asked(output_hidden_states, self.config, "output_hidden_states")
        weighed = asked(output_attentions, self.config, "output_attentions")
        return x, {
            "hidden_states": tuple(states) if wanted else None,
            "attentions": tuple(attentions) if weighed else None,
        }

    def state(self, inside: tuple[Tensor, ...], merged: Tensor) -> Any:
        """Of the hidden states a stage's: what its merging gives.

        Args:
            inside: what each block was given, and what it gave.
            merged: what the next stage is given.
        """
        del inside
        return merged

    def after(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Hidden states, normalised where there is a norm, and their mean."""
        x = self.norm(x) if self.norm_at_end else x
        return x, (ops.sum(x, axis=1) / x.shape[1] if self.add_pooling_layer else None)

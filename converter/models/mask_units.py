"""Attention within mask units, and pooling of queries (Hiera, https://arxiv.org/abs/2306.00989).

Tokens lie so that those which one pooling joins are as many tokens apart as there are left after it, whatever the stage.
"""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
from keras import ops

from converter.models.blocks import Block, BlockSpec, attention
from converter.models.embeddings import pair
from converter.models.overlapping import OverlappingPatches
from converter.models.parts import CompositeLayer, Dense, Norm, Raw

Tensor = Any
Size = tuple[int, int]


def unrolled(grid: Size, stride: Size, times: int) -> np.ndarray[Any, Any]:
    """Which patch, row by row, is the first token, the second and so on.

    Args:
        grid: rows and columns of patches.
        stride: rows and columns that a pooling makes one.
        times: how often tokens can be pooled.

    Returns:
        ``(rows * columns,)``: places in a pooled square first, those in the squares' own squares next, the squares last.
    """
    index = np.arange(math.prod(grid)).reshape(1, *grid)
    (down, across), (rows, columns) = stride, grid
    for _ in range(times):
        rows, columns = rows // down, columns // across
        index = index.reshape(-1, rows, down, columns, across).transpose(0, 2, 4, 1, 3).reshape(-1, rows, columns)
    return index.reshape(-1)


def greatest(x: Tensor, of: int) -> Tensor:
    """``(batch, tokens, width)`` to ``(batch, tokens / of, width)``: of the joined tokens each number's greatest."""
    if of == 1:
        return x
    return ops.max(ops.reshape(x, (-1, of, x.shape[1] // of, x.shape[2])), axis=1)


class UnrolledEmbeddings(CompositeLayer):
    """Overlapping patches plus positions, in the order of ``unrolled``."""

    def __init__(self, config: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.pooled, self.times = pair(config.query_stride), len(config.depths) - 1
        self.steps, width, std = pair(config.patch_stride), config.embed_dim, config.initializer_range
        self.count = math.prod(self.wanted_grid(pair(config.image_size)))
        self.positions = self.part("position_embeddings", Raw((1, self.count, width), std=std))
        patch, border = pair(config.patch_size), pair(config.patch_padding)
        patches = OverlappingPatches(config.num_channels, patch, width, self.steps, border, std=std)
        self.patches = self.part("patch_embeddings/projection", patches)

    def wanted_grid(self, size: Size) -> Size:
        """Rows and columns that PyTorch takes the patches of images of this height and width for."""
        return size[0] // self.steps[0], size[1] // self.steps[1]

    def takes(self, size: Size) -> bool:
        """Whether images of this height and width make as many patches as there are positions, in whole units."""
        grid = self.patches.grid_of(size)
        whole = not any(side % by**self.times for side, by in zip(grid, self.pooled, strict=True))
        return grid == self.wanted_grid(size) and math.prod(grid) == self.count and whole

    def call(self, pixel_values: Tensor, training: bool = False) -> Tensor:
        """``(batch, channels, height, width)`` to ``(batch, patches, width)``."""
        del training
        grid = self.patches.grid_of((int(pixel_values.shape[2]), int(pixel_values.shape[3])))
        order = ops.convert_to_tensor(unrolled(grid, self.pooled, self.times).astype("int32"))
        return ops.take(ops.add(self.patches(pixel_values), self.positions.value), order, axis=1)


class UnitBlock(Block):
    """A block that attends within units of ``unit`` tokens, or to all.

    Of ``pools`` tokens it makes one, and all of them wider where ``names`` has ``wider``. It is called with ``x (batch,
    tokens, width)``, ``size``, which does not matter, and ``training``. It returns ``(batch, tokens / pools, wider width)``, and
    weights ``(batch, heads, units, queries of a unit, tokens of a unit)``.
    """

    def __init__(
        self, spec: BlockSpec, width: int, unit: int | None, pools: int, seeds: Any = None, **kwargs: Any
    ) -> None:
        std = spec.spread.query
        own = {
            "norm1": Norm(width, spec.eps),
            "qkv": Dense(width, 3 * spec.width, std=std),
            "wider": Dense(width, spec.width, std=std),
        }
        super().__init__(spec, seeds, own, **kwargs)
        self.unit, self.pools = unit, pools

    def call(  # type: ignore[override]  # Keras calls it by name, with what the tower gives.
        self, x: Tensor, size: Any = None, training: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Attention, then MLP, each with its residual; see the class."""
        del size
        y = self.norm1(x)
        x = greatest(self.wider(y), self.pools) if "wider" in self.spec.names else x
        y, weights = self.attend(y, None, training)
        x = ops.add(x, self.drop_path(y, training))
        return ops.add(x, self.drop_path(self.mlp(self.norm2(x)), training)), weights

    def attend(self, x: Tensor, bias: Tensor | None, training: bool) -> tuple[Tensor, Tensor]:
        """Attention within each unit; returns its output and the weights."""
        width, heads, tokens = self.spec.width, self.spec.heads, self.unit or x.shape[1]
        units = x.shape[1] // tokens
        thirds = ops.split(self.qkv(x), 3, axis=-1)
        query, key, value = (ops.reshape(self.turned(part, tokens, units), (-1, tokens, width)) for part in thirds)
        query = greatest(query, self.pools)
        queries = query.shape[1]
        parts = SimpleNamespace(
            query=lambda rows: rows,
            key=lambda rows: rows,
            value=lambda _: ops.reshape(value, (-1, width)),
            out=lambda mixed: mixed,
        )
        y, weights = attention(parts, query, key, bias, heads, self.drop_attention, training)
        y = self.out(ops.reshape(self.turned(y, units, queries), (-1, queries * units, width)))
        return y, ops.transpose(ops.reshape(weights, (-1, units, heads, queries, tokens)), (0, 2, 1, 3, 4))

    def turned(self, x: Tensor, one: int, other: int) -> Tensor:
        """Rows that are ``(batch, one, other, width)`` as ``(batch, other, one, width)``."""
        return ops.transpose(ops.reshape(x, (-1, one, other, self.spec.width)), (0, 2, 1, 3))

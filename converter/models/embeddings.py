"""The input of the first block: patches of an image or tokens of a text, with their positions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from keras import ops

from converter.errors import ModelError
from converter.models.parts import CompositeLayer, Dropout, Embedding, Make, Norm, Part, Raw
from converter.models.resize import Kind, resize

Tensor = Any


def pair(size: Any) -> tuple[int, int]:
    """Height and width of a config's ``image_size`` or ``patch_size``, which is a number or a pair."""
    if isinstance(size, int):
        return size, size
    height, width = size
    return int(height), int(width)


class Patches(Part):
    """Cuts an image into patches and projects each: a convolution whose stride is its kernel, done as one product.

    Kernel ``(height, width, in, out)``, where PyTorch keeps ``(out, in, height, width)``.
    """

    def __init__(self, channels: int, patch: tuple[int, int], width: int, *, bias: bool, std: float) -> None:
        super().__init__()
        self.channels, self.patch, self.width, self.has_bias, self.std = channels, patch, width, bias, std
        self.kernel: Any = None
        self.bias: Any = None

    def build(self, make: Make) -> None:
        """Creates ``kernel (ph, pw, in, out)`` and, if there is one, ``bias (out,)``."""
        self.kernel = self.weights["kernel"] = make(
            "kernel", (*self.patch, self.channels, self.width), "normal", self.std
        )
        if self.has_bias:
            self.bias = self.weights["bias"] = make("bias", (self.width,), "constant", 0.0)

    def __call__(self, pixels: Tensor) -> Tensor:
        """``(batch, channels, height, width)`` to ``(batch, patches, out)``, row by row; the rest is cut off."""
        patch_height, patch_width = self.patch
        rows, columns = pixels.shape[2] // patch_height, pixels.shape[3] // patch_width
        if (rows * patch_height, columns * patch_width) != tuple(pixels.shape[2:]):
            pixels = pixels[:, :, : rows * patch_height, : columns * patch_width]
        # Four axes at most, as accelerators of LiteRT have it: a row of a patch is one number of its row of patches.
        x = ops.transpose(pixels, (0, 2, 3, 1))
        x = ops.reshape(x, (-1, patch_height, columns, patch_width * self.channels))
        x = ops.transpose(x, (0, 2, 1, 3))
        # The batch is named: with -1, a graph would read an image of another size as several.
        x = ops.reshape(x, (ops.shape(pixels)[0], rows * columns, patch_height * patch_width * self.channels))
        x = ops.matmul(x, ops.reshape(self.kernel, (-1, self.width)))
        return x if self.bias is None else ops.add(x, self.bias)


@dataclass(frozen=True)
class ImageSpec:
    """The shape of an image embedding.

    Args:
        channels: of the image.
        image: height and width that the positions were trained at.
        patch: height and width of a patch.
        width: of the hidden states.
        names: path of each role, in the order of creation: patches and maybe token, second_token, positions.
        bias: whether the patch projection has one.
        flat: the class token is a vector ``(width,)`` and positions are an embedding (CLIP), instead of
            ``(1, 1, width)`` and ``(1, length, width)`` (ViT).
        std: of new weights.
        token_std: of a new class token.
        dropout: on the result.
        mask_rank: how many axes the mask token has, which is kept for its checkpoint's sake only.
        registers: how many learned tokens without a position come between the class token and the patches, where
            ``names`` has them.
        resizing: how positions are resized to another image.
        class_tokens: how many class tokens there are, where ``names`` has one.
    """

    channels: int
    image: tuple[int, int]
    patch: tuple[int, int]
    width: int
    names: Mapping[str, str]
    bias: bool
    flat: bool
    std: float
    token_std: float
    dropout: float = 0.0
    mask_rank: int = 2
    registers: int = 0
    resizing: Kind = "bicubic"
    class_tokens: int = 1

    @classmethod
    def of(cls, config: Any, **fields: Any) -> ImageSpec:
        """The embedding of a config's images and patches, which have the same fields in every config."""
        image, patch = pair(config.image_size), pair(config.patch_size)
        return cls(channels=config.num_channels, image=image, patch=patch, **fields)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return self.image[0] // self.patch[0], self.image[1] // self.patch[1]


class ImageEmbeddings(CompositeLayer):
    """Class tokens (or none) before the patches, plus learned positions.

    A subclass gives the parts of roles that only it has as ``own``.
    """

    def __init__(
        self, spec: ImageSpec, seeds: Any = None, own: Mapping[str, Part] = MappingProxyType({}), **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.spec = spec
        self.tokens = sum(n for role, n in (("token", spec.class_tokens), ("second_token", 1)) if role in spec.names)
        length = spec.grid[0] * spec.grid[1] + self.tokens
        token = (spec.width,) if spec.flat else (1, 1, spec.width)
        parts = {
            "patches": Patches(spec.channels, spec.patch, spec.width, bias=spec.bias, std=spec.std),
            "token": Raw(token if spec.flat else (1, spec.class_tokens, spec.width), std=spec.token_std),
            "second_token": Raw(token, std=spec.token_std),
            "registers": Raw((1, spec.registers, spec.width), std=spec.token_std),
            "mask_token": Raw((*(1,) * (spec.mask_rank - 1), spec.width)),
            "positions": Embedding(length, spec.width, std=spec.std)
            if spec.flat
            else Raw((1, length, spec.width), std=spec.std),
            **own,
        }
        for role, path in spec.names.items():
            setattr(self, role, self.part(path, parts[role]))
        self.drop = Dropout(spec.dropout, seeds)

    def call(self, pixel_values: Tensor, training: bool = False) -> Tensor:
        """``(batch, channels, height, width)`` to ``(batch, tokens + registers + patches, width)``."""
        x = self.projected(pixel_values)
        tokens = [self.for_each(x, role) for role in ("token", "second_token") if role in self.spec.names]
        if tokens:
            x = ops.concatenate([*tokens, x], axis=1)
        if "positions" in self.spec.names:
            x = ops.add(x, self.position_table(pixel_values))
        if "registers" in self.spec.names:
            x = ops.concatenate([x[:, :1], self.for_each(x, "registers"), x[:, 1:]], axis=1)
        return self.drop(x, training)

    def projected(self, pixel_values: Tensor) -> Tensor:
        """The patches ``(batch, patches, width)``."""
        return self.patches(pixel_values)

    def grid_of(self, pixel_values: Tensor) -> tuple[int, int]:
        """Rows and columns of patches of these images."""
        height, width = self.spec.patch
        return int(pixel_values.shape[2]) // height, int(pixel_values.shape[3]) // width

    def check_size(self, size: tuple[int, int]) -> None:
        """Refuses images smaller than a patch.

        Raises:
            ModelError: says what size is expected.
        """
        patch = self.spec.patch
        if size[0] < patch[0] or size[1] < patch[1]:
            raise ModelError(
                f"pixel_values is {size[0]} x {size[1]}; a patch is {patch[0]} x {patch[1]}. Use larger images."
            )

    def for_each(self, x: Tensor, role: str) -> Tensor:
        """Learned tokens of a role, once for each image of ``x``, in its dtype: ``(batch, tokens, width)``."""
        rows = ops.reshape(getattr(self, role).value, (1, -1, self.spec.width))
        return ops.cast(ops.broadcast_to(rows, (ops.shape(x)[0], rows.shape[1], self.spec.width)), x.dtype)

    def position_table(self, pixel_values: Tensor) -> Tensor:
        """Positions ``(..., tokens + patches, width)`` for these images."""
        del pixel_values
        return self.positions.table if self.spec.flat else self.positions.value


class ResizedImageEmbeddings(ImageEmbeddings):
    """Embeddings whose positions are resized to the image (DINOv2, BEiT); those of the tokens stay as they are."""

    def check_size(self, size: tuple[int, int]) -> None:
        """Refuses images smaller than a patch, and those whose positions cannot be resized.

        Raises:
            ModelError: says what size is expected.
        """
        super().check_size(size)
        grid = self.spec.grid
        count = grid[0] * grid[1]
        if "positions" in self.spec.names and not self.positions_fit(size) and math.isqrt(count) ** 2 != count:
            raise ModelError(
                f"pixel_values is {size[0]} x {size[1]}, for which the positions of {grid[0]} x {grid[1]} patches have to "
                "be resized; PyTorch resizes a square number of them only. Use a config whose image_size is square."
            )

    def positions_fit(self, size: tuple[int, int]) -> bool:
        """Whether the positions fit unchanged: for square images with as many patches, as PyTorch decides it."""
        grid, (height, width) = self.spec.grid, self.spec.patch
        return size[0] == size[1] and (size[0] // height) * (size[1] // width) == grid[0] * grid[1]

    def position_table(self, pixel_values: Tensor) -> Tensor:
        """Positions unchanged if they fit; else those of the patches resized, read as a square as in PyTorch."""
        table, grid = self.positions.value, self.grid_of(pixel_values)
        if self.positions_fit((int(pixel_values.shape[2]), int(pixel_values.shape[3]))):
            return table
        table, side = ops.convert_to_tensor(table), math.isqrt(int(table.shape[1]) - self.tokens)
        resized = resize(ops.reshape(table[:, self.tokens :], (side, side, -1)), *grid, self.spec.resizing)
        return ops.concatenate([table[:, : self.tokens], ops.reshape(resized, (1, grid[0] * grid[1], -1))], axis=1)


@dataclass(frozen=True)
class TextSpec:
    """The shape of a text embedding.

    Args:
        vocabulary: number of token ids.
        positions: number of position ids.
        types: number of token type ids; None where the tower has no such table.
        width: of the embedding.
        names: path of each role, in the order of creation: words, maybe types, positions, norm, and those of ``firsts``.
        std: of new weights.
        eps: of the norm, which exists where ``names`` has it.
        dropout: on the result.
        padding: the word that is not trained.
        position_padding: the position that is not trained.
        firsts: tables whose input a dual encoder does not have, so that every token uses the first row. By role, the number
            of rows, and how often the first is added.
    """

    vocabulary: int
    positions: int
    types: int | None
    width: int
    names: Mapping[str, str]
    std: float
    eps: float
    dropout: float = 0.0
    padding: int | None = None
    position_padding: int | None = None
    firsts: Mapping[str, tuple[int, int]] = field(default_factory=dict)


class TextEmbeddings(CompositeLayer):
    """Word, position and token type, added up, normalised where the tower does.

    A subclass gives the parts of roles that only it has as ``own``.
    """

    def __init__(
        self, spec: TextSpec, seeds: Any = None, own: Mapping[str, Part] = MappingProxyType({}), **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.spec = spec
        parts = {
            "words": Embedding(spec.vocabulary, spec.width, leaf="weight", std=spec.std, padding=spec.padding),
            "types": Embedding(spec.types or 0, spec.width, std=spec.std),
            "positions": Embedding(spec.positions, spec.width, std=spec.std, padding=spec.position_padding),
            "norm": Norm(spec.width, spec.eps),
            **{role: Embedding(rows, spec.width, std=spec.std) for role, (rows, _) in spec.firsts.items()},
            **own,
        }
        for role, path in spec.names.items():
            setattr(self, role, self.part(path, parts[role]))
        self.drop = Dropout(spec.dropout, seeds)

    @property
    def weight(self) -> Any:
        """The table of words ``(vocabulary, width)``, as transformers 4 calls it."""
        return self.words.table

    def call(
        self, input_ids: Tensor, position_ids: Tensor, token_type_ids: Tensor | None = None, training: bool = False
    ) -> Tensor:
        """Ids ``(batch, length)`` to ``(batch, length, width)``; ``position_ids`` may have a batch of 1."""
        x = self.words(input_ids)
        if "types" in self.spec.names:
            x = x + (self.types.table[0] if token_type_ids is None else self.types(token_type_ids))
        if "positions" in self.spec.names:
            x = x + self.positions(position_ids)
        for role, (_, times) in self.spec.firsts.items():
            x = x + times * getattr(self, role).table[0]
        if "norm" in self.spec.names:
            x = self.norm(x)
        return self.drop(x, training)


def consecutive(input_ids: Tensor) -> Tensor:
    """Position ids 0, 1, 2 ... as ``(1, length)``."""
    return ops.expand_dims(ops.arange(ops.shape(input_ids)[1], dtype="int32"), 0)


def after_padding(input_ids: Tensor, pad: int) -> Tensor:
    """Position ids that count from ``pad + 1`` and skip padding tokens, which stay at ``pad`` (RoBERTa, fairseq)."""
    real = ops.cast(ops.not_equal(input_ids, pad), "int32")
    return ops.cumsum(real, axis=1) * real + pad

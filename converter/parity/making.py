"""Makes the batches on which both sides run. Decides which inputs find faults, and which would only find noise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from converter.errors import ParityError
from converter.parity.batches import Batch
from converter.parity.inputs import Vocabulary, image_shape, patch_side, read_vocabulary
from converter.parity.taps import Array

# A little beyond black and white after any image processor's normalisation; rounding grows with the size of values.
EXTREME_PIXEL = 3.0


class _Images(NamedTuple):
    """Channels, height and width of a picture, and the side of the patches that a tower takes it in; None: whole."""

    shape: tuple[int, int, int]
    patch: int | None


def make_batches(config: Mapping[str, Any], seed: int = 0) -> tuple[Batch, ...]:
    """Makes five batches that between them meet what implementations get wrong: 8 images, 9 texts.

    No more than that: at the size of a base model these passes are a third of the time that verifying takes.

    Args:
        config: a dual encoder's config.json; fields it omits have transformers' defaults.
        seed: the same seed makes the same batches with the same NumPy; golden reference files carry their own.

    Returns:
        Batches with ragged masks, left padding, no mask, and a mask with holes. They have more images than texts, fewer, and
        as many (so that there is a loss). Some have explicit token types and positions, one position, all positions, or
        extreme pixels.

    Raises:
        ParityError: the config lacks a field, or a vocabulary too small to make texts from.
    """
    draw = np.random.Generator(np.random.PCG64(seed))
    text, images = read_vocabulary(config), _Images(image_shape(config), patch_side(config))
    middle = _within(text, 11)
    return (
        _ragged(draw, text, images, middle),
        _left_padded(draw, text, images, _within(text, 9)),
        _explicit(draw, text, images, middle),
        _shortest(draw, text, images),
        _longest(draw, text, images),
    )


def make_batches_of(
    config: Mapping[str, Any], *, count: int | None = None, length: int | None = None, seed: int = 0
) -> tuple[Batch, ...]:
    """Makes three batches for a model whose shapes are fixed, of the kinds that it can be given.

    Args:
        config: a dual encoder's config.json.
        count: of images and of texts in each batch; None: 3 and 2, 1 and 3, 1 and 1.
        length: of each text; None: three lengths.
        seed: as ``make_batches`` has it.

    Returns:
        Batches with ragged masks, with full masks, and with one position that counts.

    Raises:
        ParityError: as ``make_batches``; or the positions do not reach so far.
    """
    draw = np.random.Generator(np.random.PCG64(seed))
    text, images = read_vocabulary(config), _Images(image_shape(config), patch_side(config))
    if length is not None and length > text.longest:
        raise ParityError(f"texts of {length} tokens; the model takes {text.longest} at most. Choose a smaller length.")
    made = []
    for kind, numbers, usual in (("ragged", (3, 2), 11), ("full", (1, 3), 9), ("shortest", (1, 1), 2)):
        size = length or _within(text, usual)
        pictures, texts = (count or number for number in numbers)
        lengths = {"ragged": [max(1, size - 3 * row) for row in range(texts)], "full": [size] * texts}
        ids, mask = _texts(draw, text, lengths.get(kind, [1] * texts), size)
        title = f"{kind} masks, {pictures} images, {texts} texts of {size}"
        made.append(Batch(title, {**_noise(draw, pictures, images), "input_ids": ids, "attention_mask": mask}))
    return tuple(made)


def _within(text: Vocabulary, length: int) -> int:
    """A length, or the nearest that the tower takes."""
    return max(text.shortest, min(text.longest, length))


def _ragged(draw: np.random.Generator, text: Vocabulary, images: _Images, length: int) -> Batch:
    lengths = [length, max(1, length // 2)]
    ids, mask = _texts(draw, text, lengths, length)
    return Batch(
        "ragged masks, more images than texts",
        {**_noise(draw, 3, images), "input_ids": ids, "attention_mask": mask},
    )


def _left_padded(draw: np.random.Generator, text: Vocabulary, images: _Images, length: int) -> Batch:
    lengths = [max(1, length // 3), length, max(1, length - 2)]
    ids, mask = _texts(draw, text, lengths, length, left=text.pads_left)
    mask[1, 1 : length - 1 : 3] = 0  # holes; the first position and the last, which towers pool from, stay
    return Batch(
        f"padding on the {'left' if text.pads_left else 'right'}, holes in a mask, more texts than images",
        {**_noise(draw, 1, images), "input_ids": ids, "attention_mask": mask},
    )


def _explicit(draw: np.random.Generator, text: Vocabulary, images: _Images, length: int) -> Batch:
    ids, _ = _texts(draw, text, [length] * 2, length)
    positions = _integers(draw, text.positions, ids.shape)
    inputs: dict[str, Array] = {**_noise(draw, 2, images, masked=False), "input_ids": ids}
    if text.types:
        inputs["token_type_ids"] = _integers(draw, text.types, ids.shape)
    return Batch(
        "explicit token types and positions, no mask, as many images as texts",
        {**inputs, "position_ids": positions},
    )


def _shortest(draw: np.random.Generator, text: Vocabulary, images: _Images) -> Batch:
    ids, mask = _texts(draw, text, [1], text.shortest)
    return Batch(
        "one image, one text of one position",
        {**_noise(draw, 1, images), "input_ids": ids, "attention_mask": mask},
    )


def _longest(draw: np.random.Generator, text: Vocabulary, images: _Images) -> Batch:
    # one text: at the full length of a base-sized tower a second would cost more than all other batches together
    ids, _ = _texts(draw, text, [text.longest], text.longest)
    channels, height, width = images.shape
    rows, columns = np.mgrid[0:height, 0:width]
    lower, right = rows >= height // 2, columns >= width // 2
    chequered = np.where((rows + columns) % 2, EXTREME_PIXEL, -EXTREME_PIXEL)
    # a quarter each: white, black, chequered and zero
    quarters = np.where(lower, np.where(right, 0.0, chequered), np.where(right, -EXTREME_PIXEL, EXTREME_PIXEL))
    pixels = np.broadcast_to(quarters.astype(np.float32), (1, channels, height, width)).copy()
    return Batch("longest sequence without a mask, extreme pixels", {**_cut(pixels, images), "input_ids": ids})


def _texts(
    draw: np.random.Generator, text: Vocabulary, lengths: list[int], length: int, left: bool = False
) -> tuple[Array, Array]:
    """Token ids and mask, int64 ``(len(lengths), length)``, the padding on one side."""
    ids = np.full((len(lengths), length), text.pad, np.int64)
    mask = np.zeros_like(ids)
    for row, count in enumerate(lengths):
        start = length - count if left else 0
        ids[row, start : start + count] = _plain_ids(draw, text, count)
        if text.end is not None:
            ids[row, start + count - 1] = text.end
        mask[row, start : start + count] = 1
    return ids, mask


def _plain_ids(draw: np.random.Generator, text: Vocabulary, count: int) -> Array:
    """Token ids without a special meaning; the list of all of them is never made, because a config can ask for billions."""
    ids = _integers(draw, text.size - len(text.special), (count,))
    for special in text.special:
        ids += ids >= special
    return ids


def _integers(draw: np.random.Generator, below: int, shape: tuple[int, ...]) -> Array:
    return np.asarray(draw.integers(0, below, shape, dtype=np.int64))


def _noise(draw: np.random.Generator, count: int, images: _Images, *, masked: bool = True) -> dict[str, Array]:
    """Up to three pictures of noise; if they are cut up, each of another shape, and of fewer patches than possible."""
    channels, height, _ = images.shape
    if images.patch is None:
        return {"pixel_values": draw.standard_normal((count, *images.shape), dtype=np.float32)}
    side = height // images.patch
    half, length = max(1, side // 2), side * side
    wide, tall, strip = (half, length // half), (max(1, length * 3 // 4 // half), half), (1, half)
    shapes = np.array([(wide, tall, strip)[row % 3] for row in range(count)], np.int64)
    # Noise in the patches that do not count, too: it must not change anything.
    patches = draw.standard_normal((count, length, channels * images.patch**2), dtype=np.float32)
    mask = (np.arange(length) < shapes.prod(axis=1, keepdims=True)).astype(np.int64)
    return {
        "pixel_values": patches,
        **({"pixel_attention_mask": mask} if masked else {}),
        "spatial_shapes": shapes,
    }


def _cut(pixels: Array, images: _Images) -> dict[str, Array]:
    """Pictures as a tower takes them: whole, or in patches, row by row, as Siglip2ImageProcessor cuts them."""
    if images.patch is None:
        return {"pixel_values": pixels}
    count, (channels, height, width), patch = len(pixels), images.shape, images.patch
    rows, columns = height // patch, width // patch
    patches = pixels.reshape(count, channels, rows, patch, columns, patch).transpose(0, 2, 4, 3, 5, 1)
    return {
        "pixel_values": np.ascontiguousarray(patches.reshape(count, rows * columns, -1)),
        "spatial_shapes": np.array([(rows, columns)] * count, np.int64),
    }

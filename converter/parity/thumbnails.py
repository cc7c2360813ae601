"""Small PNGs of what both models were given, from ``pixel_values``: reports show them, with no package for pictures."""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from converter.errors import ConfigError
from converter.folder.files import read_json
from converter.parity.taps import Array

SIDE = 96  # pixels, at most
_FILES = ("preprocessor_config.json", "processor_config.json")
_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def thumbnails(inputs: Mapping[str, Array], folder: Path) -> tuple[bytes, ...]:
    """A PNG for each picture of a batch.

    Args:
        inputs: of the batch, as ``Batch`` has them.
        folder: with the image processor's config, whose mean and deviation turn values back into colours. Where it has
            none that fit, the values of the batch are stretched from black to white.
    """
    pictures = [_channels_last(inputs, number) for number in range(len(inputs["pixel_values"]))]
    colours = _normalisation(folder, pictures[0].shape[-1])
    if colours is None:
        lowest, highest = (float(found(inputs["pixel_values"])) for found in (np.min, np.max))
        colours = np.float64(lowest), np.float64(max(highest - lowest, 1e-12))
    mean, std = colours
    return tuple(_png(_small(picture) * std + mean) for picture in pictures)


def _channels_last(inputs: Mapping[str, Array], number: int) -> Array:
    """One picture ``(height, width, channels)``; one that is cut up is put together again."""
    values = inputs["pixel_values"][number]
    if "spatial_shapes" not in inputs:
        return np.moveaxis(values, 0, -1)
    rows, columns = (int(count) for count in inputs["spatial_shapes"][number])
    side = math.isqrt(values.shape[-1] // 3)
    if not side:  # of fewer values than colours
        return np.zeros((1, 1, 3))
    cut: Array = values[: rows * columns, : side * side * 3].reshape(rows, columns, side, side, 3)
    whole: Array = cut.transpose(0, 2, 1, 3, 4).reshape(rows * side, columns * side, 3)
    return whole


def _small(picture: Array) -> Array:
    """The mean of as many pixels as leave at most ``SIDE`` in each direction; float64."""
    height, width, channels = picture.shape
    step = max(1, math.ceil(max(height, width) / SIDE))
    rows, columns = max(1, height // step), max(1, width // step)
    whole: Array = picture[: rows * step, : columns * step].astype(np.float64)
    small: Array = whole.reshape(rows, whole.shape[0] // rows, columns, whole.shape[1] // columns, channels).mean(
        axis=(1, 3)
    )
    return small


def _normalisation(folder: Path, channels: int) -> tuple[Any, Any] | None:
    for name in _FILES:
        try:
            raw = read_json(folder / name)
        except (ConfigError, OSError):
            continue
        said = raw.get("image_processor", raw)
        found = [said.get(key) if isinstance(said, dict) else None for key in ("image_mean", "image_std")]
        if all(_are_numbers(values, channels) for values in found):
            return np.array(found[0], np.float64), np.array(found[1], np.float64)
    return None


def _are_numbers(values: Any, count: int) -> bool:
    return (
        isinstance(values, list)
        and len(values) == count
        and all(isinstance(value, int | float) and abs(value) < 1e6 for value in values)
    )


def _png(colours: Array) -> bytes:
    """A PNG of colours from 0 to 1, ``(height, width, channels)``: grey of one or two channels, else of the first three."""
    kept = colours[..., :1] if colours.shape[-1] < 3 else colours[..., :3]
    height, width, channels = kept.shape
    pixels = np.clip(np.rint(np.nan_to_num(kept) * 255), 0, 255).astype(np.uint8)
    rows = np.concatenate([np.zeros((height, 1), np.uint8), pixels.reshape(height, -1)], axis=1)  # 0: no filter
    head = struct.pack(">IIBBBBB", width, height, 8, 0 if channels == 1 else 2, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(rows.tobytes(), 9)), (b"IEND", b""))
    return _SIGNATURE + b"".join(_chunk(kind, data) for kind, data in chunks)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

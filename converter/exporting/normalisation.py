"""An image processor's arithmetic on the bytes of a picture, after resizing. Decides which processors a graph can replace."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from converter.errors import ConfigError, printable
from converter.folder.files import read_json

# In this order: a folder that transformers 5 writes has the processor's numbers in the second.
FILES = ("preprocessor_config.json", "processor_config.json")
MAX_CHANNELS = 64
_LARGEST = 1e30  # which float32 holds, with room for a product
_RESCALE = 1 / 255
# How far from a whole number a byte may be found, by the rounding of float32 values.
_NEAR = 0.02
Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Normalisation:
    """``(byte * rescale - mean) / std``, per channel.

    Attributes:
        rescale: factor for the bytes; 1 if the processor does not rescale.
        mean: one number per channel; 0 if the processor does not normalise.
        std: one number per channel; 1 if it does not.
    """

    rescale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def scale_and_shift(self, channels: int) -> tuple[Array, Array]:
        """Two float32 vectors ``(channels,)``: a byte times the first plus the second is the normalised value.

        Raises:
            ConfigError: there are numbers for another count of channels.
        """
        if len(self.mean) not in (1, channels) or len(self.std) not in (1, channels):
            raise ConfigError(
                f"image_mean and image_std have {len(self.mean)} and {len(self.std)} numbers; the model takes "
                f"{channels} channels. Use the preprocessor_config.json that belongs to the vision tower."
            )
        mean, std = (np.broadcast_to(np.asarray(given, np.float64), (channels,)) for given in (self.mean, self.std))
        return (self.rescale / std).astype(np.float32), (-mean / std).astype(np.float32)

    def apply(self, pixels: Array) -> Array:
        """Bytes with channels last, as the graph normalises them: float32 of the same shape."""
        scale, shift = self.scale_and_shift(pixels.shape[-1])
        return pixels.astype(np.float32) * scale + shift

    def exact(self, pixels: Array) -> Array:
        """Bytes with channels last, as the processor normalises them: its own steps, in float64, rounded once to float32."""
        values = pixels.astype(np.float64) * self.rescale
        return np.asarray((values - np.array(self.mean)) / np.array(self.std), np.float32)

    def bytes_of(self, values: Array) -> Array | None:
        """The bytes, channels last, that ``exact`` turns into these values; or None."""
        found = (values.astype(np.float64) * np.array(self.std) + np.array(self.mean)) / self.rescale
        nearest = np.clip(np.rint(found), 0, 255)
        return nearest.astype(np.uint8) if np.abs(found - nearest).max(initial=0) < _NEAR else None

    def to_json(self) -> dict[str, Any]:
        """The form in ``export.json``."""
        return {"rescale": self.rescale, "mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_json(cls, raw: Any, where: str = "normalisation") -> Self:
        """Of what ``to_json`` gives, checked.

        Raises:
            ConfigError: it is not that.
        """
        if not isinstance(raw, Mapping):
            raise ConfigError(f"{where} is {printable(repr(raw), 60)}; expected rescale, mean and std")
        named = {"rescale_factor": raw.get("rescale"), "image_mean": raw.get("mean"), "image_std": raw.get("std")}
        found = read_normalisation(named, where)
        return cls(found.rescale, found.mean, found.std)


def normalisation_of(folder: Path) -> Normalisation | None:
    """The arithmetic of the image processor in a folder; None if there is none.

    Raises:
        ConfigError: its file cannot be read, or its numbers cannot normalise a picture.
    """
    fields, where = _fields(folder)
    return None if fields is None else read_normalisation(fields, where)


def size_of(folder: Path) -> tuple[int, int] | None:
    """Height and width of every picture from the image processor in a folder; None if there is none, or no fixed size.

    Raises:
        ConfigError: its file cannot be read.
    """
    fields, _ = _fields(folder)
    if fields is None:
        return None
    for does, name in (("do_center_crop", "crop_size"), ("do_resize", "size")):
        if fields.get(does, does == "do_resize") and name in fields:
            said = fields[name]
            sides = (said.get("height"), said.get("width")) if isinstance(said, Mapping) else (said, said)
            return _whole(*sides)
    return None


def _whole(height: object, width: object) -> tuple[int, int] | None:
    """Both if they are integers above 0."""
    if isinstance(height, int) and isinstance(width, int) and height > 0 and width > 0:
        return int(height), int(width)
    return None


def _fields(folder: Path) -> tuple[Mapping[str, Any] | None, str]:
    """The content of the processor's file, and its path; or None."""
    for name in FILES:
        if (folder / name).is_file():
            raw = read_json(folder / name)
            fields = raw.get("image_processor", raw if name == FILES[0] else None)
            if isinstance(fields, Mapping):
                return fields, str(folder / name)
    return None, ""


def read_normalisation(raw: Mapping[str, Any], where: str) -> Normalisation:
    """The same of the processor's fields, which are transformers'; those that are left out have its defaults.

    Raises:
        ConfigError: a number is missing or none that a picture can be normalised with.
    """
    rescale = raw.get("rescale_factor", _RESCALE) if raw.get("do_rescale", True) else 1.0
    normalises = raw.get("do_normalize", True)
    mean = _numbers(raw.get("image_mean"), "image_mean", where) if normalises else (0.0,)
    std = _numbers(raw.get("image_std"), "image_std", where) if normalises else (1.0,)
    if not _is_number(rescale) or rescale <= 0:
        raise ConfigError(f"{where}: rescale_factor is {printable(repr(rescale), 60)}; expected a number above 0")
    if min(std) <= 0:
        raise ConfigError(f"{where}: image_std is {list(std)}; expected numbers above 0")
    return Normalisation(float(rescale), mean, std)


def _numbers(value: Any, name: str, where: str) -> tuple[float, ...]:
    values = value if isinstance(value, list) else [value]
    if not 0 < len(values) <= MAX_CHANNELS or not all(map(_is_number, values)):
        raise ConfigError(
            f"{where}: {name} is {printable(repr(value), 60)}; expected a number for each channel. Use the file that "
            "belongs to the vision tower."
        )
    return tuple(float(one) for one in values)


def _is_number(value: Any) -> bool:
    # False for NaN and infinity, too; an integer of any length is compared exactly.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _LARGEST

"""A batch: the inputs of one forward pass and, once a model has run, its taps. Decides which inputs are well formed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from converter.errors import ParityError, listed, printable
from converter.parity.taps import Array

_OF_TEXTS = ("input_ids", "attention_mask", "token_type_ids", "position_ids")
OF_PATCHES = ("pixel_attention_mask", "spatial_shapes")
INTEGER_INPUTS = (*OF_PATCHES, *_OF_TEXTS)
INPUTS = ("pixel_values", *INTEGER_INPUTS)
# The names of dtypes in NumPy; a comparison of anything narrower says more about rounding than about the model.
PRECISIONS = ("float32", "float64")
MAX_TITLE_CHARACTERS = 200


@dataclass(frozen=True, eq=False)
class Batch:
    """One forward pass.

    Attributes:
        title: what the batch is there to show, for people.
        inputs: ``pixel_values`` ``(images, channels, height, width)`` float32; ``input_ids`` ``(texts, sequence)``
            int64; ``attention_mask`` (1 is a position that counts), ``token_type_ids`` and ``position_ids`` like
            ``input_ids``, or absent. Of images that are cut up, ``pixel_values`` ``(images, patches, values)``,
            ``spatial_shapes`` ``(images, 2)`` (rows and columns of patches) and ``pixel_attention_mask``
            ``(images, patches)``, or absent.
        taps: by name; empty before a model has run.
    """

    title: str
    inputs: Mapping[str, Array]
    taps: Mapping[str, Array] = field(default_factory=dict)

    @property
    def mask(self) -> Array:
        """Which text positions count, bool ``(texts, sequence)``; all of them without an attention mask."""
        mask = self.inputs.get("attention_mask")
        return np.ones(self.inputs["input_ids"].shape, bool) if mask is None else mask != 0

    @property
    def is_square(self) -> bool:
        """Whether there are as many images as texts, as the loss needs."""
        return len(self.inputs["pixel_values"]) == len(self.inputs["input_ids"])


def same_bits(one: Array | None, other: Array | None) -> bool:
    """Whether two arrays exist and are the same, bit for bit."""
    if one is None or other is None:
        return False
    return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()


def same_inputs(one: Mapping[str, Array], other: Mapping[str, Array]) -> bool:
    """Whether two forward passes were given the same, bit for bit."""
    return one.keys() == other.keys() and all(same_bits(one[name], other[name]) for name in one)


def check_inputs(inputs: Mapping[str, Array], where: str) -> None:
    """Checks that inputs can be given to a model and compared afterwards.

    Args:
        inputs: arrays by name.
        where: what messages call the batch.

    Raises:
        ParityError: a name, dtype or shape does not fit ``Batch``, an id is negative, or a pixel is not finite. Or a mask
            holds anything but 0 and 1, or leaves a row without any position.
    """
    unknown = sorted(set(inputs) - set(INPUTS))
    if unknown:
        raise ParityError(f"{where}: unknown inputs {listed(unknown)}; expected some of {', '.join(INPUTS)}")
    for name in ("pixel_values", "input_ids"):
        if name not in inputs:
            raise ParityError(f"{where}: no {name}; a dual encoder needs pixel_values and input_ids")
    pixels = inputs["pixel_values"]
    cut = any(name in inputs for name in OF_PATCHES)
    _check_pixels(pixels, cut, where)
    if cut:
        _check_patches(inputs, where)
    for name in _OF_TEXTS:
        if name in inputs:
            shape = inputs["input_ids"].shape
            _check_integers(name, inputs[name], shape, f"(texts, sequence) like input_ids {shape}", where)
    for name in ("attention_mask", "pixel_attention_mask"):
        if name in inputs:
            _check_mask(name, inputs[name], where)


def _check_pixels(pixels: Array, cut: bool, where: str) -> None:
    axes = ("images", "patches", "values") if cut else ("images", "channels", "height", "width")
    if pixels.dtype != np.float32 or pixels.ndim != len(axes) or not pixels.size:
        raise ParityError(
            f"{where}: pixel_values is {pixels.dtype} {pixels.shape}, expected float32 ({', '.join(axes)})"
        )
    if not np.isfinite(pixels).all():
        raise ParityError(f"{where}: pixel_values holds values that are not finite")


def _check_patches(inputs: Mapping[str, Array], where: str) -> None:
    images, patches = inputs["pixel_values"].shape[:2]
    if "spatial_shapes" not in inputs:
        raise ParityError(
            f"{where}: pixel_attention_mask without spatial_shapes; give the rows and columns of each image"
        )
    shapes = inputs["spatial_shapes"]
    _check_integers("spatial_shapes", shapes, (images, 2), "(images, 2)", where)
    if "pixel_attention_mask" in inputs:
        mask, shape = inputs["pixel_attention_mask"], (images, patches)
        _check_integers("pixel_attention_mask", mask, shape, f"(images, patches) {shape}", where)
    # One after the other: the product of two numbers of a file need not fit into 64 bits.
    if shapes.min() < 1 or shapes.max() > patches or shapes.prod(axis=1).max() > patches:
        raise ParityError(
            f"{where}: spatial_shapes holds {shapes.min()} to {shapes.max()}, expected rows and columns of at least 1, "
            f"whose product is at most the {patches} patches"
        )


def _check_mask(name: str, mask: Array, where: str) -> None:
    if mask.max() > 1:
        raise ParityError(f"{where}: {name} holds {mask.max()}, expected 0 and 1 only")
    empty = np.flatnonzero(~mask.any(axis=1))
    if empty.size:
        raise ParityError(
            f"{where}: {name} masks all of row {empty[0]}, where models are not deterministic; leave at "
            "least one position in each row"
        )


def _check_integers(name: str, values: Array, shape: tuple[int, ...], expected: str, where: str) -> None:
    if values.dtype != np.int64 or values.ndim != 2 or not values.size or values.shape != shape:
        raise ParityError(f"{where}: {name} is {values.dtype} {values.shape}, expected int64 {expected}")
    if values.min() < 0:
        raise ParityError(f"{where}: {name} holds {values.min()}, expected no negative values")


def check_title(title: str, where: str) -> None:
    """Raises ParityError where a title is empty, longer than ``MAX_TITLE_CHARACTERS`` or not printable."""
    if not title or len(title) > MAX_TITLE_CHARACTERS or not title.isprintable():
        raise ParityError(f"{where}: {printable(title)!r} is not a batch title")

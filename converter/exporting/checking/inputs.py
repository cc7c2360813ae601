"""The inputs for an exported file. Decides which batches its inputs can express, and says of the others why they cannot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from converter.errors import ExportError, OptionError, listed, printable
from converter.exporting.normalisation import Normalisation
from converter.exporting.options import ExportOptions
from converter.exporting.running import FoundSignature
from converter.parity.batches import Batch
from converter.parity.inputs import image_shape, read_vocabulary, with_image_size
from converter.parity.making import make_batches, make_batches_of

Array = np.ndarray[Any, Any]
PIXELS = "pixels"
DTYPES = ("float32", "int32", "int64", "uint8")
_MASKS = ("attention_mask", "pixel_attention_mask")
_OF_IMAGES = ("pixel_values", "pixel_attention_mask", "spatial_shapes")
_SPREAD = 60.0  # bytes for 1 of noise: 3, the most extreme pixel, becomes 0 or 255


@dataclass(frozen=True, slots=True)
class Named:
    """A signature as ``export.json`` has it: names, shapes (None where free) and dtypes of inputs, names of outputs."""

    name: str
    inputs: Mapping[str, tuple[tuple[int | None, ...], str]]
    outputs: tuple[str, ...]


def batches_for(
    config: Mapping[str, Any], options: ExportOptions, normalisation: Normalisation | None, seed: int = 0
) -> tuple[Batch, ...]:
    """Batches that fit the export: its static shapes, and bytes for normalised pictures if it takes bytes.

    Args:
        config: a dual encoder's config.json.
        options: of the export.
        normalisation: what the image processor does.
        seed: of the inputs.
    """
    if options.image is not None:
        config = with_image_size(config, options.image)
    if options.batch is None and options.length is None:
        made = make_batches(config, seed)
    else:
        made = make_batches_of(config, count=options.batch, length=options.length, seed=seed)
    if options.pixels == "float" or normalisation is None:
        return made
    return tuple(of_bytes(batch, config, normalisation) for batch in made)


def samples_for(batch: Batch, config: Mapping[str, Any], options: ExportOptions) -> tuple[Batch, ...]:
    """Real pictures and texts in the shapes of an export: as many at a time as it takes, texts padded to their length.

    Raises:
        OptionError: there are fewer than the export takes at a time.
    """
    inputs = dict(batch.inputs)
    if options.length is not None:
        vocabulary, missing = read_vocabulary(config), options.length - inputs["input_ids"].shape[1]
        for name in ("input_ids", "attention_mask", "token_type_ids"):
            if name in inputs and missing > 0:
                filler = vocabulary.pad if name == "input_ids" else 0
                inputs[name] = np.pad(inputs[name], ((0, 0), (0, missing)), constant_values=filler)
    if options.batch is None:
        return (Batch(batch.title, inputs),)
    times = min(len(inputs["pixel_values"]), len(inputs["input_ids"])) // options.batch
    if not times:
        raise OptionError(f"--samples holds fewer pictures or texts than --batch {options.batch}; give more of them")
    parts = (slice(k * options.batch, (k + 1) * options.batch) for k in range(times))
    return tuple(Batch(batch.title, {name: value[part] for name, value in inputs.items()}) for part in parts)


def of_bytes(batch: Batch, config: Mapping[str, Any], normalisation: Normalisation) -> Batch:
    """A batch whose pictures are bytes, normalised by the processor's own steps; noise becomes the nearest byte."""
    values = _channels_last(batch.inputs["pixel_values"], config)
    found = normalisation.bytes_of(values)
    if found is None:
        found = np.clip(np.rint(127.5 + values * _SPREAD), 0, 255).astype(np.uint8)
    pixels = _as_given(normalisation.exact(found), batch.inputs["pixel_values"])
    return Batch(batch.title, {**batch.inputs, "pixel_values": pixels}, batch.taps)


def check_signatures(wanted: Sequence[Named], found: Mapping[str, FoundSignature], where: str) -> None:
    """Checks that a file can be asked what its export says.

    Raises:
        ExportError: a signature is missing, or takes or gives something else.
    """
    missing = [one.name for one in wanted if one.name not in found]
    if missing:
        raise ExportError(f"{where}: has no signature {listed(missing)}; it has {listed(sorted(found))}. Export again.")
    for one in wanted:
        ours = found[one.name]
        inputs = {given.name: given for given in ours.inputs}
        if inputs.keys() != one.inputs.keys() or set(ours.outputs) != set(one.outputs):
            raise ExportError(
                f"{where}: {one.name} takes {listed(sorted(inputs))} and gives {listed(sorted(ours.outputs))}; expected "
                f"{listed(sorted(one.inputs))} and {listed(sorted(one.outputs))}. Signatures or inputs were exchanged."
            )
        for name, (shape, _) in one.inputs.items():
            if not _fits(shape, inputs[name].shape) or inputs[name].dtype not in DTYPES:
                raise ExportError(
                    f"{where}: {one.name} takes {name} {_shown(inputs[name].shape)} {printable(inputs[name].dtype, 20)}; "
                    f"expected {_shown(shape)}. Export again."
                )


def expressed(
    batch: Batch,
    signature: Named,
    found: FoundSignature,
    config: Mapping[str, Any],
    normalisation: Normalisation | None,
) -> tuple[dict[str, Array] | None, str]:
    """A batch in the form of a file's signature; or None and the reason."""
    inputs = {name: value for name, value in batch.inputs.items() if _concerns(name, signature)}
    if PIXELS in signature.inputs and normalisation is not None:
        made = normalisation.bytes_of(_channels_last(inputs["pixel_values"], config))
        if made is None:
            return None, "its pictures are not bytes"
        pixels = inputs.pop("pixel_values")
        inputs[PIXELS] = made if pixels.ndim == 4 else made.reshape(pixels.shape)
    for name in _MASKS:
        if name in signature.inputs and name not in inputs:
            inputs[name] = np.ones(
                inputs["input_ids" if name == "attention_mask" else "pixel_values"].shape[:2], np.int64
            )
    for name in sorted(inputs.keys() - signature.inputs.keys()):
        neutral = 1 if name in _MASKS else 0
        if name == "position_ids" or (inputs[name] != neutral).any():
            return None, f"{name} is not an input"
        del inputs[name]
    for name, (shape, _) in signature.inputs.items():
        if name not in inputs:
            return None, f"it has no {name}"
        if not _fits(inputs[name].shape, shape):
            return None, f"{name} is {inputs[name].shape}, the file takes {_shown(shape)}"
    dtypes = {given.name: given.dtype for given in found.inputs}
    return {name: value.astype(dtypes[name], copy=False) for name, value in inputs.items()}, ""


def _concerns(name: str, signature: Named) -> bool:
    sees = PIXELS in signature.inputs or "pixel_values" in signature.inputs
    return sees if name in _OF_IMAGES else "input_ids" in signature.inputs


def _fits(given: Sequence[int | None], free: Sequence[int | None]) -> bool:
    return len(given) == len(free) and all(b in (None, a) for a, b in zip(given, free, strict=True))


def _shown(shape: Sequence[int | None]) -> str:
    return f"({', '.join('any' if size is None else str(size) for size in shape)})"


def _channels_last(values: Array, config: Mapping[str, Any]) -> Array:
    """``(..., channels)``, whether pictures are whole or cut up."""
    if values.ndim == 4:
        return np.moveaxis(values, 1, -1)
    return values.reshape(*values.shape[:2], -1, image_shape(config)[0])


def _as_given(values: Array, like: Array) -> Array:
    """The other way."""
    return np.ascontiguousarray(np.moveaxis(values, -1, 1) if like.ndim == 4 else values.reshape(like.shape))

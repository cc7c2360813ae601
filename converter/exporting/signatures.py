"""The three signatures of an exported model, the same for every format. Decides names, shapes, dtypes and axes.

``encode_image`` and ``encode_text`` give unit vectors, ``similarity`` both of them and the logits. The writers trace
``Signature.function`` over ``tensor_specs(signature.inputs)``; nothing here knows what they write.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from keras import ops

from converter.errors import ModelError
from converter.exporting.normalisation import Normalisation
from converter.exporting.options import ExportOptions as ExportOptions
from converter.exporting.options import Precision as Precision
from converter.models.parts import unit

Tensor = Any
Axis = str | int

IMAGES, TEXTS, LENGTH, PATCHES = "images", "texts", "length", "patches"
PIXELS = "pixels"
ENCODE_IMAGE, ENCODE_TEXT, SIMILARITY = "encode_image", "encode_text", "similarity"
IMAGE_EMBEDS, TEXT_EMBEDS = "image_embeds", "text_embeds"
LOGITS = ("logits_per_image", "logits_per_text")


@dataclass(frozen=True, slots=True)
class Input:
    """An input of a signature.

    Attributes:
        name: ``input_ids``, ``pixel_values``, ``pixels`` or another of the model's.
        shape: None where an axis is free.
        dtype: ``"int64"``, ``"float32"`` or ``"uint8"``.
        axes: ``"images"``, ``"texts"``, ``"length"`` or ``"patches"`` where an axis has a name, else its number.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: str
    axes: tuple[Axis, ...]


@dataclass(frozen=True, slots=True)
class Output:
    """An output of a signature, float32; ``axes`` as of an input."""

    name: str
    axes: tuple[Axis, ...]


@dataclass(frozen=True, slots=True)
class Signature:
    """Something an exported model can be asked.

    Attributes:
        name: ``"encode_image"``, ``"encode_text"`` or ``"similarity"``.
        inputs: in the order in which ``function`` takes them.
        outputs: what ``function`` gives, by name.
        function: takes a tensor per input, returns the outputs by name.
    """

    name: str
    inputs: tuple[Input, ...]
    outputs: tuple[Output, ...]
    function: Callable[..., dict[str, Tensor]]


@dataclass(frozen=True, slots=True)
class Written:
    """What a writer made.

    Attributes:
        files: every file, in the folder that the writer was given, as paths from there.
        versions: of the packages that made them.
        least: what runs them: ``opset`` of ONNX, ``runtime`` of LiteRT, by name.
        operators: how often each operator is used, by file and name.
        initializers: for ONNX, where each weight comes from, by its name there. ``tensorflow`` and ``pytorch`` are its names
            in their checkpoints; also ``layout``, and ``stored_as`` if it is not stored bit for bit.
        dtypes: by name, dtypes of inputs that the format cannot have as requested, such as ids as int32.
    """

    files: tuple[Path, ...]
    versions: Mapping[str, str]
    least: Mapping[str, str | int] = field(default_factory=dict)
    operators: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    initializers: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    dtypes: Mapping[str, str] = field(default_factory=dict)


def signatures_of(
    model: Any, options: ExportOptions | None = None, normalisation: Normalisation | None = None
) -> tuple[Signature, ...]:
    """The three signatures of a model with two towers.

    Args:
        model: of any family, built.
        options: ``pixels``, ``batch``, ``length`` and ``image`` count.
        normalisation: what the image processor does to bytes; needed where ``pixels`` is ``"uint8"``.

    Returns:
        ``similarity``, ``encode_image`` and ``encode_text``. The model says what a text consists of
        (``serving_fields``), and its vision tower what an image does (``served``).

    Raises:
        ModelError: bytes are requested without a known normalisation, or the tower takes no pictures of that size.
    """
    options = options or ExportOptions()
    images, prepare = _images(model, options, normalisation)
    texts = tuple(
        Input(name, (options.batch, options.length), "int64", _named((options.batch, options.length), TEXTS, LENGTH))
        for name in model.serving_fields
    )
    seen, read = tuple(model.vision_model.served), tuple(model.serving_fields)
    number: Axis = options.batch or IMAGES
    others: Axis = options.batch or TEXTS
    width = int(getattr(model.config, "projection_dim", None) or model.vision_embed_dim)
    vectors = {
        IMAGE_EMBEDS: Output(IMAGE_EMBEDS, (number, width)),
        TEXT_EMBEDS: Output(TEXT_EMBEDS, (others, width)),
    }
    logits = (Output(LOGITS[0], (number, others)), Output(LOGITS[1], (others, number)))

    # As many arguments as there are inputs, so that a tracer names them as the signature does.
    def similarity(*given: Tensor) -> dict[str, Tensor]:
        text, image = given[: len(read)], prepare(given[len(read) :])
        found = model(**dict(zip((*read, *seen), (*text, *image), strict=True)), return_dict=True)
        return {name: found[name] for name in (*LOGITS, IMAGE_EMBEDS, TEXT_EMBEDS)}

    def encode_image(*given: Tensor) -> dict[str, Tensor]:
        return {IMAGE_EMBEDS: unit(model.get_image_features(**dict(zip(seen, prepare(given), strict=True))))}

    def encode_text(*given: Tensor) -> dict[str, Tensor]:
        return {TEXT_EMBEDS: unit(model.get_text_features(**dict(zip(read, given, strict=True))))}

    return (
        Signature(SIMILARITY, (*texts, *images), (*logits, *vectors.values()), similarity),
        Signature(ENCODE_IMAGE, images, (vectors[IMAGE_EMBEDS],), encode_image),
        Signature(ENCODE_TEXT, texts, (vectors[TEXT_EMBEDS],), encode_text),
    )


def tensor_specs(inputs: Sequence[Input]) -> list[Any]:
    """TensorFlow's description of some inputs, for tracing."""
    import tensorflow as tf

    return [tf.TensorSpec(given.shape, given.dtype, name=given.name) for given in inputs]


def _named(shape: Sequence[int | None], *names: str) -> tuple[Axis, ...]:
    """The axes of a shape: its number, or else its name, one for each leading axis."""
    padded = (*names, *("" for _ in range(len(shape) - len(names))))
    return tuple(name if size is None else size for size, name in zip(shape, padded, strict=True))


def _images(
    model: Any, options: ExportOptions, normalisation: Normalisation | None
) -> tuple[tuple[Input, ...], Callable[[tuple[Tensor, ...]], tuple[Tensor, ...]]]:
    """The parts of an image, and how they become the tower's inputs."""
    inputs = []
    for name, (shape, dtype) in model.vision_model.served.items():
        fixed = (options.batch, *shape[1:])
        if options.image is not None and len(shape) == 4:
            model.vision_model.check_size(options.image)
            fixed = (*fixed[:2], *options.image)
        inputs.append(Input(name, fixed, dtype, _named(fixed, IMAGES, PATCHES)))
    if options.pixels == "float":
        return tuple(inputs), lambda given: given
    if normalisation is None:
        raise ModelError(
            "pixels='uint8' needs the numbers of the image processor. Put preprocessor_config.json beside the weights."
        )
    first, *rest = inputs
    made, prepare = _bytes(first, model.config.vision_config, normalisation)
    return (made, *rest), lambda given: (prepare(given[0]), *given[1:])


def _bytes(pixels: Input, config: Any, normalisation: Normalisation) -> tuple[Input, Callable[[Tensor], Tensor]]:
    """Pictures as bytes, channels last: ``(images, height, width, channels)``, or ``(images, patches, values)`` of SigLIP 2.

    The processor's two steps come to ``x * scale + shift`` with one number each per channel, in float32. Both round
    differently, by 1e-7 of the value.
    """
    channels = config.num_channels
    # NumPy's: a tensor that is made here would be an input of the graph, which not every converter fills.
    scale, shift = normalisation.scale_and_shift(channels)
    if len(pixels.shape) == 3:  # a patch is rows, columns and channels, in this order
        times = (pixels.shape[2] or channels) // channels
        scale, shift = np.tile(scale, times), np.tile(shift, times)
        made = Input(PIXELS, pixels.shape, "uint8", pixels.axes)
        return made, lambda given: ops.cast(given, "float32") * scale + shift
    count, _, height, width = pixels.shape
    shape = (count, height, width, channels)
    made = Input(PIXELS, shape, "uint8", _named(shape, IMAGES))
    return made, lambda given: ops.transpose(ops.cast(given, "float32") * scale + shift, (0, 3, 1, 2))

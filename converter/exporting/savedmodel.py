"""What a server gets: a SavedModel with three signatures, which needs TensorFlow and nothing else to run."""

from __future__ import annotations

import os
from typing import Any

import keras

from converter.errors import ModelError
from converter.folder.files import expanded
from converter.models.parts import unit

Tensor = Any


def export_saved_model(model: Any, path: str | os.PathLike[str], format: str = "tf_saved_model") -> None:
    """Writes a model with two towers as a SavedModel with the signatures ``similarity``, ``encode_image`` and ``encode_text``.

    ``similarity`` is also the default signature. Ids are int64, as tokenizers give them, and pixel values float32; the
    number of images, of texts and of tokens is free, and images and texts may differ in number. What a text consists
    of, the model says (``serving_fields``), and what an image does, its tower (``served``).

    Args:
        model: of any family.
        path: folder to make.
        format: ``"tf_saved_model"``; there is no other.

    Raises:
        ModelError: another format, or another backend than TensorFlow.
    """
    if format != "tf_saved_model":
        raise ModelError(
            f"export cannot write {format!r}; expected 'tf_saved_model'. Leave format= out to get a SavedModel."
        )
    if keras.backend.backend() != "tensorflow":
        raise ModelError(
            f"export writes a SavedModel with TensorFlow; the Keras backend is {keras.backend.backend()}. "
            "Save with save_pretrained, and export in a process with KERAS_BACKEND=tensorflow."
        )
    import tensorflow as tf

    model.build()
    served = model.vision_model.served
    images = [tf.TensorSpec(shape, dtype, name=name) for name, (shape, dtype) in served.items()]
    fields = model.serving_fields
    texts = [tf.TensorSpec((None, None), tf.int64, name=name) for name in fields]

    # As many arguments as there are specs, whose names are those of the signature.
    def similarity(*given: Tensor) -> dict[str, Tensor]:
        found = model(**dict(zip((*fields, *served), given, strict=True)), return_dict=True)
        return {name: found[name] for name in ("logits_per_image", "logits_per_text", "image_embeds", "text_embeds")}

    def encode_image(*given: Tensor) -> dict[str, Tensor]:
        return {"image_embeds": unit(model.get_image_features(**dict(zip(served, given, strict=True))))}

    def encode_text(*given: Tensor) -> dict[str, Tensor]:
        return {"text_embeds": unit(model.get_text_features(**dict(zip(fields, given, strict=True))))}

    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint("similarity", similarity, input_signature=[*texts, *images])
    archive.add_endpoint("encode_image", encode_image, input_signature=images)
    archive.add_endpoint("encode_text", encode_text, input_signature=texts)
    archive.write_out(os.fspath(expanded(path)), verbose=False)

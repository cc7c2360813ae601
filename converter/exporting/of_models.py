"""``model.export``: a model in memory as a file for a server or a device. Unlike ``convert export`` it verifies nothing."""

from __future__ import annotations

import os
from typing import Any

import keras

from converter.errors import ModelError
from converter.exporting.savedmodel import write_saved_model
from converter.exporting.signatures import signatures_of
from converter.folder.files import expanded


def export_model(model: Any, path: str | os.PathLike[str], format: str = "tf_saved_model") -> None:
    """Writes a model with two towers as a SavedModel with the signatures ``similarity``, ``encode_image`` and ``encode_text``.

    Ids are int64, as tokenizers give them, and pixel values float32; the number of images, of texts and of tokens is
    free, and images and texts may differ in number.

    Args:
        model: of any family.
        path: folder to make.
        format: ``"tf_saved_model"`` or ``"savedmodel"``.

    Raises:
        ModelError: another format, or another backend than TensorFlow.
    """
    if format not in ("tf_saved_model", "savedmodel"):
        raise ModelError(
            f"export cannot write {format!r}; expected 'tf_saved_model'. Leave format= out to get a SavedModel."
        )
    if keras.backend.backend() != "tensorflow":
        raise ModelError(
            f"export writes a SavedModel with TensorFlow; the Keras backend is {keras.backend.backend()}. "
            "Save with save_pretrained, and export in a process with KERAS_BACKEND=tensorflow."
        )
    model.build()
    write_saved_model(model, signatures_of(model), expanded(path))

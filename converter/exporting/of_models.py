"""``model.export``: a model in memory as a file for a server or a device. Unlike ``convert export`` it verifies nothing."""

from __future__ import annotations

import os
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import keras

from converter.errors import ModelError
from converter.exporting.signatures import signatures_of
from converter.exporting.targets import TARGETS
from converter.folder.files import local

_OF_KERAS: Mapping[str, str] = MappingProxyType({"tf_saved_model": "savedmodel"})


def export_model(model: Any, path: str | os.PathLike[str], format: str = "tf_saved_model") -> None:
    """Writes a model with two towers with the signatures ``similarity``, ``encode_image`` and ``encode_text``.

    Pixel values are float32, and ids int64 as tokenizers give them (in LiteRT int32). The numbers of images, texts and tokens
    are free, and images and texts may differ in number.

    Args:
        model: of any family.
        path: to make: a folder, of LiteRT a file that ends in ``.tflite``.
        format: ``"savedmodel"`` (Keras' ``"tf_saved_model"``), ``"litert"`` or ``"onnx"``.

    Raises:
        ModelError: another format, or another backend than TensorFlow.
    """
    name = _OF_KERAS.get(format, format)
    if name not in TARGETS:
        raise ModelError(
            f"export cannot write {format!r}; expected {' or '.join(map(repr, (*TARGETS, *_OF_KERAS)))}. "
            "Leave format= out to get a SavedModel."
        )
    target, place = TARGETS[name], local(path)
    if keras.backend.backend() != "tensorflow":
        raise ModelError(
            f"export writes a {target.label} with TensorFlow; the Keras backend is {keras.backend.backend()}. "
            "Save with save_pretrained, and export in a process with KERAS_BACKEND=tensorflow."
        )
    if name == "litert" and place.suffix != ".tflite":
        raise ModelError(f"{place}: the name of a LiteRT file ends in .tflite; choose another name")
    model.build()
    target.write_to(place, model, signatures_of(model), "float32")

"""A SavedModel for servers, with three signatures, which needs only TensorFlow to run."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras

from converter.exporting.signatures import Precision, Signature, Written, tensor_specs


def write(model: Any, signatures: Sequence[Signature], folder: Path, precision: Precision) -> Written:
    """Called like the other writers: float32 only, and the files as paths relative to the folder."""
    del precision
    written = write_saved_model(model, signatures, folder)
    return replace(written, files=tuple(Path(folder.name, file) for file in written.files))


def write_saved_model(model: Any, signatures: Sequence[Signature], folder: str | os.PathLike[str]) -> Written:
    """Writes a model as a SavedModel; the first signature is also the default.

    Args:
        model: whose variables the signatures use; built.
        signatures: of ``signatures_of``.
        folder: to make.
    """
    import tensorflow as tf

    archive = keras.export.ExportArchive()
    for signature in signatures:
        archive.add_endpoint(signature.name, signature.function, input_signature=tensor_specs(signature.inputs))
    # Not `track(model)`: it keeps Keras' variables beside TensorFlow's, and every weight is in the file twice.
    for name in ("variables", "trainable_variables", "non_trainable_variables"):
        archive.add_variable_collection(name, [variable.value for variable in getattr(model, name)])
    archive.write_out(os.fspath(folder), verbose=False)
    home = Path(folder)
    files = tuple(sorted(path.relative_to(home) for path in home.rglob("*") if path.is_file()))
    return Written(files, {"tensorflow": tf.__version__, "keras": keras.__version__})

"""Writes models: as a checkpoint folder, as weights of Keras 2's two formats, and to the Hub."""

from __future__ import annotations

import json
import logging
import os
import tempfile
from pathlib import Path
from typing import Any, Literal

import keras

from converter.conversion.of_tensors import write_tensors
from converter.conversion.result import Conversion
from converter.conversion.streams import open_tensors
from converter.errors import ModelError, listed
from converter.folder.files import expanded, local
from converter.models import ports
from converter.models.assigning import assign, stored
from converter.models.loading_info import mismatched
from converter.models.names import named_variables
from converter.names.frameworks import CANONICAL, KERAS
from converter.specs import Framework

Place = str | os.PathLike[str]
HDF5 = (".h5", ".hdf5")
_LOG = logging.getLogger("converter.models")


def save_two_towers(
    model: Any,
    out: Place,
    framework: Framework,
    container: Literal["h5", "safetensors"],
    overwrite: bool,
    max_shard_size: str | int | None = None,
) -> Conversion:
    """Saves a built model with two towers; see ``Pretrained.save_pretrained``."""
    tensors = [stored(name, variable) for name, variable in named_variables(model).items()]
    _tell_of_others(model)
    return write_tensors(
        _config(model),
        tensors,
        out,
        framework=KERAS,
        target=framework,
        format=container,
        overwrite=overwrite,
        max_shard_size=max_shard_size,
    )


def _config(model: Any) -> dict[str, Any]:
    config: dict[str, Any] = json.loads(model.config.to_json_string(use_diff=False))
    if "_name_or_path" in config:
        config["_name_or_path"] = ""  # a folder of this machine
    config["architectures"] = [model.family.classes[CANONICAL]]
    return config


def _tell_of_others(model: Any) -> None:
    """Reports weights of a subclass's additional layers that have no name in a checkpoint."""
    known = {id(variable) for variable in named_variables(model).values()}
    others = [variable.path for variable in model.trainable_variables if id(variable) not in known]
    if others:
        _LOG.warning(
            "%d weights of layers of your own are not saved: %s. Use save_weights", len(others), listed(others)
        )


def save_graph(model: Any, folder: Place, version: int, signatures: Any) -> None:
    """Writes ``saved_model/VERSION`` into a checkpoint folder, as transformers 4 does.

    Args:
        model: built.
        folder: of the checkpoint.
        version: name of the folder of the SavedModel.
        signatures: custom ones, as for ``tf.saved_model.save``; None: those of ``model.export``.
    """
    place = local(folder) / "saved_model" / str(version)
    if signatures is None:
        ports.provided("export")(model, place, "tf_saved_model")
        return
    import tensorflow as tf

    tf.saved_model.save(model, os.fspath(place), signatures=signatures)


def save_named(model: Any, filepath: Place, overwrite: bool = True) -> None:
    """Writes the weights under their checkpoint names: ``NAME.h5``, or TensorFlow's ``NAME.index`` with its data.

    Args:
        model: with two towers.
        filepath: the file, or the prefix of TensorFlow's files.
        overwrite: False refuses what is there.

    Raises:
        ModelError: it is there already, or another backend than TensorFlow cannot write its format.
    """
    model.build()
    place = local(filepath)
    if not overwrite and (place.exists() or Path(f"{place}.index").exists()):
        raise ModelError(f"{place}: exists already. Choose another name, or leave overwrite=False out.")
    if place.suffix in HDF5:
        with tempfile.TemporaryDirectory(prefix=".weights-", dir=place.parent) as folder:
            save_two_towers(model, Path(folder, "saved"), KERAS, "h5", False)
            Path(folder, "saved", "tf_model.h5").replace(place)
        return
    if keras.backend.backend() != "tensorflow":
        raise ModelError(f"{place}: TensorFlow writes this format. Name a file that ends in .weights.h5 or .h5.")
    import tensorflow as tf

    tf.train.Checkpoint(model=model).write(os.fspath(place))


def is_named(filepath: Place) -> bool:
    """Whether a path is HDF5 whose tensors have names, or the prefix of TensorFlow's checkpoint."""
    path = str(filepath)
    return (path.endswith(HDF5) and not path.endswith(".weights.h5")) or Path(f"{expanded(path)}.index").is_file()


def load_named(model: Any, filepath: Place, skip_mismatch: bool = False) -> None:
    """Loads weights by their checkpoint names, as ``save_named`` or transformers 4 wrote them.

    Args:
        model: with two towers; its config says what the file has to hold.
        filepath: the file, or the prefix of TensorFlow's files.
        skip_mismatch: skip weights of another shape.

    Raises:
        ConverterError: the file lacks this model's weights, or is invalid.
    """
    model.build()
    index = Path(f"{expanded(filepath)}.index")
    place = index if index.is_file() else local(filepath)
    with open_tensors(place, config=_config(model)) as reader:
        variables = named_variables(model)
        other = [name for name, *_ in mismatched(variables, reader)] if skip_mismatch else []
        assign(variables, reader, (), of_another_shape=other)


def push_model(
    model: Any, repository: str, folder: Place | None, saving: dict[str, Any], options: dict[str, Any]
) -> Any:
    """Publishes a model with ``converter.push``, which says in the card that nothing was verified.

    Args:
        model: built.
        repository: its id.
        folder: the checkpoint, if it is saved already; None: a temporary one.
        saving: arguments of ``save_pretrained``.
        options: arguments of ``converter.push``.

    Returns:
        The ``Publication``.
    """
    if folder is not None:
        return ports.provided("push")(folder, repository, allow_unverified=True, **options)
    with tempfile.TemporaryDirectory(prefix="push-") as made:
        place = Path(made, "model")
        model.save_pretrained(place, **saving)
        return ports.provided("push")(place, repository, allow_unverified=True, **options)

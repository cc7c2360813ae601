"""Weights in and out of models, one tensor at a time; finding, checking and writing files is the engine's business."""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import os
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import keras
import numpy as np
from keras import ops
from transformers import AutoConfig, VisionTextDualEncoderConfig

from converter.conversion.engine import Conversion, write_tensors
from converter.conversion.plan import Dropped
from converter.conversion.streams import TensorReader, open_tensors, open_tower
from converter.errors import ModelError, PlanError, listed
from converter.hub.download import obtain
from converter.models.names import named_variables
from converter.models.registry import side_of, tower_class, tower_config
from converter.names.configs import Side, read_json, supported
from converter.names.towers import SIDES
from converter.specs import Framework, StoredTensor
from converter.tensors.layouts import ALIGNMENT

Source = str | os.PathLike[str]
_LOG = logging.getLogger("converter.models")
# Threads that read and transpose, and so many tensors, and one more, that wait to be taken.
_READERS = 2
# Arguments of transformers' from_pretrained that choose among files or kinds of file, which is found out here anyway.
_NO_MEANING = ("from_pt", "from_tf", "use_safetensors", "load_weight_prefix", "low_cpu_mem_usage", "trust_remote_code")


@dataclass(frozen=True)
class LoadingReport:
    """What loading a tower left aside.

    Attributes:
        left_out: tensors of the checkpoint that the tower does not have (a head, another tower), and why.
        new: variables that the checkpoint lacks and that were made anew (a pooler).
    """

    left_out: tuple[Dropped, ...]
    new: tuple[str, ...]


def build_tower(config: Any, side: str | None = None, *args: Any, **kwargs: Any) -> Any:
    """Makes a tower with fresh weights from a config of transformers.

    Args:
        config: a tower's config, or a full CLIP config when ``side`` says which half is meant.
        side: ``"vision"`` or ``"text"``; None: what the model type says.
        *args: of the tower: ``add_pooling_layer``.
        **kwargs: of the tower: ``add_pooling_layer``, ``initial``, ``name``, ``dtype``.

    Returns:
        The tower, not built yet.

    Raises:
        UnsupportedTower: there is no tower for the model type.
        UnsupportedOption: a config field has a value that is not supported.
    """
    side = side or _side_of(getattr(config, "model_type", None))
    config = tower_config(config, side)
    return tower_class(config, side)(config, *args, **kwargs)


@contextlib.contextmanager
def _without_collection() -> Iterator[None]:
    """No garbage is looked for meanwhile: the frameworks' objects are many and stay, and a third of loading goes there."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@_without_collection()
def load_tower(source: Source, side: str | None = None, *args: Any, **kwargs: Any) -> Any:
    """Loads one tower: from its own checkpoint with or without prefix and head, a full CLIP, or a dual encoder.

    Args:
        source: a folder as ``save_pretrained`` writes it, a weights file in one, or the id of a model on the Hub; of
            either framework.
        side: ``"vision"`` or ``"text"``; None: what the model type in config.json says.
        *args: of the tower: ``add_pooling_layer``.
        **kwargs: ``config`` instead of the checkpoint's; ``name``, ``dtype``, ``add_pooling_layer`` of the tower;
            fields of the config to change.

    Returns:
        The tower, built; its ``loading_report`` says what was left out of the checkpoint and what was made anew.

    Raises:
        ConverterError: the checkpoint does not hold the tower, or is not sound.
    """
    held = obtain(source, None, kwargs.pop("revision", None))
    wanted = side or _side_of(read_json(held.folder / "config.json").get("model_type"))
    options = {name: kwargs.pop(name) for name in ("name", "dtype", "add_pooling_layer") if name in kwargs}
    with open_tower(held.path, "vision" if wanted == "vision" else "text") as reader:
        config = _changed(kwargs.pop("config", None) or _from_dict(reader.config), kwargs)
        tower = build_tower(config, wanted, *args, initial="empty", **options)
        tower.build()
        variables = named_variables(tower)
        unused = [Dropped(name, "the tower was made without it") for name in reader.names if name not in variables]
        _assign(variables, reader, {name for name in reader.new if name in variables})
        new = tuple(name for name in reader.new if name in variables)
        for name in new:
            variables[name].assign(_fresh(name, variables[name].shape, getattr(config, "initializer_range", 0.02)))
        tower.loading_report = LoadingReport((*reader.dropped, *unused), new)
    _tell(source, tower.loading_report)
    return tower


@_without_collection()
def load_dual_encoder(cls: Any, source: Source, *, in_place: bool = False, **kwargs: Any) -> Any:
    """Loads a dual encoder of either framework, in any container that the engine reads.

    Args:
        cls: class of the model.
        source: a folder as ``save_pretrained`` writes it, a weights file in one, or the id of a model on the Hub.
        in_place: take weights from the mapped file where TensorFlow can, which saves half of the time. Only for a
            process that may end: whoever changes the file changes the model, or ends it.
        **kwargs: ``revision`` of an id; ``config`` instead of the checkpoint's; ``name`` and ``dtype`` of the model;
            fields of the config to change. ``from_pt`` is taken and means nothing: what kind of checkpoint it is, is seen.

    Returns:
        The model, built.

    Raises:
        ConverterError: the checkpoint is not complete or not sound.
    """
    options = {name: kwargs.pop(name) for name in ("name", "dtype") if name in kwargs}
    with open_tensors(source, side="tf", revision=kwargs.pop("revision", None)) as reader:
        config = kwargs.pop("config", None) or VisionTextDualEncoderConfig.from_dict(dict(reader.config))
        model = cls(_changed(config, kwargs), initial="empty", **options)
        model.build()
        _assign(named_variables(model), reader, set(), in_place)
    return model


def save_dual_encoder(
    model: Any, out: Source, framework: Framework, container: Literal["h5", "safetensors"], overwrite: bool
) -> Conversion:
    """Saves a built dual encoder; see ``TFVisionTextDualEncoderModel.save_pretrained``."""
    config = json.loads(model.config.to_json_string(use_diff=False))
    config["architectures"] = [type(model).__name__.removeprefix("TF")]
    tensors = [_stored(name, variable) for name, variable in named_variables(model).items()]
    return write_tensors(config, tensors, out, framework="tf", target=framework, format=container, overwrite=overwrite)


def join_towers(cls: Any, vision: Source | None, text: Source | None, *args: Any, **kwargs: Any) -> Any:
    """Makes a dual encoder of two tower checkpoints, with fresh projections and the config's ``logit_scale``.

    Args:
        cls: class of the model.
        vision: checkpoint of the vision tower; not needed with ``vision_model=``.
        text: checkpoint of the text tower; not needed with ``text_model=``.
        *args: of both towers.
        **kwargs: with ``vision_`` or ``text_`` in front those of ``load_tower``, or ``vision_model`` and ``text_model``
            themselves; the others are fields of the dual encoder's config, such as ``projection_dim``.

    Returns:
        The model, built. Train it before use: its projections are random.

    Raises:
        ModelError: a tower has neither a checkpoint nor a model.
        ConverterError: a checkpoint does not hold the tower, or is not sound.
    """
    towers = {}
    for side, source in (("vision", vision), ("text", text)):
        own = {n.removeprefix(f"{side}_"): kwargs.pop(n) for n in list(kwargs) if n.startswith(f"{side}_")}
        tower = own.pop("model", None)
        if tower is None and source is None:
            raise ModelError(
                f"{side}_model_name_or_path is missing. "
                f"Pass the checkpoint of a {side} tower, or the tower as {side}_model=."
            )
        if tower is None and source is not None:
            tower = load_tower(source, side, *args, name=f"{side}_model", **own)
        towers[side] = tower
    configs = {side: tower.config for side, tower in towers.items()}
    kwargs = {name: value for name, value in kwargs.items() if name not in _NO_MEANING}
    config = VisionTextDualEncoderConfig.from_vision_text_configs(configs["vision"], configs["text"], **kwargs)
    model = cls(config=config, vision_model=towers["vision"], text_model=towers["text"])
    model.build()
    _LOG.warning("visual_projection, text_projection and logit_scale are new: train this model before using it")
    return model


def _fresh(name: str, shape: Any, std: float) -> Any:
    if name.endswith("/kernel"):
        return keras.initializers.RandomNormal(stddev=std)(shape)
    return ops.ones(shape) if name.endswith("/gamma") else ops.zeros(shape)


def _assign(variables: Mapping[str, Any], reader: TensorReader, new: set[str], in_place: bool = False) -> None:
    """Gives every variable its tensor; beside the variables there are never more than a few tensors in memory."""
    shapes = reader.shapes
    missing = sorted(variables.keys() - shapes.keys() - new)
    wrong = [name for name, v in variables.items() if name in shapes and tuple(v.shape) != tuple(shapes[name])]
    if missing or wrong:
        raise PlanError(
            f"The model and the checkpoint disagree; not in the checkpoint: {listed(missing)}; of another shape: "
            f"{listed(wrong)}. Leave config= out, or give the config that the weights were saved with."
        )
    for name, array in _read_ahead(reader, [name for name in reader.names if name in variables], in_place):
        variables[name].assign(_cast(array, variables[name].dtype))


def _read_ahead(
    reader: TensorReader, names: Sequence[str], in_place: bool
) -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
    """Reads tensors in order, the next ones while the last one is being made use of."""
    if not reader.has_extents:  # HDF5 reads chunks one after the other, whoever asks
        yield from ((name, reader.read(name)) for name in names)
        return
    with ThreadPoolExecutor(_READERS) as pool:
        under_way = deque[tuple[str, Future[np.ndarray[Any, Any]]]]()
        for name in names:
            under_way.append((name, pool.submit(reader.read, name, in_place)))
            if len(under_way) > _READERS:
                yield _first(under_way)
        while under_way:
            yield _first(under_way)


def _first(
    under_way: deque[tuple[str, Future[np.ndarray[Any, Any]]]],
) -> tuple[str, np.ndarray[Any, Any]]:
    name, array = under_way.popleft()
    return name, array.result()


def _cast(array: np.ndarray[Any, Any], dtype: str) -> Any:
    """An array that nobody else holds, as what a variable of the dtype takes, without a copy where that can be."""
    if array.dtype.name != dtype:
        return array.astype(np.float32) if dtype == "bfloat16" else array.astype(dtype)
    if keras.backend.backend() != "tensorflow" or not _can_be_taken_over(array):
        return array
    import tensorflow as tf

    return tf.experimental.dlpack.from_dlpack(array.__dlpack__())  # TensorFlow copies an array that it is given, twice


def _can_be_taken_over(array: np.ndarray[Any, Any]) -> bool:
    """TensorFlow believes that what it is given by DLPack is aligned, and ends the process where it finds that it is not."""
    aligned = array.__array_interface__["data"][0] % ALIGNMENT == 0
    return (
        aligned
        and array.size > 0
        and array.flags.c_contiguous
        and array.dtype.name in ("float64", "float32", "float16")
    )


def _stored(name: str, variable: Any) -> StoredTensor:
    def read_rows(start: int, stop: int) -> np.ndarray[Any, Any]:
        rows: np.ndarray[Any, Any] = ops.convert_to_numpy(variable.value[start:stop])
        return rows

    dtype = keras.backend.standardize_dtype(variable.dtype)
    return StoredTensor(name, dtype, tuple(int(size) for size in variable.shape), None, read_rows)


def _side_of(model_type: Any) -> Side:
    side = side_of(model_type)
    if side is None:
        known = sorted({model_type for side in SIDES for model_type in supported(side)})
        raise ModelError(
            f"model_type {model_type!r} is not one tower of {listed(known, 20)}. Say side='vision' or 'text'."
        )
    return side


def _from_dict(fields: Mapping[str, Any]) -> Any:
    rest = dict(fields)
    return AutoConfig.for_model(rest.pop("model_type"), **rest)


def _changed(config: Any, fields: Mapping[str, Any]) -> Any:
    """The config with some fields changed, as transformers' from_pretrained does with further arguments."""
    for name, value in fields.items():
        if name in _NO_MEANING:
            continue
        if not hasattr(config, name):
            raise ModelError(
                f"{name} is neither an argument of from_pretrained here nor a field of {type(config).__name__}. "
                "Remove it."
            )
        setattr(config, name, value)
    return config


def _tell(source: Source, report: LoadingReport) -> None:
    for what, names in (("left out", [item.name for item in report.left_out]), ("made anew", list(report.new))):
        if names:
            _LOG.warning("%s: %d tensors %s: %s", source, len(names), what, listed(names))

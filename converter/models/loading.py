"""Checkpoints in and out of models; finding, checking and writing files is the engine's business."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from transformers import AutoConfig

from converter.arguments import checked
from converter.conversion.formats import choose
from converter.conversion.plan import Dropped
from converter.conversion.positions import POSITIONS, Positions, check_positions, tell_positions
from converter.conversion.streams import open_tensors, open_tower
from converter.errors import ModelError, listed
from converter.folder.files import read_json
from converter.hub.obtaining import obtain
from converter.models.asking import hub_arguments
from converter.models.assigning import assign
from converter.models.dtypes import AUTO, DTYPE_NAMES, take_dtype
from converter.models.loading_info import Mismatched, draw, loading_info, mismatched, take_asked
from converter.models.names import named_variables
from converter.models.parts import Composite
from converter.models.registry import family_class, side_of, tower_class, tower_config
from converter.names.configs import TowerConfig, check_config, check_tower_config, config_beside
from converter.names.families import Family
from converter.names.frameworks import KERAS
from converter.names.rule_files import SIDES, Side, supported
from converter.specs import Framework

Source = str | os.PathLike[str]
_LOG = logging.getLogger("converter.models")
# Arguments of transformers' from_pretrained that choose among files or kinds of file, which is found out here anyway.
_NO_MEANING = ("from_pt", "from_tf", "use_safetensors", "load_weight_prefix", "low_cpu_mem_usage", "trust_remote_code")


@dataclass(frozen=True)
class LoadingReport:
    """What loading a tower left aside.

    Attributes:
        left_out: tensors of the checkpoint that the tower does not have (a head, another tower), and why.
        new: variables that the checkpoint lacks and that got random values (a pooler).
        of_another_shape: weights whose shape is not the checkpoint's, which got random values by
            ``ignore_mismatched_sizes``: name, shape in the checkpoint, shape in the model.
    """

    left_out: tuple[Dropped, ...]
    new: tuple[str, ...]
    of_another_shape: tuple[Mismatched, ...] = ()

    @property
    def info(self) -> dict[str, Any]:
        """The same as transformers 4 says it with ``output_loading_info=True``."""
        return loading_info((item.name for item in self.left_out), self.new, self.of_another_shape)


@checked()
def build_tower(config: Any, side: Side | None = None, *args: Any, **kwargs: Any) -> Any:
    """Makes a tower with new weights from a config of transformers.

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
    """Garbage collection is off during loading, because the frameworks' many objects stay; it takes a third of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@checked()
@_without_collection()
def load_tower(source: Source, side: Side | None = None, *args: Any, **kwargs: Any) -> Any:
    """Loads one tower: from its own checkpoint with or without prefix and head, a full CLIP, or a dual encoder.

    Args:
        source: a folder that ``save_pretrained`` wrote, a weights file in one, or the id of a model on the Hub; of
            either framework.
        side: ``"vision"`` or ``"text"``; None: what the model type in config.json says.
        *args: of the tower: ``add_pooling_layer``.
        **kwargs: ``config`` replaces the checkpoint's. ``name``, ``add_pooling_layer`` and ``dtype`` (or ``torch_dtype``)
            are the tower's, as for a whole model. ``positions`` is for a Flax checkpoint, as in ``converter.convert``.
            Others are fields of the config to change, and those of ``hub_arguments``.

    Returns:
        The tower, built; its ``loading_report`` says what was left out of the checkpoint and what got random values.

    Raises:
        ConverterError: the checkpoint lacks the tower, or is invalid.
    """
    asked = take_asked(source, kwargs)
    source = asked.source
    revision, access = hub_arguments(source, kwargs)
    held = obtain(source, None, revision, access)
    wanted = side or _side_of(read_json(config_beside(held.folder)).get("model_type"))
    options: dict[str, Any] = {name: kwargs.pop(name) for name in ("name", "add_pooling_layer") if name in kwargs}
    positions = _take_positions(kwargs)
    with open_tower(held.path, wanted, KERAS if positions == "flax" else None) as reader:
        options |= take_dtype(kwargs, reader)
        _tell_positions(positions, check_tower_config(wanted, reader.config), reader.framework)
        config = _changed(kwargs.pop("config", None) or _from_dict(reader.config), kwargs)
        tower = build_tower(config, wanted, *args, initial="empty", **options)
        tower.build()
        variables = named_variables(tower)
        unused = [Dropped(name, "the tower was made without it") for name in reader.names if name not in variables]
        other = mismatched(variables, reader) if asked.ignore_mismatched_sizes else ()
        assign(variables, reader, reader.new, of_another_shape=[name for name, *_ in other])
        new = tuple(name for name in reader.new if name in variables)
        draw(variables, (*new, *(name for name, *_ in other)), getattr(config, "initializer_range", None) or 0.02)
        tower.loading_report = LoadingReport((*reader.dropped, *unused), new, other)
    _tell(source, tower.loading_report)
    return (tower, tower.loading_report.info) if asked.info else tower


@_without_collection()
def load_two_towers(cls: Any, source: Source, *, in_place: bool = False, **kwargs: Any) -> Any:
    """Loads a model with two towers of either framework, from any container that the engine reads.

    Args:
        cls: class of the model; None: that of the checkpoint's family.
        source: a folder that ``save_pretrained`` wrote, a weights file in one, or the id of a model on the Hub.
        in_place: take weights from the mapped file where TensorFlow can, which saves half of the time. Only for a
            process that may end: a change to the file changes the model, or ends it.
        **kwargs: ``config`` instead of the checkpoint's; ``name`` and ``dtype`` or ``torch_dtype``; fields of the config to
            change; ``positions`` of a Flax checkpoint, as ``converter.convert`` has it; those of ``hub_arguments``.
            ``from_pt`` is accepted and ignored: the framework is detected.

    Returns:
        The model, built.

    Raises:
        ConverterError: the checkpoint is of another family than ``cls``, or incomplete or invalid.
    """
    options: dict[str, Any] = {"name": kwargs.pop("name", None)}
    asked, place = take_asked(source, kwargs), os.fspath(source)
    source = asked.source
    revision, access = hub_arguments(source, kwargs)
    positions = _take_positions(kwargs)
    with open_tensors(source, KERAS, revision, access, KERAS if positions == "flax" else None) as reader:
        options |= take_dtype(kwargs, reader)
        _tell_positions(positions, check_config(dict(reader.config)).text, reader.framework)
        kind = _class_for(reader.family, cls, source)
        config = kwargs.pop("config", None) or kind.config_class.from_dict(dict(reader.config))
        model = kind(_changed(config, kwargs), initial="empty", **options)
        model.build()
        model.config._name_or_path = place
        variables = named_variables(model)
        other = mismatched(variables, reader) if asked.ignore_mismatched_sizes else ()
        assign(variables, reader, (), in_place, [name for name, *_ in other])
        draw(variables, (name for name, *_ in other), getattr(config, "initializer_range", None) or 0.02)
        report = LoadingReport(reader.dropped, (), other)
    _tell(source, LoadingReport((), (), other))
    return (model, report.info) if asked.info else model


def _class_for(of: Family | None, cls: Any, source: Source) -> Any:
    """The class to load a checkpoint into: the requested one, if it is of the same family."""
    if of is None:
        raise ValueError("the checkpoint of a tower has no family")
    if cls is None:
        return family_class(of)
    if cls.family.model_type != of.model_type:
        right = of.classes.get(KERAS)
        raise ModelError(
            f"{source}: {cls.__name__} loads {cls.family.title} checkpoints; this one is {of.title} "
            f"(model_type {of.model_type!r}). "
            + (
                f"Use {right}.from_pretrained, or AutoTwoTower.from_pretrained."
                if right
                else "There is no class for it."
            )
        )
    return cls


def join_towers(cls: Any, vision: Source | None, text: Source | None, *args: Any, **kwargs: Any) -> Any:
    """Makes a dual encoder from two tower checkpoints, with new projections and the config's ``logit_scale``.

    Args:
        cls: class of the model.
        vision: checkpoint of the vision tower; not needed with ``vision_model=``.
        text: checkpoint of the text tower; not needed with ``text_model=``.
        *args: of both towers.
        **kwargs: those of ``load_tower`` with ``vision_`` or ``text_`` in front, or ``vision_model`` and ``text_model``
            themselves. ``dtype`` or ``torch_dtype`` holds for all, and ``positions`` for a text tower from Flax. The
            others are fields of the dual encoder's config, such as ``projection_dim``.

    Returns:
        The model, built. Train it before use: its projections are random.

    Raises:
        ModelError: a tower has neither a checkpoint nor a model.
        ConverterError: a checkpoint lacks the tower, or is invalid.
    """
    towers: dict[str, Any] = {}
    dtypes = {name: kwargs.pop(name) for name in DTYPE_NAMES if name in kwargs}
    if "positions" in kwargs:
        kwargs.setdefault("text_positions", kwargs.pop("positions"))
    whole = {} if AUTO in dtypes.values() else take_dtype(dict(dtypes))
    for side, source in zip(SIDES, (vision, text), strict=True):
        own = {n.removeprefix(f"{side}_"): kwargs.pop(n) for n in list(kwargs) if n.startswith(f"{side}_")}
        tower = own.pop("model", None)
        if tower is None and source is None:
            raise ModelError(
                f"{side}_model_name_or_path is missing. "
                f"Pass the checkpoint of a {side} tower, or the tower as {side}_model=."
            )
        if tower is None and source is not None:
            own = own if any(own.get(name) is not None for name in DTYPE_NAMES) else {**own, **dtypes}
            tower = load_tower(source, side, *args, name=f"{side}_model", **own)
        if not isinstance(tower, Composite):
            raise ModelError(
                f"{side}_model is a {type(tower).__name__}; expected a {side} tower of converter.models. "
                "Name its checkpoint instead, or make one with converter.models.build_tower(config)."
            )
        towers[side] = tower
    configs = {side: tower.config for side, tower in towers.items()}
    kwargs = {name: value for name, value in kwargs.items() if name not in _NO_MEANING}
    config = cls.config_class.from_vision_text_configs(configs["vision"], configs["text"], **kwargs)
    whole = whole or {"dtype": towers["text"].dtype_policy}
    model = cls(config=config, vision_model=towers["vision"], text_model=towers["text"], **whole)
    model.build()
    _LOG.warning("visual_projection, text_projection and logit_scale are new: train this model before using it")
    return model


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


def _take_positions(arguments: dict[str, Any]) -> Positions:
    """Takes ``positions`` out of the arguments, before anything is opened."""
    positions: Positions = arguments.pop("positions", "keep")
    choose("positions", positions, POSITIONS)
    return positions


def _tell_positions(positions: Positions, text: TowerConfig, source: Framework) -> None:
    """Says what equal weights compute differently, or refuses to move positions of a checkpoint that is not Flax's."""
    check_positions(positions, source, KERAS)
    tell_positions(positions, text, source, KERAS)


def _tell(source: Source, report: LoadingReport) -> None:
    if report.of_another_shape:
        shapes = listed([f"{name} {of_file} -> {of_model}" for name, of_file, of_model in report.of_another_shape])
        _LOG.warning(
            "%s: %d tensors of another shape newly initialised: %s", source, len(report.of_another_shape), shapes
        )
    for what, names in (("left out", [item.name for item in report.left_out]), ("newly initialised", list(report.new))):
        if names:
            _LOG.warning("%s: %d tensors %s: %s", source, len(names), what, listed(names))

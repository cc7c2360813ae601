"""The name tables of transformers, and the configs they belong to.

A test that asks for ``pair``, ``odd``, ``whole`` or ``tower_type`` runs once for each.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import pytest

from converter.names.configs import (
    TowerConfig,
    TwoTowerConfig,
    check_config,
    check_tower_config,
    required_choices,
    required_fields,
)
from converter.names.families import joined
from converter.names.rule_files import Side, supported
from converter.names.rules import RuleSet, compile_rules, compile_tower
from tests.names.tables import NAMES, pair_fields, table

ROOT_SCOPE = "tf_vision_text_dual_encoder_model/"


def side_of(model_type: str) -> Side:
    """Which tower a model type is."""
    return "vision" if model_type in supported("vision") else "text"


def tower_config(fields: dict[str, Any]) -> TwoTowerConfig:
    """The config of a dual encoder with one given tower; the other is all defaults."""
    side = side_of(fields["model_type"])
    fields = {**required(check_tower_config(side, fields, f"config.json: {side}_config")), **fields}
    towers = {"vision_config": {"model_type": "vit"}, "text_config": {"model_type": "bert"}, f"{side}_config": fields}
    return check_config({"model_type": "vision-text-dual-encoder", **towers})


def required(tower: TowerConfig) -> dict[str, Any]:
    """What a dual encoder asks of a tower's config beside what the tower itself does; of several values the first."""
    return {**required_fields(tower), **{name: values[0] for name, values in required_choices(tower).items()}}


@dataclass(frozen=True)
class Pair:
    """A pair of pairs.json: what it is called, what transformers says, and what the rules say."""

    vision: str
    text: str
    said: dict[str, dict[str, list[int]]]
    config: TwoTowerConfig
    rules: RuleSet


@dataclass(frozen=True)
class Odd:
    """A case of odd.json: the tower's side, what transformers says, and what the rules say."""

    side: Side
    said: dict[str, Any]
    config: TwoTowerConfig
    tower: RuleSet
    rules: RuleSet


@dataclass(frozen=True)
class Whole:
    """A family of families.json: what transformers says of it, and what the rules say."""

    said: dict[str, Any]
    config: TwoTowerConfig
    rules: RuleSet


@functools.cache
def load_pair(name: str) -> Pair:
    """Compiles one pair of pairs.json."""
    vision, text = name.split("+")
    config = check_config(pair_fields(name))
    return Pair(vision, text, table("pairs")[name], config, compile_rules(config))


@functools.cache
def load_odd(name: str) -> Odd:
    """Compiles one case of odd.json."""
    said = table("odd")[name]
    side = side_of(said["config"]["model_type"])
    config = tower_config(said["config"])
    return Odd(side, said, config, compile_tower(config.tower(side), joined()), compile_rules(config))


@functools.cache
def load_whole(name: str) -> Whole:
    """Compiles the odd config of one family of families.json."""
    said = table("families")[name]
    config = check_config(said["config"])
    return Whole(said, config, compile_rules(config))


def tower_types() -> list[str]:
    """Every model type that has rules."""
    return [*supported("vision"), *supported("text")]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Runs a test for every pair, odd config or model type that it asks for."""
    every = {"pair": table("pairs"), "odd": table("odd"), "whole": table("families"), "tower_type": tower_types()}
    for argument, names in every.items():
        if argument in metafunc.fixturenames:
            metafunc.parametrize(argument, list(names), indirect=argument != "tower_type")


@pytest.fixture
def pair(request: pytest.FixtureRequest) -> Pair:
    """A pair of pairs.json."""
    return load_pair(request.param)


@pytest.fixture
def odd(request: pytest.FixtureRequest) -> Odd:
    """A case of odd.json."""
    return load_odd(request.param)


@pytest.fixture
def whole(request: pytest.FixtureRequest) -> Whole:
    """A family of families.json."""
    return load_whole(request.param)


@pytest.fixture
def names() -> Any:
    """The loader of the tables, and what belongs to them, for tests that are about all of them together."""
    return _Tables


class _Tables:
    table = staticmethod(table)
    tower_config = staticmethod(tower_config)
    required = staticmethod(required)
    side_of = staticmethod(side_of)
    tower_types = staticmethod(tower_types)
    directory = NAMES
    root_scope = ROOT_SCOPE


def tf_shape(layout: str, shape: tuple[int, ...]) -> list[int]:
    """TensorFlow's shape, written out once more so that the tests do not lean on converter.tensors.layouts."""
    if layout == "dense":
        out, into = shape
        return [into, out]
    if layout == "conv1d":
        out, into, length = shape
        return [length, into, out]
    if layout == "conv2d":
        out, into, height, width = shape
        return [height, width, into, out]
    return [1] if layout == "scalar" else list(shape)


@pytest.fixture
def said_by_rules() -> Any:
    """``(tables of names -> shapes that a rule set gives: PyTorch's, TensorFlow's in order, stored buffers)``."""

    def tables(rules: RuleSet) -> tuple[dict[str, list[int]], dict[str, list[int]], dict[str, list[int]]]:
        pt = {rule.names["pt"]: list(rule.shape) for rule in rules.tensors}
        tf = {rule.names["tf"]: tf_shape(rule.layouts["tf"], rule.shape) for rule in rules.tensors}
        tf |= {rule.names["tf"]: list(rule.shape or ()) for rule in rules.buffers if "tf" in rule.names}
        return pt, tf, {rule.names["pt"]: list(rule.shape or ()) for rule in rules.buffers if "pt" in rule.names}

    return tables

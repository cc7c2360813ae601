"""Checkpoint names, against the tables that transformers 4.57.6 wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras
import pytest
import transformers
from transformers import VisionTextDualEncoderConfig

from converter.errors import ModelError
from converter.models import AutoTwoTower, TFVisionTextDualEncoderModel, build_tower, named_variables
from converter.models.registry import side_of, tower_class
from converter.names.configs import check_config
from converter.names.rules import compile_rules
from converter.tensors.layouts import LAYOUTS
from tests.models.families import WHOLES, Kind, config_of
from tests.names.tables import pair_fields
from tests.towers import SIDES, TEXT, TOWERS, VISION, each_once

pytestmark = [pytest.mark.torch, pytest.mark.tf]

ROOT = "tf_vision_text_dual_encoder_model/"
FIXTURES = Path(__file__).parents[2] / "fixtures" / "names"
FIXTURE = json.loads((FIXTURES / "pairs.json").read_text())
TABLE = {
    pair: {name.removeprefix(ROOT).removesuffix(":0"): shape for name, shape in names["tf"].items()}
    for pair, names in FIXTURE.items()
    if names["tf"]
}


def tower_config(kind: str) -> Any:
    return transformers.AutoConfig.for_model(kind, **TOWERS[kind].config)


def table_config(pair: str) -> Any:
    """The config that a pair of pairs.json was made with."""
    fields = pair_fields(pair)
    towers = {f"{side}_config": dict(fields[f"{side}_config"]) for side in SIDES}
    made = [transformers.AutoConfig.for_model(tower.pop("model_type"), **tower) for tower in towers.values()]
    return VisionTextDualEncoderConfig.from_vision_text_configs(*made, projection_dim=fields["projection_dim"])


def shapes(model: Any) -> dict[str, list[int]]:
    return {name: list(variable.shape) for name, variable in named_variables(model).items()}


def wanted(pair: str) -> dict[str, list[int]]:
    buffers = ("relative_position_index",)
    table: dict[str, list[int]] = TABLE[pair]
    return {name: shape for name, shape in table.items() if not name.endswith(buffers)}


@pytest.mark.parametrize("pair", sorted(TABLE))
def test_names_shapes_and_order_are_those_of_transformers_4(pair: str) -> None:
    model = TFVisionTextDualEncoderModel(table_config(pair))
    model.build()
    assert list(shapes(model).items()) == list(wanted(pair).items())
    assert [variable.path for variable in named_variables(model).values()] == [ROOT + name for name in wanted(pair)]


@pytest.mark.parametrize("name", [*("+".join(pair) for pair in each_once(VISION, TEXT)), *WHOLES])
def test_names_shapes_and_order_are_those_of_the_rules(name: str) -> None:
    config = config_of(name)
    model = AutoTwoTower.from_config(config)
    model.build()
    root = f"{model.load_weight_prefix}/"
    rules = compile_rules(check_config(config.to_dict()))
    named = [(rule.names["tf"], list(LAYOUTS[rule.layouts["tf"]].shape_from_pt(rule.shape))) for rule in rules.tensors]
    assert list(shapes(model).items()) == named
    assert [variable.path for variable in named_variables(model).values()] == [root + name for name, _ in named]


def test_the_names_of_clip_begin_and_end_as_transformers_4_creates_them() -> None:
    model = AutoTwoTower.from_config(config_of("clip"))
    model.build()
    names = list(shapes(model))
    assert names[:2] == ["clip/logit_scale", "clip/text_model/embeddings/token_embedding/weight"]
    towers = [name.split("/")[1] for name in names[1:-2]]
    assert towers == sorted(towers)  # all of the text tower, then all of the vision tower
    assert names[-2:] == ["clip/visual_projection/kernel", "clip/text_projection/kernel"]


@pytest.mark.parametrize("kind", [*VISION, *TEXT])
def test_the_class_that_the_rules_name_serves(kind: str) -> None:
    side = TOWERS[kind].side
    assert side_of(kind) == side
    served = tower_class(tower_config(kind), side)
    assert (served.side, served.main_layer) == (side, TOWERS[kind].main_layer)


def test_names_of_text_towers_that_transformers_4_had_alone() -> None:
    table = json.loads((FIXTURES / "standalone_tf.json").read_text())
    for kind, names in table.items():
        tower = build_tower(table_config(f"clip_vision_model+{kind}").text_config)
        tower.build()
        found = {name.removeprefix("clip/"): shape for name, shape in shapes(tower).items()}
        assert found == {name.removesuffix(":0"): shape for name, shape in names.items()}


def test_towers_built_alone_and_joined_have_the_same_names() -> None:
    pair = "clip_vision_model+roberta"
    config = table_config(pair)
    vision, text = build_tower(config.vision_config), build_tower(config.text_config)
    vision.build()
    text.build()
    assert next(iter(named_variables(text))) == "roberta/encoder/layer_._0/attention/self/query/kernel"
    paths = [variable.path for variable in named_variables(text).values()]
    model = TFVisionTextDualEncoderModel(vision_model=vision, text_model=text)
    model.build()
    assert list(shapes(model)) == list(wanted(pair))
    assert [variable.path for variable in named_variables(text).values()] == paths


def test_a_second_model_in_the_process_has_the_same_names(kind: Kind) -> None:
    models = [AutoTwoTower.from_config(kind.make()) for _ in range(2)]
    for model in models:
        model.build()
        assert list(shapes(model)) == list(shapes(models[0]))
        root = f"{model.load_weight_prefix}/"
        assert [v.path for v in named_variables(model).values()] == [root + name for name in shapes(model)]


def test_a_name_of_the_users_is_in_keras_paths_only(kind: Kind) -> None:
    plain, named = (AutoTwoTower.from_config(kind.make(), name=name) for name in (None, "mine"))
    plain.build()
    named.build()
    assert shapes(named) == shapes(plain)
    assert [v.path for v in named_variables(named).values()] == [f"mine/{name}" for name in shapes(plain)]


def test_names_survive_a_keras_file(kind: Kind, tmp_path: Path) -> None:
    model = AutoTwoTower.from_config(kind.make())
    model.build()
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert list(shapes(loaded).items()) == list(shapes(model).items())
    root = f"{model.load_weight_prefix}/"
    assert [v.path for v in named_variables(loaded).values()] == [root + name for name in shapes(model)]


def test_only_dropout_state_is_outside_the_checkpoint(kind: Kind) -> None:
    model = AutoTwoTower.from_config(kind.make(**kind.text_dropout))
    model.build()
    held = {id(variable) for variable in named_variables(model).values()}
    rest = {v.path for v in model.variables if id(v) not in held}
    assert rest == {"dropout_seed/seed_generator_state"}
    assert len(model.trainable_variables) == len(held)


def test_an_unbuilt_model_has_no_names() -> None:
    with pytest.raises(ModelError, match=r"^vision has no variables yet\. Call its build\(\) first\.$"):
        named_variables(build_tower(tower_config("vit"), name="vision"))

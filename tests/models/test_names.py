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
from converter.models import TFVisionTextDualEncoderModel, build_tower, named_variables
from converter.models.registry import TEXT, VISION

ROOT = "tf_vision_text_dual_encoder_model/"
FIXTURE = json.loads((Path(__file__).parents[2] / "fixtures" / "names" / "pairs.json").read_text())
TABLE = {
    pair: {name.removeprefix(ROOT).removesuffix(":0"): shape for name, shape in names["tf"].items()}
    for pair, names in FIXTURE.items()
    if names["tf"] and set(pair.split("+")) <= {*VISION, *TEXT}
}
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
FIELDS: dict[str, dict[str, Any]] = {
    "clip_vision_model": {"image_size": 32, "patch_size": 16},
    "vit": {"image_size": 32, "patch_size": 16},
    "bert": {"vocab_size": 99},
    "roberta": {"vocab_size": 99, "max_position_embeddings": 512},
    "xlm-roberta": {"vocab_size": 99, "max_position_embeddings": 512},
    "camembert": {"vocab_size": 99, "max_position_embeddings": 512},
}


def tower_config(kind: str) -> Any:
    return transformers.AutoConfig.for_model(kind, **{**SMALL, **FIELDS[kind]})


def config_of(pair: str) -> Any:
    vision, text = pair.split("+")
    return VisionTextDualEncoderConfig.from_vision_text_configs(
        tower_config(vision), tower_config(text), projection_dim=16
    )


def shapes(model: Any) -> dict[str, list[int]]:
    return {name: list(variable.shape) for name, variable in named_variables(model).items()}


def wanted(pair: str) -> dict[str, list[int]]:
    buffers = ("relative_position_index",)
    table: dict[str, list[int]] = TABLE[pair]
    return {name: shape for name, shape in table.items() if not name.endswith(buffers)}


@pytest.mark.parametrize("pair", sorted(TABLE))
def test_names_shapes_and_order_are_those_of_transformers_4(pair: str) -> None:
    model = TFVisionTextDualEncoderModel(config_of(pair))
    model.build()
    assert list(shapes(model).items()) == list(wanted(pair).items())
    assert [variable.path for variable in named_variables(model).values()] == [ROOT + name for name in wanted(pair)]


def test_every_tower_is_in_a_table() -> None:
    assert {side for pair in TABLE for side in pair.split("+")} == {*VISION, *TEXT}


def test_towers_built_alone_and_joined_have_the_same_names() -> None:
    vision, text = build_tower(tower_config("clip_vision_model")), build_tower(tower_config("roberta"))
    vision.build()
    text.build()
    assert list(named_variables(text))[0] == "roberta/encoder/layer_._0/attention/self/query/kernel"
    paths = [variable.path for variable in named_variables(text).values()]
    model = TFVisionTextDualEncoderModel(vision_model=vision, text_model=text)
    model.build()
    pair = "clip_vision_model+roberta"
    assert list(shapes(model)) == list(wanted(pair))
    assert [variable.path for variable in named_variables(text).values()] == paths


def test_a_second_model_in_the_process_has_the_same_names() -> None:
    models = [TFVisionTextDualEncoderModel(config_of("vit+bert")) for _ in range(2)]
    for model in models:
        model.build()
        assert list(shapes(model)) == list(wanted("vit+bert"))
        assert next(iter(named_variables(model).values())).path.startswith(ROOT)


def test_names_survive_a_keras_file(tmp_path: Path) -> None:
    model = TFVisionTextDualEncoderModel(config_of("vit+bert"))
    model.build()
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert list(shapes(loaded).items()) == list(wanted("vit+bert").items())
    assert [v.path for v in named_variables(loaded).values()] == [ROOT + name for name in wanted("vit+bert")]


def test_only_dropout_state_is_outside_the_checkpoint() -> None:
    model = TFVisionTextDualEncoderModel(config_of("vit+bert"))
    model.build()
    held = {id(variable) for variable in named_variables(model).values()}
    assert [v.path for v in model.variables if id(v) not in held] == ["dropout_seed/seed_generator_state"]
    assert len(model.trainable_variables) == len(held)


def test_an_unbuilt_model_has_no_names() -> None:
    with pytest.raises(ModelError, match=r"^vision has no variables yet\. Call its build\(\) first\.$"):
        named_variables(build_tower(tower_config("vit"), name="vision"))

"""What Python lets a person give a model and its class: wrong words and objects are refused, with the choices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import torch

from converter.errors import ArgumentError, ConverterError, ModelError, TargetError
from converter.models import AutoTwoTower, TFVisionTextDualEncoderModel, build_tower, load_tower, named_variables
from converter.models.towers.bert import BertTower
from tests import wrong
from tests.models import reference
from tests.models.conftest import Case
from tests.models.families import Kind

pytestmark = [pytest.mark.torch, pytest.mark.tf]

FIXTURE = Path(__file__).parents[2] / "fixtures" / "clip-bert-tiny"
POLICIES = "'float32' or 'float16' or 'bfloat16' or 'float64' or 'mixed_float16' or 'mixed_bfloat16'"
CHOICES = "does not exist; choose"


@pytest.mark.parametrize(
    ("function", "given"),
    [
        (TFVisionTextDualEncoderModel.from_pretrained, {"source": FIXTURE}),
        (AutoTwoTower.from_pretrained, {"source": FIXTURE}),
        (TFVisionTextDualEncoderModel.from_vision_text_pretrained, {}),
        (load_tower, {"source": FIXTURE}),
    ],
)
def test_every_parameter_of_what_loads(function: Any, given: dict[str, Any]) -> None:
    tried = list(wrong.cases(getattr(function, "__func__", function)))
    assert len({name for name, _, _ in tried}) >= 2
    for name, value, words in tried:
        said = wrong.refused(function, given, name, value)
        assert all(word in said for word in words), said


def test_every_parameter_of_what_saves(one: Case, tmp_path: Path) -> None:
    model = reference.keras_model(one.config, one.tensors)
    for function, given in (
        (model.save_pretrained, {"out": tmp_path / "out"}),
        (model.export, {"filepath": tmp_path / "out"}),
    ):
        tried = list(wrong.cases(function.__func__))
        assert {name for name, _, _ in tried} >= {"format"}
        for name, value, words in tried:
            said = wrong.refused(function, given, name, value)
            assert all(word in said for word in words), said
    with pytest.raises(TargetError, match=f"^target 'tensorflow' {CHOICES} 'pt' or 'tf' or 'flax'$"):
        model.save_pretrained(tmp_path / "out", framework="tensorflow")
    with pytest.raises(TargetError, match=r"^format h5 is not one of PyTorch's; choose safetensors or bin$"):
        model.save_pretrained(tmp_path / "out", framework="pt", format="h5")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("option", ["dtype", "torch_dtype"])
@pytest.mark.parametrize("value", ["fp16", torch.int8, np.int64, 16, object, ["float32"]])
def test_a_dtype_that_is_none(kind: Kind, option: str, value: Any) -> None:
    config = kind.make()
    makers = {
        f"choose {POLICIES}": [
            lambda: AutoTwoTower.from_config(config, **{option: value}),
            lambda: build_tower(config.text_config, "text", **{option: value}),
            lambda: TFVisionTextDualEncoderModel.from_vision_text_pretrained(FIXTURE, FIXTURE, **{option: value}),
        ],
        f"choose {POLICIES} or 'auto'": [
            lambda: AutoTwoTower.from_pretrained(FIXTURE, **{option: value}),
            lambda: load_tower(FIXTURE, "text", **{option: value}),
        ],
    }
    for end, calls in makers.items():
        for call in calls:
            with pytest.raises(ArgumentError) as caught:
                call()
            assert str(caught.value).startswith(f"{option} ")
            assert str(caught.value).endswith(f" {end}")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"initial": "ones"}, f"initial 'ones' {CHOICES} 'random' or 'zeros' or 'empty'"),
        ({"initial": None}, f"initial None {CHOICES} 'random' or 'zeros' or 'empty'"),
        ({"name": 7}, "name is 7 (int); expected a text or None"),
        ({"trainable": "no"}, "trainable is 'no' (str); expected True or False or None"),
    ],
)
def test_options_of_a_model_and_a_tower(kind: Kind, options: dict[str, Any], said: str) -> None:
    config = kind.make()
    for call in (AutoTwoTower.from_config, lambda config, **given: build_tower(config.text_config, "text", **given)):
        with pytest.raises(ArgumentError) as caught:
            call(config, **options)
        assert str(caught.value) == said


def test_a_side_that_there_is_not() -> None:
    for call in (
        lambda: build_tower(reference.make_config("vit", "bert"), "image"),
        lambda: load_tower(FIXTURE, "image"),
    ):
        with pytest.raises(ArgumentError) as caught:
            call()
        assert str(caught.value) == f"side 'image' {CHOICES} 'vision' or 'text' or None"


def test_what_is_no_tower_and_no_model() -> None:
    cls: Any = TFVisionTextDualEncoderModel
    tower = build_tower(reference.make_config("vit", "bert").text_config)
    said = "vision_model is a str; expected a vision tower of converter.models. "
    make = "ake one with converter.models.build_tower(config)"
    for call, end in (
        (cls, f"M{make}, or give a config only."),
        (cls.from_vision_text_pretrained, f"Name its checkpoint instead, or m{make}."),
    ):
        with pytest.raises(ModelError) as caught:
            call(vision_model="vit", text_model=tower)
        assert str(caught.value) == said + end
    with pytest.raises(ModelError, match="^the layer is a Dense; give a model of this package"):
        named_variables(keras.layers.Dense(2))


@pytest.mark.parametrize("value", ["a cat", 7, None, ["a cat"], object(), {"nonsense": 1}])
def test_inputs_that_are_none(one: Case, value: Any) -> None:
    model = one.keras
    for call in (
        lambda: model(value),
        lambda: model(input_ids=value, **one.images),
        lambda: model(input_ids=one.inputs["input_ids"], **{**one.images, "pixel_values": value}),
        lambda: model.get_text_features(value),
        lambda: model.get_image_features(value),
        lambda: model.text_model(value),
    ):
        with pytest.raises(ConverterError):
            call()


class TestTorchDtype:
    """``torch_dtype=`` is taken as ``dtype=`` is, in the words of every framework."""

    @pytest.mark.parametrize(
        "value",
        ["float16", torch.float16, np.float16, np.dtype("float16"), "torch.float16", keras.DTypePolicy("float16")],
    )
    def test_it_is_honoured(self, one: Case, tmp_path: Path, value: Any) -> None:
        one.torch.save_pretrained(tmp_path)
        for option in ("torch_dtype", "dtype"):
            model = AutoTwoTower.from_pretrained(tmp_path, **{option: value})
            assert {variable.dtype for variable in named_variables(model).values()} == {"float16"}
            assert model(one.inputs).logits_per_image.dtype == "float16"

    def test_auto_is_what_was_saved(self, one: Case, tmp_path: Path) -> None:
        for dtype in ("float32", "bfloat16"):
            reference.torch_model(one.config).to(getattr(torch, dtype)).save_pretrained(tmp_path / dtype)
            model = AutoTwoTower.from_pretrained(tmp_path / dtype, torch_dtype="auto")
            assert {variable.dtype for variable in named_variables(model).values()} == {dtype}
            assert AutoTwoTower.from_pretrained(tmp_path / dtype).dtype == "float32"
        config = tmp_path / "bfloat16" / "config.json"
        config.write_text("".join(line for line in config.read_text().splitlines() if "dtype" not in line))
        assert AutoTwoTower.from_pretrained(tmp_path / "bfloat16", dtype="auto").dtype == "bfloat16"

    def test_dtype_counts_where_both_are_given(self, kind: Kind) -> None:
        assert AutoTwoTower.from_config(kind.make(), torch_dtype="float16", dtype="float64").dtype == "float64"
        assert AutoTwoTower.from_config(kind.make(), torch_dtype="float16", dtype=None).dtype == "float16"

    def test_of_towers(self) -> None:
        assert BertTower.from_pretrained(FIXTURE, torch_dtype=torch.bfloat16).dtype == "bfloat16"
        cls = TFVisionTextDualEncoderModel
        for options, wanted in (
            ({"torch_dtype": "float16"}, ("float16", "float16", "float16")),
            ({"dtype": "auto"}, ("float32", "float32", "float32")),
            ({"dtype": "float16", "text_torch_dtype": "float64"}, ("float16", "float16", "float64")),
        ):
            model = cls.from_vision_text_pretrained(FIXTURE, FIXTURE, **options)
            assert (model.dtype, model.vision_model.dtype, model.text_model.dtype) == wanted
            assert model.visual_projection.kernel.dtype == wanted[0]

"""What CLIP's class has beside what every family has: transformers 4's names and arguments, and CLIPConfig's oddities."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from transformers import BertConfig, CLIPConfig

from converter.errors import ModelError, UnsupportedOption
from converter.models import AutoTwoTower, TFCLIPModel, named_variables
from converter.names.configs import check_config
from converter.names.rules import compile_rules
from tests.models import reference
from tests.models.conftest import Case, make_case
from tests.models.families import make_clip

pytestmark = [pytest.mark.torch, pytest.mark.tf]

# Of TFCLIPModel, transformers 4.57.6.
CALL = [
    "input_ids", "pixel_values", "attention_mask", "position_ids", "return_loss",
    "output_attentions", "output_hidden_states", "return_dict", "training",
]  # fmt: skip


@pytest.fixture(scope="module")
def clip() -> Case:
    return make_case(make_clip())


def test_the_old_names_are_the_same_objects(clip: Case) -> None:
    model = clip.keras
    for name in ("text_model", "vision_model", "visual_projection", "text_projection", "logit_scale", "config"):
        assert getattr(model.clip, name) is getattr(model, name) is not None
    assert model.logit_scale is named_variables(model)["clip/logit_scale"]
    assert any(model.clip.logit_scale is variable for variable in model.trainable_variables)


def test_the_old_layer_is_called_as_the_model(clip: Case) -> None:
    wanted = clip.keras(clip.inputs)
    np.testing.assert_array_equal(clip.keras.clip(**clip.inputs).logits_per_image, wanted.logits_per_image)
    np.testing.assert_array_equal(
        clip.keras.clip.get_image_features(clip.inputs["pixel_values"]),
        clip.keras.get_image_features(clip.inputs["pixel_values"]),
    )
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        clip.keras.clip.nonsense  # noqa: B018


def test_what_is_set_through_the_old_name_is_set() -> None:
    model = TFCLIPModel(make_clip())
    model.build()
    count = len(model.trainable_variables)
    model.clip.vision_model.trainable = False
    assert len(model.trainable_variables) < count
    model.clip.trainable = False
    assert model.trainable is False
    assert model.trainable_variables == []


def test_arguments_are_those_of_transformers_4(clip: Case) -> None:
    assert list(inspect.signature(TFCLIPModel.call).parameters)[1:] == CALL
    texts = [name for name in CALL if name not in ("pixel_values", "return_loss")]
    assert list(inspect.signature(TFCLIPModel.get_text_features).parameters)[1:] == texts
    inputs = reference.make_inputs(clip.config, 4, 4)
    places = np.broadcast_to(np.arange(9), (4, 9))
    given = (inputs["input_ids"], inputs["pixel_values"], inputs["attention_mask"], places, True, True, True, False)
    found = clip.keras(*given)
    wanted = clip.keras(inputs, return_loss=True, output_attentions=True, output_hidden_states=True)
    assert type(found) is tuple
    np.testing.assert_array_equal(found[0], wanted.loss)
    assert len(found) == len(wanted) == 7
    assert [len(part) for part in found[5:]] == [4, 4]


def test_there_are_no_token_types(clip: Case) -> None:
    types = np.zeros((4, 9), np.int64)
    np.testing.assert_array_equal(clip.keras(clip.inputs, token_type_ids=None)[0], clip.keras(clip.inputs)[0])
    with pytest.raises(ModelError) as caught:
        clip.keras(clip.inputs, token_type_ids=types)
    assert str(caught.value) == "TFCLIPModel takes no token_type_ids: its texts have none. Leave it out."
    with pytest.raises(ModelError) as caught:
        clip.keras({**clip.inputs, "token_type_ids": types})
    assert str(caught.value) == (
        "The dictionary of inputs has token_type_ids; expected keys among input_ids, pixel_values, attention_mask, "
        "position_ids, return_loss. Remove what is not an input, or rename it."
    )


def test_fresh_weights_are_as_transformers_starts() -> None:
    model = TFCLIPModel(make_clip(initializer_factor=0.5, projection_dim=400))
    assert model.logit_scale is None
    model.build()
    assert np.asarray(model.logit_scale) == np.array([1.7], np.float32)
    vision, text = model.vision_embed_dim, model.text_embed_dim
    for projection, width in ((model.visual_projection, vision), (model.text_projection, text)):
        assert np.asarray(projection.kernel).std() == pytest.approx(0.5 * width**-0.5, rel=0.05)
    query = named_variables(model)["clip/text_model/encoder/layers_._0/self_attn/q_proj/kernel"]
    assert np.asarray(query).std() == pytest.approx(text**-0.5 * 6**-0.5, rel=0.1)


RAW: dict[str, dict[str, Any]] = {
    "dictionaries over sections": {
        "text_config": {"num_hidden_layers": 3, "hidden_size": 28, "num_attention_heads": 4},
        "text_config_dict": {**reference.TEXT["clip_text_model"], "num_hidden_layers": 2},
        "vision_config_dict": reference.VISION["clip_vision_model"],
    },
    "the model's name in the sections": {
        "text_config": {**reference.TEXT["clip_text_model"], "model_type": "clip"},
        "vision_config": {**reference.VISION["clip_vision_model"], "model_type": "clip"},
    },
    "the sections' own names": {
        "text_config": {**reference.TEXT["clip_text_model"], "model_type": "clip_text_model"},
        "vision_config": {**reference.VISION["clip_vision_model"], "model_type": "clip_vision_model"},
        "projection_dim": 19,
    },
}


@pytest.mark.parametrize("raw", RAW.values(), ids=RAW)
def test_a_config_as_transformers_reads_it(raw: dict[str, Any], tmp_path: Path) -> None:
    raw = {"model_type": "clip", **raw}
    model = reference.torch_model(CLIPConfig.from_dict(json.loads(json.dumps(raw))))
    model.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(raw))
    ours = TFCLIPModel.from_pretrained(tmp_path)
    shapes = {rule.names["tf"]: rule.shape_in("tf") for rule in compile_rules(check_config(raw)).tensors}
    assert {name: tuple(variable.shape) for name, variable in named_variables(ours).items()} == shapes
    inputs = reference.make_inputs(ours.config)
    with torch.no_grad():
        wanted = model(**reference.torch_inputs(inputs)).logits_per_image
    np.testing.assert_allclose(ours(inputs).logits_per_image, wanted, rtol=0, atol=1e-5)
    ours.save_pretrained(tmp_path / "again", framework="pt")
    again, report = transformers.CLIPModel.from_pretrained(tmp_path / "again", output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    with torch.no_grad():
        found = again(**reference.torch_inputs(inputs)).logits_per_image
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)  # eager attention there, sdpa here


def test_a_config_of_defaults() -> None:
    model = TFCLIPModel(CLIPConfig(), initial="empty")
    assert (model.vision_embed_dim, model.text_embed_dim, model.projection_dim) == (768, 512, 512)
    assert len(model.vision_model.blocks) == len(model.text_model.blocks) == 12


def test_an_option_that_is_refused() -> None:
    with pytest.raises(UnsupportedOption) as caught:
        TFCLIPModel(make_clip(text_eos_token_id=[1, 2]))
    assert str(caught.value) == (
        "text_config.eos_token_id is [1, 2], supported is one integer: the text is pooled there. "
        "Set it to the tokenizer's."
    )


def test_picking_a_class_needs_a_family() -> None:
    with pytest.raises(ModelError) as caught:
        AutoTwoTower.from_config(BertConfig())
    assert str(caught.value) == (
        "config has model_type 'bert'; expected one of altclip, chinese_clip, clip, metaclip_2, siglip, siglip2, "
        "vision-text-dual-encoder. Give the config of a model with two towers."
    )
    with pytest.raises(ModelError) as caught:
        AutoTwoTower()
    assert str(caught.value) == (
        "AutoTwoTower only picks a class. Use AutoTwoTower.from_pretrained(source) or AutoTwoTower.from_config(config)."
    )


def test_a_class_of_the_users_own_loads_and_saves_the_family(clip: Case, tmp_path: Path) -> None:
    class Mine(TFCLIPModel):
        def score(self, text_units: Any, image_units: Any) -> Any:
            return 2 * super().score(text_units, image_units)

    clip.torch.save_pretrained(tmp_path / "pt")
    mine = Mine.from_pretrained(tmp_path / "pt")
    assert type(mine) is Mine
    np.testing.assert_array_equal(mine(clip.inputs)[0], 2 * np.asarray(clip.keras(clip.inputs)[0]))
    mine.save_pretrained(tmp_path / "tf")
    assert json.loads((tmp_path / "tf" / "config.json").read_text())["architectures"] == ["CLIPModel"]

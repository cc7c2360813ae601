"""Every function of the interface that transformers 4 had."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from typing import Any

import keras
import numpy as np
import pytest
from transformers import CLIPConfig, VisionTextDualEncoderConfig

from converter.errors import ModelError
from converter.models import (
    AutoTwoTower,
    DualEncoderOutput,
    TFCLIPModel,
    TFVisionTextDualEncoderModel,
    TowerOutput,
    build_tower,
    clip_loss,
    contrastive_loss,
    named_variables,
)
from tests.models import reference
from tests.models.conftest import Case
from tests.models.families import Kind

pytestmark = [pytest.mark.torch, pytest.mark.tf]


@pytest.mark.parametrize(
    ("cls", "config", "prefix", "root"),
    [
        (
            TFVisionTextDualEncoderModel,
            VisionTextDualEncoderConfig,
            "vision_text_dual_encoder",
            "tf_vision_text_dual_encoder_model",
        ),
        (TFCLIPModel, CLIPConfig, "clip", "tfclip_model"),
    ],
)
def test_class_attributes(cls: Any, config: Any, prefix: str, root: str) -> None:
    assert cls.config_class is config
    assert cls.base_model_prefix == prefix
    assert cls.load_weight_prefix == root
    assert keras.saving.get_registered_name(cls) == f"converter>{cls.__name__}"


def test_fresh_weights_are_as_transformers_starts() -> None:
    keras.utils.set_random_seed(3)
    model = TFVisionTextDualEncoderModel(reference.make_config("vit", "bert", text_hidden_size=200))
    assert model.logit_scale is None
    model.build()
    scale: Any = model.logit_scale
    assert tuple(scale.shape) == (1,)
    assert float(scale[0]) == np.float32(1.7)
    values = {name: np.asarray(variable.value) for name, variable in named_variables(model).items()}
    for name, value in values.items():
        if name.endswith("gamma"):
            assert (value == 1).all(), name
        elif name.endswith(("bias", "beta")):
            assert (value == 0).all(), name
    words = values["text_model/bert/embeddings/word_embeddings/weight"]
    assert 0.019 < words.std() < 0.021
    query, key = (
        values[f"text_model/bert/encoder/layer_._0/attention/self/{role}/kernel"] for role in ("query", "key")
    )
    assert 0.019 < query.std() < 0.021
    assert not np.array_equal(query, key)


def test_build_returns_at_once_when_built(one: Case) -> None:
    before = list(map(id, one.keras.variables))
    one.keras.build()
    one.keras.build((None, 7))
    one.keras.text_model.build(None)
    assert list(map(id, one.keras.variables)) == before


def test_towers_share_the_joint_config(kind: Kind) -> None:
    config = kind.make()
    model = AutoTwoTower.from_config(config)
    assert type(model).__name__ == kind.keras
    assert model.config is config
    assert model.vision_model.config is config.vision_config
    assert model.text_model.config is config.text_config
    text = config.text_config
    wide = next(
        getattr(text, name) for name in ("project_dim", "projection_size", "hidden_size") if hasattr(text, name)
    )
    widths = (config.vision_config.hidden_size, wide, getattr(config, "projection_dim", None))
    assert (model.vision_embed_dim, model.text_embed_dim, model.projection_dim) == widths


def test_two_towers_make_a_config() -> None:
    config = reference.make_config("clip_vision_model", "roberta")
    vision, text = build_tower(config.vision_config), build_tower(config.text_config)
    model = TFVisionTextDualEncoderModel(vision_model=vision, text_model=text)
    assert isinstance(model.config, VisionTextDualEncoderConfig)
    assert model.config.vision_config.to_dict() == config.vision_config.to_dict()
    assert model.vision_model is vision
    assert model.vision_model.config is model.config.vision_config


def test_a_full_clip_config_gives_its_vision_part() -> None:
    from transformers import CLIPConfig

    small = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 30}
    clip = CLIPConfig(vision_config={**small, "image_size": 20, "patch_size": 10}, text_config=small)
    config = reference.make_config("vit", "bert")
    config.vision_config = clip
    model = TFVisionTextDualEncoderModel(config)
    assert model.config.vision_config.model_type == "clip_vision_model"
    assert model.vision_embed_dim == 24


def test_output_by_attribute_key_index_and_tuple(one: Case) -> None:
    output = one.keras(one.inputs)
    assert isinstance(output, DualEncoderOutput)
    assert list(output) == list(DualEncoderOutput.fields[1:])
    assert output.loss is None
    assert "loss" not in output
    assert output.logits_per_image is output["logits_per_image"]
    assert output[0] is output.logits_per_image
    assert output[1:3] == (output.logits_per_text, output.text_embeds)
    assert isinstance(output.text_model_output, TowerOutput)
    assert output.text_model_output[1] is output.text_model_output.pooler_output
    assert len(output.to_tuple()) == 6
    assert isinstance(output.to_tuple()[4], tuple)
    with pytest.raises(AttributeError, match="no field 'logits'"):
        output.logits  # noqa: B018
    with pytest.raises(KeyError):
        output["loss"]
    copied = pickle.loads(pickle.dumps(DualEncoderOutput.of(loss=np.ones(1), text_embeds=np.zeros(2))))
    assert list(copied) == ["loss", "text_embeds"]


def test_plain_tuple(one: Case) -> None:
    inputs = reference.make_inputs(one.config, images=4)
    plain = one.keras(inputs, return_dict=False, return_loss=True)
    full = one.keras(inputs, return_loss=True)
    assert type(plain) is tuple
    assert len(plain) == 7
    np.testing.assert_array_equal(plain[0], full.loss)
    np.testing.assert_array_equal(plain[1], full.logits_per_image)
    assert type(plain[5]) is tuple
    assert len(one.keras(inputs, return_dict=False)) == 6


def test_what_the_config_says_is_returned(kind: Kind) -> None:
    config = kind.make(text_output_hidden_states=True)
    model = AutoTwoTower.from_config(config)
    output = model(model.dummy_inputs)
    assert output.vision_model_output.hidden_states is None
    assert len(output.text_model_output.hidden_states) == config.text_config.num_hidden_layers + 1
    assert output.text_model_output.attentions is None
    assert model(model.dummy_inputs, output_hidden_states=False).text_model_output.hidden_states is None
    config.return_dict = False
    assert type(model(model.dummy_inputs)) is tuple


def test_features_are_the_projections(one: Case) -> None:
    output = one.keras(one.inputs)
    texts = one.keras.get_text_features(one.inputs["input_ids"], one.inputs["attention_mask"])
    images = one.keras.get_image_features(**one.images)
    for features, embeds in ((texts, output.text_embeds), (images, output.image_embeds)):
        features = np.asarray(features)
        assert features.shape == embeds.shape
        unit = features / np.linalg.norm(features, axis=-1, keepdims=True)
        np.testing.assert_allclose(unit, embeds, atol=1e-6)
        assert np.abs(np.linalg.norm(features, axis=-1) - 1).min() > 1e-3


def test_features_equal_pytorch(one: Case) -> None:
    import torch

    with torch.no_grad():
        texts = one.torch.get_text_features(**reference.torch_inputs(one.texts)).pooler_output.numpy()
        images = one.torch.get_image_features(**reference.torch_inputs(one.images)).pooler_output.numpy()
    given = one.texts
    np.testing.assert_allclose(one.keras.get_text_features(**given), texts, atol=1e-5)
    np.testing.assert_allclose(one.keras.get_text_features(given, return_dict=True), texts, atol=1e-5)
    np.testing.assert_allclose(one.keras.get_image_features(one.images), images, atol=1e-5)


def test_losses_by_hand() -> None:
    logits = np.array([[2.0, -1.0, 0.5], [0.0, 1.0, 3.0], [-2.0, 0.25, 1.5]], np.float32)

    def by_hand(rows: np.ndarray) -> float:
        return float(np.mean([np.log(np.exp(row).sum()) - row[i] for i, row in enumerate(rows)]))

    assert float(contrastive_loss(logits)) == pytest.approx(by_hand(logits), abs=1e-6)
    assert float(clip_loss(logits)) == pytest.approx((by_hand(logits) + by_hand(logits.T)) / 2, abs=1e-6)
    with pytest.raises(ModelError, match=r"logits have shape \(2, 3\)"):
        contrastive_loss(logits[:2])


def dummy_shapes(vision: Any) -> dict[str, tuple[int, ...]]:
    if not hasattr(vision, "num_patches"):
        return {"pixel_values": (3, 3, *[vision.image_size] * 2)}
    count = vision.num_patches
    return {
        "pixel_values": (3, count, 3 * vision.patch_size**2),
        "pixel_attention_mask": (3, count),
        "spatial_shapes": (3, 2),
    }


def test_dummy_inputs(one: Case) -> None:
    dummy = one.keras.dummy_inputs
    assert np.asarray(dummy["input_ids"]).tolist() == [[7, 6, 0, 0, 1], [1, 2, 3, 0, 0], [0, 0, 0, 4, 5]]
    assert {name: tuple(dummy[name].shape) for name in one.images} == dummy_shapes(one.config.vision_config)
    assert tuple(one.keras(dummy).logits_per_image.shape) == (3, 3)


@pytest.mark.parametrize("pair", [("clip_vision_model", "roberta"), ("vit", "bert")], ids="+".join)
def test_weight_renames_are_inverse(pair: tuple[str, str]) -> None:
    config = reference.make_config(*pair)
    model = TFVisionTextDualEncoderModel(config)
    model.build()
    for name in named_variables(model):
        dotted = name.replace("_._", ".").replace("/", ".")
        (there,) = model.tf_to_pt_weight_rename(dotted)
        main = {"text_model": type(model.text_model).main_layer, "vision_model": type(model.vision_model).main_layer}
        side = dotted.partition(".")[0]
        assert there == (dotted.replace(f"{side}.{main[side]}.", f"{side}.", 1) if side in main else dotted)
        assert model.pt_to_tf_weight_rename(there) == (dotted,)


def test_weight_rename_refuses_a_third_vision_model(dual: Case) -> None:
    with pytest.raises(ValueError, match=r"vision_model\.clip\.vision_model\.vision_model"):
        dual.keras.tf_to_pt_weight_rename("vision_model.clip.vision_model.vision_model.x")


IMPORTS = """
import sys, converter
assert not {"tensorflow", "keras", "torch", "transformers", "jax"} & set(sys.modules)
import converter.models
assert not {"tensorflow", "keras", "torch", "transformers", "jax"} & set(sys.modules)
"""


def test_importing_costs_no_framework() -> None:
    subprocess.run([sys.executable, "-c", IMPORTS], check=True, env={**os.environ, "KERAS_BACKEND": "tensorflow"})

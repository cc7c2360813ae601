"""What cannot be done is refused with the field and the next step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import transformers
from transformers import BertConfig, VisionTextDualEncoderConfig, ViTConfig

from converter.errors import ConfigError, ConverterError, ModelError, UnsupportedOption, UnsupportedTower
from converter.models import TFCLIPModel, TFVisionTextDualEncoderModel, build_tower
from converter.names.rule_files import supported
from converter.names.towers import counts_after_padding
from tests.models import reference
from tests.models.conftest import Case

pytestmark = [pytest.mark.torch, pytest.mark.tf]


def refusal(kind: type[ConverterError], call: Any, *args: Any, **kwargs: Any) -> str:
    with pytest.raises(kind) as caught:
        call(*args, **kwargs)
    return str(caught.value)


def test_nothing_given() -> None:
    assert refusal(ModelError, TFVisionTextDualEncoderModel) == (
        "Either a configuration or a vision and a text model has to be provided. "
        "Pass config=, or vision_model= and text_model=."
    )


def test_only_one_of_two_towers() -> None:
    tower = build_tower(reference.make_config("vit", "bert").vision_config)
    assert refusal(ModelError, TFVisionTextDualEncoderModel, vision_model=tower) == (
        "Either a configuration or a vision and a text model has to be provided; only vision_model was given. "
        "Pass config=, or vision_model= and text_model=."
    )
    assert isinstance(ModelError(""), ValueError)


@pytest.mark.parametrize(
    ("cls", "message"),
    [
        (
            TFVisionTextDualEncoderModel,
            "VisionTextDualEncoderConfig. "
            "Make one with VisionTextDualEncoderConfig.from_vision_text_configs(vision_config, text_config).",
        ),
        (TFCLIPModel, "CLIPConfig. Make one with CLIPConfig(text_config=..., vision_config=...)."),
    ],
)
def test_a_config_of_another_kind(cls: Any, message: str) -> None:
    assert refusal(ConfigError, cls, BertConfig()) == f"config is a BertConfig; it has to be of type {message}"


def test_a_tower_that_is_not_ours() -> None:
    config = reference.make_config("vit", "bert")
    assert refusal(ModelError, TFVisionTextDualEncoderModel, config, vision_model=object()) == (
        "vision_model is a object; expected a vision tower of converter.models. "
        "Make one with converter.models.build_tower(config), or give a config only."
    )


def test_a_tower_on_the_wrong_side() -> None:
    config = reference.make_config("vit", "bert")
    message = refusal(
        UnsupportedTower, TFVisionTextDualEncoderModel, config, vision_model=build_tower(config.text_config)
    )
    assert message == (
        f"vision_config.model_type is 'bert'; supported vision towers: {', '.join(supported('vision'))}. "
        "Use one of these, or keep this model in PyTorch."
    )


def test_a_tower_without_pooling() -> None:
    config = reference.make_config("vit", "bert")
    tower = build_tower(config.text_config, add_pooling_layer=False)
    assert refusal(ModelError, TFVisionTextDualEncoderModel, config, text_model=tower) == (
        "text_model was made with add_pooling_layer=False and has no pooled output to project. "
        "Make it with its pooling layer."
    )


def test_an_unsupported_tower() -> None:
    config = VisionTextDualEncoderConfig.from_vision_text_configs(ViTConfig(), transformers.DistilBertConfig())
    message = refusal(UnsupportedTower, TFVisionTextDualEncoderModel, config)
    assert message.startswith("text_config.model_type is 'distilbert'; supported text towers: ")
    assert message.endswith("Use one of these, or keep this model in PyTorch.")


@pytest.mark.parametrize(
    ("changes", "start"),
    [
        ({"text_is_decoder": True}, "text_config.is_decoder is True, supported is False: a causal tower"),
        ({"text_hidden_act": "prelu"}, "hidden_act is 'prelu'; expected one of gelu, gelu_10,"),
        ({"vision_hidden_act": "nonsense"}, "hidden_act is 'nonsense'; expected one of gelu, gelu_10,"),
        ({"text_position_embedding_type": "relative_key"}, "text_config.position_embedding_type is 'relative_key'"),
    ],
)
def test_an_unsupported_option(changes: dict[str, Any], start: str) -> None:
    config = reference.make_config("vit", "bert", **changes)
    assert refusal(UnsupportedOption, TFVisionTextDualEncoderModel, config).startswith(start)


def test_roberta_without_padding() -> None:
    config = reference.make_config("vit", "roberta", text_pad_token_id=None)
    assert refusal(UnsupportedOption, TFVisionTextDualEncoderModel, config) == (
        "roberta config: pad_token_id is None; positions are counted from it, so it must be an integer. "
        "Set pad_token_id to the tokenizer's."
    )


def test_a_text_that_is_too_long(one: Case) -> None:
    text = one.config.text_config
    rows = text.max_position_embeddings
    # RoBERTa's first position is the one behind the padding's.
    behind = counts_after_padding(text.model_type, text.to_dict())
    limit = rows - text.pad_token_id - 1 if behind else rows
    inputs = reference.make_inputs(one.config, length=limit + 1)
    assert refusal(ModelError, one.keras, inputs) == (
        f"input_ids has {limit + 1} tokens in a row; this text tower has positions for {limit} "
        f"(max_position_embeddings = {rows}). "
        "Truncate when tokenizing."
    )


def test_roberta_counts_its_tokens_not_its_padding() -> None:
    config = reference.make_config("vit", "roberta")
    model = TFVisionTextDualEncoderModel(config)
    ids = np.ones((1, 60), np.int64)
    ids[:, :41] = 5
    assert model.get_text_features(ids).shape == (1, 23)
    ids[:, 41] = 5
    assert refusal(ModelError, model.get_text_features, ids) == (
        "input_ids has 42 tokens in a row; this text tower has positions for 41 (max_position_embeddings = 43). "
        "Truncate when tokenizing."
    )


def test_an_image_that_does_not_fit(one: Case) -> None:
    if "spatial_shapes" in one.images:
        pytest.skip("its images are patches: test_siglip2.py")
    size = one.config.vision_config.image_size
    pixels = np.zeros((2, 3, 18, 24), np.float32)
    assert refusal(ModelError, one.keras.get_image_features, pixels) == (
        f"pixel_values is 18 x 24; image_size is {size} x {size}. "
        "Resize the images with the image processor that belongs to this vision tower."
    )
    assert refusal(ModelError, one.keras.get_image_features, np.zeros((2, 18, 18, 3))) == (
        "pixel_values has shape (2, 18, 18, 3); axis 1 must be num_channels = 3. "
        "It looks channels-last: transpose to (batch, channels, height, width)."
    )
    assert refusal(ModelError, one.keras.get_image_features, np.zeros((3, 18, 18))) == (
        "pixel_values has shape (3, 18, 18); expected (batch, 3, height, width). "
        "For one image, pass it in a list of one."
    )


@pytest.mark.parametrize(
    ("field", "option", "negative"),
    [
        ("input_ids", "vocab_size", False),
        ("input_ids", "vocab_size", True),
        ("token_type_ids", "type_vocab_size", False),
        ("position_ids", "max_position_embeddings", False),
    ],
)
def test_ids_out_of_range(one: Case, field: str, option: str, negative: bool) -> None:
    if field not in one.keras.fields:
        return
    size = getattr(one.config.text_config, option)
    value = -1 if negative else size
    inputs = {**one.inputs, field: np.zeros((4, 9), np.int64)}
    inputs[field][2, 1] = value
    assert refusal(ModelError, one.keras, inputs) == (
        f"{field}[2, 1] is {value}; expected 0 to {size - 1} ({option} = {size}). "
        "Use the tokenizer that belongs to this text tower."
    )


def test_loss_of_unequal_batches(one: Case) -> None:
    assert refusal(ModelError, one.keras, one.inputs, return_loss=True) == (
        "return_loss with 3 images and 4 texts: the loss pairs text i with image i. "
        "Give as many texts as images, or leave return_loss out."
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pixel_values": None}, "pixel_values missing; the dual encoder needs texts and images. "
         "Use get_text_features or get_image_features for one of them alone."),
        ({"labels": [1]}, "The dictionary of inputs has labels; expected keys among {fields}. "),
        ({"input_ids": [5, 6, 7]}, "input_ids has shape (3,); expected (batch, length). "
         "For one text, pass it in a list of one."),
        ({"input_ids": [[5, 6], [7]]}, "input_ids cannot be read as an array"),
        ({"input_ids": [["a", "b"]]}, "input_ids holds <U1; expected integers. Tokenize the texts first."),
        ({"input_ids": [[1.5, 2.0]]}, "input_ids has numbers that are not whole; expected token-like ids."),
        ({"input_ids": [[5, 2**32 + 5]]}, "input_ids[0, 1] is 4294967301; expected a number of 32 bits, "
         "-2147483648 to 2147483647. Use the tokenizer that belongs to this text tower."),
        ({"input_ids": keras.ops.convert_to_tensor([[-(2**31) - 1]], "int64")},
         "input_ids[0, 0] is -2147483649; expected a number"),
        ({"input_ids": [[float("inf")]]}, "input_ids[0, 0] is inf; expected a number of 32 bits"),
        ({"attention_mask": np.ones((4, 8), int)}, "attention_mask has shape (4, 8); input_ids has (4, 9). "
         "Give both the same shape."),
    ],
)  # fmt: skip
def test_inputs_that_do_not_fit(one: Case, change: dict[str, Any], message: str) -> None:
    fields = ", ".join(one.keras.fields)
    assert refusal(ModelError, one.keras, {**one.inputs, **change}).startswith(message.format(fields=fields))


def test_an_input_given_twice(one: Case) -> None:
    assert refusal(ModelError, one.keras, one.inputs, attention_mask=one.inputs["attention_mask"]) == (
        "attention_mask given both in the dictionary and by name. Give each input once."
    )


@pytest.mark.parametrize("name", ["model.safetensors", "model_ckpt", "pytorch_model.bin"])
def test_load_weights_of_a_checkpoint(one: Case, name: str, tmp_path: Path) -> None:
    path = tmp_path / "ein Ordner" / name
    assert refusal(ModelError, one.keras.load_weights, path) == (
        f"{path}: load_weights reads what save_weights wrote, a .weights.h5. "
        f"Use {type(one.keras).__name__}.from_pretrained({str(path)!r}), which reads every checkpoint."
    )


@pytest.mark.parametrize("name", ["m.h5", "m.hdf5", "folder"])
def test_save_as_what_keras_cannot_hold_it_in(one: Case, name: str, tmp_path: Path) -> None:
    assert refusal(ModelError, one.keras.save, tmp_path / name) == (
        f"{tmp_path / name}: save writes a .keras file. Name one, or use save_pretrained(FOLDER) for a checkpoint, "
        "export(FOLDER) for a SavedModel."
    )
    assert list(tmp_path.iterdir()) == []


def test_what_keras_saves_it_loads(one: Case, tmp_path: Path) -> None:
    one.keras.save_weights(tmp_path / "x.weights.h5")
    one.keras.load_weights(tmp_path / "x.weights.h5")
    one.keras.save(tmp_path / "x.keras")
    assert keras.saving.load_model(tmp_path / "x.keras").built

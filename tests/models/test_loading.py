"""Checkpoints in and out of models, of both frameworks, and dual encoders made of tower checkpoints."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.numpy import load_file, save_file

import converter.models
from converter.errors import ConverterError, ModelError, PlanError, TargetError
from converter.models import AutoTwoTower, TFVisionTextDualEncoderModel, load_tower, named_variables
from converter.models.towers.bert import BertTower
from tests.models import reference
from tests.models.conftest import Case
from tests.models.families import FAMILIES, WHOLES, Kind, config_of, make_clip

pytestmark = [pytest.mark.torch, pytest.mark.tf]

SCALE = "logit_scale_init_value"

FIXTURES = Path(__file__).parents[2] / "fixtures"


def values(model: Any) -> dict[str, np.ndarray]:
    return {name: np.asarray(variable.value) for name, variable in named_variables(model).items()}


def assert_equal_weights(found: Any, wanted: Any) -> None:
    want = values(wanted)
    for name, value in values(found).items():
        np.testing.assert_array_equal(value, want.pop(name), err_msg=name)
    assert not want


@pytest.fixture(scope="module")
def shipped() -> dict[str, np.ndarray]:
    return load_file(FIXTURES / "clip-bert-tiny-expected" / "outputs.safetensors")


@pytest.mark.parametrize(
    "place",
    [
        "clip-bert-tiny",
        "clip-bert-tiny/model.safetensors",
        "clip-bert-tiny-expected",
        "clip-bert-tiny-expected/tf_model.h5",
    ],
)
def test_the_shipped_checkpoint_of_either_framework_answers_as_pytorch(place: str, shipped: dict[str, Any]) -> None:
    model = TFVisionTextDualEncoderModel.from_pretrained(FIXTURES / place, from_pt="expected" not in place)
    assert model.built
    assert float(model.logit_scale[0]) == pytest.approx(3.31)
    inputs = {name.removeprefix("input."): value for name, value in shipped.items() if name.startswith("input.")}
    output = model(inputs)
    for name in ("logits_per_image", "logits_per_text", "image_embeds", "text_embeds"):
        np.testing.assert_allclose(output[name], shipped[f"output.{name}"], rtol=0, atol=1e-5, err_msg=name)


@pytest.mark.parametrize(
    ("options", "file"),
    [
        ({}, "tf_model.h5"),
        ({"safe_serialization": True}, "model.safetensors"),
        ({"framework": "pt"}, "model.safetensors"),
    ],
    ids=["h5", "tf safetensors", "pt"],
)
def test_save_and_load_again(case: Case, tmp_path: Path, options: dict[str, Any], file: str) -> None:
    case.keras.save_pretrained(tmp_path / "out", **options)
    assert (tmp_path / "out" / file).is_file()
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["model_type"] == case.config.model_type
    assert config["architectures"] == [case.kind.torch]
    # 1.3 is the trained scale, which the dual encoder's config carries; others' keep what a new model begins with.
    said = 1.3 if case.config.model_type == "vision-text-dual-encoder" else getattr(case.config, SCALE, None)
    assert config.get(SCALE) == (said if said is None else pytest.approx(said))
    loaded = type(case.keras).from_pretrained(tmp_path / "out")
    assert_equal_weights(loaded, case.keras)
    np.testing.assert_array_equal(loaded(case.inputs).logits_per_image, case.keras(case.inputs).logits_per_image)


def test_pytorch_reads_what_we_save(case: Case, tmp_path: Path) -> None:
    case.keras.save_pretrained(tmp_path / "out", framework="pt")
    kind = getattr(transformers, case.kind.torch)
    model, report = kind.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    with torch.no_grad():
        wanted = case.torch(**reference.torch_inputs(case.inputs)).logits_per_image
        found = model.eval()(**reference.torch_inputs(case.inputs)).logits_per_image
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_we_read_what_pytorch_saves(case: Case, tmp_path: Path) -> None:
    case.torch.save_pretrained(tmp_path)
    assert_equal_weights(type(case.keras).from_pretrained(str(tmp_path), from_pt=True), case.keras)
    assert_equal_weights(AutoTwoTower.from_pretrained(tmp_path / "model.safetensors"), case.keras)


def test_options_of_from_pretrained(one: Case, tmp_path: Path) -> None:
    one.torch.save_pretrained(tmp_path)
    cls = type(one.keras)
    model = cls.from_pretrained(tmp_path, dtype="float64", name="mine", return_dict=False)
    assert model.name == "mine"
    output = model(one.inputs)
    assert type(output) is tuple
    assert output[0].dtype == "float64"
    with pytest.raises(ModelError) as caught:
        cls.from_pretrained(tmp_path, nonsense=1)
    assert str(caught.value) == (
        "nonsense is neither an argument of from_pretrained here nor a field of "
        f"{type(one.config).__name__}. Remove it."
    )


def test_half_precision_checkpoints(one: Case, tmp_path: Path) -> None:
    for dtype in (torch.bfloat16, torch.float16):
        model = reference.torch_model(one.config).to(dtype)
        model.save_pretrained(tmp_path / str(dtype))
        loaded = values(type(one.keras).from_pretrained(tmp_path / str(dtype)))
        wanted = reference.saved_tensors(model.to(torch.float32))
        for name, value in loaded.items():
            assert value.dtype == np.float32
            np.testing.assert_array_equal(value, reference.to_tf(wanted[reference.pt_name(name, one.config)], name))


def test_a_config_of_other_sizes_is_refused(one: Case, tmp_path: Path) -> None:
    one.torch.save_pretrained(tmp_path)
    changes, missing, wrong = one.kind.deeper
    with pytest.raises(PlanError) as caught:
        type(one.keras).from_pretrained(tmp_path, config=one.kind.make(**changes))
    assert f"not in the checkpoint: {missing}" in str(caught.value)
    assert wrong in str(caught.value).split("of another shape: ")[1]


def test_what_lies_in_a_folder_is_kept(one: Case, tmp_path: Path) -> None:
    """As in transformers 4: the tokenizer is saved first or last, and the model again after every epoch."""
    out, others = tmp_path / "out", {"vocab.txt": "words", "notes.txt": "mine", "preprocessor_config.json": "{}"}
    out.mkdir()
    for name, text in others.items():
        (out / name).write_text(text)
    first = one.keras.save_pretrained(out)
    assert (first.replaced, first.kept) == ((), 3)
    (out / "logs").mkdir()
    for more in ({}, {"overwrite": True}, {"safe_serialization": True}):
        again = one.keras.save_pretrained(out, **more)
        assert again.replaced == ("conversion.json", "config.json", "tf_model.h5")
        assert again.kept == 4
        assert {name: (out / name).read_text() for name in others} == others
    assert sorted(path.name for path in out.iterdir()) == sorted(
        [*others, "logs", "config.json", "conversion.json", "model.safetensors"]
    )
    one.keras.from_pretrained(out)
    with pytest.raises(TargetError) as caught:
        one.keras.save_pretrained(out, overwrite=False)
    assert str(caught.value) == (
        f"{out}: exists already; choose another folder, or replace its checkpoint with --overwrite"
    )


def test_a_tilde_is_the_home_folder(one: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    one.keras.save_pretrained("~/out")
    one.keras.from_pretrained("~/out")
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


def save_towers(case: Case, folder: Path) -> dict[str, Path]:
    """The towers of a case as people hold them: bare, and inside a model with a head."""
    config = case.config
    places = {}
    kinds = {"vit": ("ViTModel", "ViTForImageClassification"), "bert": ("BertModel", "BertForMaskedLM")}
    for side, kind in (("vision", "vit"), ("text", "bert")):
        tower = getattr(case.torch, f"{side}_model")
        bare_kind, head_kind = (getattr(transformers, name) for name in kinds[kind])
        bare = bare_kind(getattr(config, f"{side}_config"))
        bare.load_state_dict(tower.state_dict())
        head = reference.randomise(head_kind(getattr(config, f"{side}_config")), seed=9)
        left = head.base_model.load_state_dict(tower.state_dict(), strict=False)
        assert all("pooler" in name for name in left.unexpected_keys)
        for name, model in (("bare", bare), ("head", head)):
            places[f"{side} {name}"] = folder / f"{side}-{name}"
            model.save_pretrained(places[f"{side} {name}"])
    return places


def test_a_new_norm_scales_by_one(tmp_path: Path) -> None:
    """BEiT's pooler is a norm, which masked image modelling does without."""
    config = transformers.BeitConfig(**reference.VISION["beit"], vocab_size=7)
    reference.randomise(transformers.BeitForMaskedImageModeling(config)).save_pretrained(tmp_path)
    kept = {name: value for name, value in load_file(tmp_path / "model.safetensors").items() if "mask" not in name}
    save_file(kept, tmp_path / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((tmp_path / "config.json").read_text()) | {"use_mask_token": False}
    (tmp_path / "config.json").write_text(json.dumps(config))
    tower = load_tower(tmp_path, "vision")
    assert tower.loading_report.new == ("beit/pooler/layernorm/gamma", "beit/pooler/layernorm/beta")
    new = {name.rpartition("/")[2]: np.asarray(values(tower)[name]) for name in tower.loading_report.new}
    np.testing.assert_array_equal(new["gamma"], np.ones_like(new["gamma"]))
    np.testing.assert_array_equal(new["beta"], np.zeros_like(new["beta"]))


def test_two_bare_towers(dual: Case, tmp_path: Path) -> None:
    places = save_towers(dual, tmp_path)
    model = TFVisionTextDualEncoderModel.from_vision_text_pretrained(
        places["vision bare"],
        str(places["text bare"]),
        projection_dim=19,
        logit_scale_init_value=0.5,
        vision_from_pt=True,
    )
    assert model.built
    assert model.vision_model.loading_report.left_out == ()
    assert model.text_model.loading_report.new == ()
    wanted = values(dual.keras)
    found = values(model)
    assert list(found) == list(wanted)
    for name, value in found.items():
        if name.startswith(("vision_model/", "text_model/")):
            np.testing.assert_array_equal(value, wanted[name], err_msg=name)
    assert found["text_projection/kernel"].shape == (32, 19)
    assert found["text_projection/kernel"].std() > 0.01
    assert found["logit_scale"] == np.array([0.5], np.float32)
    output = model(dual.inputs)
    plain = dual.keras(dual.inputs)
    np.testing.assert_array_equal(output.text_model_output.pooler_output, plain.text_model_output.pooler_output)


def test_towers_inside_models_with_heads(dual: Case, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    places = save_towers(dual, tmp_path)
    caplog.set_level(logging.WARNING, "converter.models")
    model = TFVisionTextDualEncoderModel.from_vision_text_pretrained(places["vision head"], places["text head"])
    text, vision = model.text_model.loading_report, model.vision_model.loading_report
    assert all(item.name.startswith("cls.") for item in text.left_out)
    assert [item.name for item in vision.left_out] == ["classifier.bias", "classifier.weight"]
    assert text.new == ("bert/pooler/dense/kernel", "bert/pooler/dense/bias")
    assert "2 tensors left out: classifier.bias, classifier.weight" in caplog.text
    assert "newly initialised: bert/pooler/dense/kernel" in caplog.text
    wanted, found = values(dual.keras), values(model)
    for name, value in found.items():
        if "pooler" in name:
            kernel = name.endswith("kernel")
            assert (value.std() > 0.01) if kernel else not value.any()
        elif name.startswith(("vision_model/", "text_model/")):
            np.testing.assert_array_equal(value, wanted[name], err_msg=name)


def test_a_full_clip_gives_its_vision_tower(tmp_path: Path) -> None:
    from transformers import CLIPConfig, CLIPModel

    small = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 30}
    config = CLIPConfig(
        vision_config={**small, "image_size": 20, "patch_size": 10}, text_config={**small, "vocab_size": 50}
    )
    clip = reference.randomise(CLIPModel(config))
    clip.save_pretrained(tmp_path)
    tower = load_tower(tmp_path, "vision")
    assert tower.config.model_type == "clip_vision_model"
    left = [item.name for item in tower.loading_report.left_out]
    assert {"logit_scale", "text_projection.weight", "visual_projection.weight"} < set(left)
    pixels = np.random.default_rng(0).normal(size=(2, 3, 20, 20)).astype(np.float32)
    with torch.no_grad():
        wanted = clip.vision_model(torch.as_tensor(pixels)).pooler_output
    np.testing.assert_allclose(tower(pixels).pooler_output, wanted, atol=1e-5)
    with pytest.raises(ModelError, match=r"^model_type 'clip' is not one tower of .*Say side='vision' or 'text'\.$"):
        load_tower(tmp_path)


def test_a_tower_of_a_dual_encoder_and_one_without_pooling(dual: Case, tmp_path: Path) -> None:
    dual.keras.save_pretrained(tmp_path / "tf")
    tower = BertTower.from_pretrained(tmp_path / "tf", add_pooling_layer=False, name="mine")
    assert tower.name == "mine"
    assert not [name for name in named_variables(tower) if "pooler" in name]
    ids, mask = dual.inputs["input_ids"], dual.inputs["attention_mask"]
    np.testing.assert_array_equal(
        tower(ids, mask).last_hidden_state, dual.keras(dual.inputs).text_model_output.last_hidden_state
    )


@pytest.mark.parametrize("moved", [{}, {"positions": "flax"}])
def test_positions_that_flax_counts_from_0(moved: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    """Loading a Flax checkpoint, or its text tower, says so; with the table moved TensorFlow gives Flax's outputs."""
    folder = FIXTURES / "flax" / "vit-roberta"
    golden = np.load(folder / "golden.npz")
    model = TFVisionTextDualEncoderModel.from_pretrained(folder, **moved)
    joined = TFVisionTextDualEncoderModel.from_vision_text_pretrained(folder, folder, **moved)
    said = [message for message in caplog.messages if "roberta: Flax counts positions from 0" in message]
    assert len(said) == (0 if moved else 2)
    texts = {name: golden[name] for name in ("input_ids", "attention_mask")}
    found = model(**texts, pixel_values=golden["pixel_values"]).text_embeds
    np.testing.assert_allclose(found, golden["flax_text_embeds" if moved else "pt_text_embeds"], rtol=0, atol=3e-5)
    np.testing.assert_array_equal(
        joined.text_model(**texts).last_hidden_state, model.text_model(**texts).last_hidden_state
    )
    with pytest.raises(TargetError, match="from PyTorch to TensorFlow positions do not change"):
        AutoTwoTower.from_pretrained(FIXTURES / "clip-bert-tiny", positions="flax")
    with pytest.raises(ConverterError, match="positions 'move' does not exist"):
        load_tower(folder, "text", positions="move")


def test_towers_given_as_models(dual: Case, tmp_path: Path) -> None:
    places = save_towers(dual, tmp_path)
    text = load_tower(places["text bare"])
    model = TFVisionTextDualEncoderModel.from_vision_text_pretrained(places["vision bare"], text_model=text)
    assert model.text_model is text
    changed = TFVisionTextDualEncoderModel.from_vision_text_pretrained(
        places["vision bare"],
        places["text bare"],
        text_output_hidden_states=True,
        vision_config=dual.config.vision_config,
    )
    assert changed.config.text_config.output_hidden_states


def test_a_missing_tower(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        TFVisionTextDualEncoderModel.from_vision_text_pretrained(None, tmp_path)
    assert str(caught.value) == (
        "vision_model_name_or_path is missing. Pass the checkpoint of a vision tower, or the tower as vision_model=."
    )
    with pytest.raises(ConverterError):
        TFVisionTextDualEncoderModel.from_pretrained(tmp_path / "nowhere")


@pytest.mark.parametrize("name", [*WHOLES, "vit+bert"])
@pytest.mark.parametrize(
    "options", [{}, {"safe_serialization": True}, {"framework": "pt"}], ids=["h5", "tf safetensors", "pt"]
)
def test_the_class_is_picked_by_the_family(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    made = AutoTwoTower.from_config(config_of(name))
    made.build()
    made.save_pretrained(tmp_path / "out", **options)
    loaded = AutoTwoTower.from_pretrained(tmp_path / "out", name="mine")
    assert (type(loaded), loaded.name) == (type(made), "mine")
    assert_equal_weights(loaded, made)


def test_a_checkpoint_of_another_family(kind: Kind, tmp_path: Path) -> None:
    model = AutoTwoTower.from_config(kind.make())
    model.build()
    model.save_pretrained(tmp_path / "out")
    other = next(name for name in ("TFCLIPModel", "TFVisionTextDualEncoderModel") if name != kind.keras)
    titles = {made.keras: made.torch.removesuffix("Model") for made in FAMILIES.values()}
    with pytest.raises(ModelError) as caught:
        getattr(converter.models, other).from_pretrained(tmp_path / "out")
    assert str(caught.value) == (
        f"{tmp_path / 'out'}: {other} loads {titles[other]} checkpoints; this one is {titles[kind.keras]} "
        f"(model_type {model.config.model_type!r}). Use {kind.keras}.from_pretrained, or AutoTwoTower.from_pretrained."
    )


def test_a_full_clip_on_either_side_of_a_dual_encoder(tmp_path: Path) -> None:
    clip = reference.torch_model(make_clip())
    clip.save_pretrained(tmp_path / "pt")
    full = AutoTwoTower.from_pretrained(tmp_path / "pt")
    full.save_pretrained(tmp_path / "tf")
    for vision, text in (("pt", "tf"), ("tf", "pt")):
        joined = TFVisionTextDualEncoderModel.from_vision_text_pretrained(tmp_path / vision, tmp_path / text)
        found, wanted = values(joined), values(full)
        for name, value in wanted.items():
            if "_model/" in name:  # clip/text_model/... is text_model/clip/text_model/... there
                side = name.split("/")[1]
                np.testing.assert_array_equal(found.pop(f"{side}/{name}"), value, err_msg=name)
        assert sorted(found) == ["logit_scale", "text_projection/kernel", "visual_projection/kernel"]


@pytest.mark.parametrize("alone", [False, True], ids=["model", "tower"])
def test_tensorflows_checkpoint_holds_every_weight(alone: bool, tmp_path: Path) -> None:
    """``tf.train.Checkpoint(model=...)`` brings all of them back, also into a model of another name, not built before."""
    import tensorflow as tf

    trained = TFVisionTextDualEncoderModel.from_pretrained(FIXTURES / "clip-bert-tiny")
    fresh = TFVisionTextDualEncoderModel(trained.config, name="another")
    if alone:  # a tower's variables have the names that the model around it gives them
        fresh.build()
    one, other = (trained.text_model, fresh.text_model) if alone else (trained, fresh)
    path = tf.train.Checkpoint(model=one).write(str(tmp_path / "saved"))
    tf.train.Checkpoint(model=other).read(path).assert_consumed()
    assert len(one.weights) == len(other.weights) > (30 if alone else 80)
    for mine, restored in zip(one.weights, other.weights, strict=True):
        np.testing.assert_array_equal(restored.numpy(), mine.numpy(), strict=True)
    step = tf.train.Checkpoint(model=one, step=tf.Variable(3))
    manager = tf.train.CheckpointManager(step, str(tmp_path / "kept"), max_to_keep=1)
    other.weights[-1].assign(other.weights[-1] * 2)
    step.restore(manager.save())
    np.testing.assert_array_equal(one.weights[-1].numpy() * 2, other.weights[-1].numpy())

"""Two tower checkpoints become a dual encoder: from wherever a tower may lie, and what is new is drawn and said."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converter import tf2pt
from converter.conversion.combining import combine
from converter.errors import ConverterError, PlanError, TargetError, UnsupportedTower
from tests.compat.towers import ALL_VISION
from tests.hdf5_files import read_all, write_h5
from tests.tiny import Array, Arrays, assert_same, config_of, in_tensorflow, load, tensors_of, write_checkpoint

VISION, TEXT = "clip_vision_model", "bert"
CONFIG = config_of(VISION, TEXT)
TENSORS = tensors_of(CONFIG)
NEW = ("visual_projection.weight", "text_projection.weight", "logit_scale")
NEW_TF = ("visual_projection/kernel", "text_projection/kernel", "logit_scale")
POOLER = ("text_model/bert/pooler/dense/kernel", "text_model/bert/pooler/dense/bias")
HEAD = {"classifier.weight": np.ones((3, 5), np.float32)}


def tower_of(side: str, prefix: str = "", tensors: Mapping[str, Array] = TENSORS) -> Arrays:
    """A tower's tensors as its own checkpoint names them."""
    scope = f"{side}_model."
    return {prefix + name.removeprefix(scope): value for name, value in tensors.items() if name.startswith(scope)}


def config_of_tower(side: str) -> dict[str, Any]:
    return dict(CONFIG[f"{side}_config"])


def clip_config() -> dict[str, Any]:
    return {"model_type": "clip", "projection_dim": 17, "vision_config": config_of_tower("vision"), "text_config": {}}


def bare(folder: Path, side: str) -> Path:
    return write_checkpoint(folder, config_of_tower(side), tower_of(side))


def prefixed_with_head(folder: Path, side: str) -> Path:
    prefix = {"vision": "", "text": "bert."}[side]
    return write_checkpoint(folder, config_of_tower(side), tower_of(side, prefix) | HEAD)


def wrapped(folder: Path, side: str) -> Path:
    return write_checkpoint(folder, config_of_tower(side), tower_of(side, "module."))


def full_clip(folder: Path, side: str) -> Path:
    if side == "text":
        return bare(folder, side)
    others = {"visual_projection.weight": np.ones((17, 24), np.float32), "logit_scale": np.array(2.5, np.float32)}
    others["text_model.embeddings.token_embedding.weight"] = np.ones((7, 3), np.float32)
    return write_checkpoint(folder, clip_config(), tower_of("vision") | others)


def dual_encoder(folder: Path, side: str) -> Path:
    return write_checkpoint(folder, CONFIG, TENSORS)


def flat_dual_encoder(folder: Path, side: str) -> Path:
    tensors = {name.replace("vision_model.vision_model.", "vision_model."): value for name, value in TENSORS.items()}
    return write_checkpoint(folder, CONFIG, tensors)


def tensorflow(folder: Path, side: str) -> Path:
    """A TensorFlow dual encoder, moved there by the fixture's own table of moves: NumPy's transposes."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG), "utf-8")
    write_h5(folder / "tf_model.h5", in_tensorflow(CONFIG, TENSORS))
    return folder


SOURCES = [bare, prefixed_with_head, wrapped, full_clip, dual_encoder, flat_dual_encoder, tensorflow]


@pytest.mark.parametrize("write", SOURCES, ids=[write.__name__ for write in SOURCES])
def test_towers_from_wherever_they_lie(tmp_path: Path, write: Callable[[Path, str], Path]) -> None:
    vision, text = write(tmp_path / "vision", "vision"), write(tmp_path / "text", "text")
    made = combine(vision, text, tmp_path / "out", projection_dim=11)
    assert made.towers == (VISION, TEXT)
    assert made.made_new == NEW_TF
    found = load(tmp_path / "out" / "model.safetensors")
    assert_same(
        {name: value for name, value in found.items() if name not in NEW},
        {name: value for name, value in TENSORS.items() if name not in NEW},
    )
    assert {name: found[name].shape for name in NEW} == dict(zip(NEW, [(11, 24), (11, 32), ()], strict=True))
    dropped = {item.name for item in made.dropped}
    assert ("classifier.weight" in dropped) == (write is prefixed_with_head)
    assert ("text_model.embeddings.token_embedding.weight" in dropped) == (write is full_clip)


def test_a_pooler_that_no_head_needed_is_made_new_and_said_so(tmp_path: Path) -> None:
    vision = bare(tmp_path / "vision", "vision")
    kept = {name: value for name, value in tower_of("text", "bert.").items() if "pooler" not in name}
    text = write_checkpoint(tmp_path / "text", config_of_tower("text"), kept | HEAD)
    made = combine(vision, text, tmp_path / "out")
    assert made.made_new == (*POOLER, *NEW_TF)
    assert json.loads((tmp_path / "out" / "conversion.json").read_text("utf-8"))["made_new"] == list(made.made_new)
    found = load(tmp_path / "out" / "model.safetensors")
    assert not found["text_model.pooler.dense.bias"].any()
    assert found["text_model.pooler.dense.weight"].shape == (32, 32)
    assert 0 < np.abs(found["text_model.pooler.dense.weight"]).max() <= 1 / np.sqrt(32)


def test_a_new_norm_scales_by_one(tmp_path: Path) -> None:
    """BEiT's pooler is a norm; a scale of 0 would make every picture the same."""
    config = config_of("vit", "bert", fields={"vision_config": {"model_type": "beit", **ALL_VISION["beit"]}})
    tensors = tensors_of(config)
    kept = {name: value for name, value in tower_of("vision", "beit.", tensors).items() if "pooler" not in name}
    vision = write_checkpoint(tmp_path / "vision", config["vision_config"], kept)
    made = combine(vision, bare(tmp_path / "text", "text"), tmp_path / "out")
    assert made.made_new[:2] == tuple(f"vision_model/beit/pooler/layernorm/{leaf}" for leaf in ("gamma", "beta"))
    found = load(tmp_path / "out" / "model.safetensors")
    np.testing.assert_array_equal(found["vision_model.pooler.layernorm.weight"], np.ones(48, np.float32))
    np.testing.assert_array_equal(found["vision_model.pooler.layernorm.bias"], np.zeros(48, np.float32))


def test_a_field_that_the_whole_asks_of_a_tower_is_written(tmp_path: Path) -> None:
    """A ConvNeXt alone has no hidden_size, by which a dual encoder makes its projection."""
    config = config_of("vit", "bert", fields={"vision_config": {"model_type": "convnext", **ALL_VISION["convnext"]}})
    tensors = tower_of("vision", "convnext.", tensors_of(config))
    alone = {name: value for name, value in config["vision_config"].items() if name != "hidden_size"}
    combine(write_checkpoint(tmp_path / "vision", alone, tensors), bare(tmp_path / "text", "text"), tmp_path / "out")
    written = json.loads((tmp_path / "out" / "config.json").read_text("utf-8"))
    assert written["vision_config"] == {**alone, "hidden_size": 26}
    assert load(tmp_path / "out" / "model.safetensors")["visual_projection.weight"].shape == (512, 26)


def test_what_is_drawn(tmp_path: Path) -> None:
    parts = bare(tmp_path / "vision", "vision"), bare(tmp_path / "text", "text")
    for out, options in {"a": {}, "b": {}, "c": {"seed": 1}}.items():
        combine(*parts, tmp_path / out, **options)  # type: ignore[arg-type]
    first, again, other = (load(tmp_path / out / "model.safetensors") for out in "abc")
    assert_same(again, first)
    assert first["logit_scale"] == np.float32(2.6592)
    for name, width in {"visual_projection.weight": 24, "text_projection.weight": 32}.items():
        drawn = first[name]
        assert drawn.shape == (512, width)
        assert 0.98 / np.sqrt(width) < np.abs(drawn).max() <= 1 / np.sqrt(width)
        assert np.unique(drawn).size > 0.99 * drawn.size
        assert not np.array_equal(drawn, other[name])
    assert not np.array_equal(
        first["visual_projection.weight"].ravel()[:99], first["text_projection.weight"].ravel()[:99]
    )
    manifest = json.loads((tmp_path / "c" / "conversion.json").read_text("utf-8"))
    assert (manifest["options"]["seed"], manifest["made_new"]) == (1, list(NEW_TF))


def test_the_config_is_of_both(tmp_path: Path) -> None:
    combine(full_clip(tmp_path / "vision", "vision"), dual_encoder(tmp_path / "text", "text"), tmp_path / "out")
    assert json.loads((tmp_path / "out" / "config.json").read_text("utf-8")) == {
        "architectures": ["VisionTextDualEncoderModel"],
        "logit_scale_init_value": float(np.float32(2.6592)),
        "model_type": "vision-text-dual-encoder",
        "projection_dim": 512,
        "text_config": config_of_tower("text"),
        "vision_config": config_of_tower("vision"),
    }


def test_tokenizer_of_the_text_and_image_processor_of_the_vision_checkpoint(tmp_path: Path) -> None:
    vision, text = full_clip(tmp_path / "vision", "vision"), dual_encoder(tmp_path / "text", "text")
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json", "preprocessor_config.json"):
        (vision / name).write_text('{"of": "vision"}', "utf-8")
    for name in ("vocab.txt", "tokenizer_config.json", "preprocessor_config.json", "processor_config.json"):
        (text / name).write_text('{"of": "text"}', "utf-8")
    for folder in (vision, text):
        (folder / "additional_chat_templates").mkdir()
        (folder / "additional_chat_templates" / f"{folder.name}.jinja").touch()
    combine(vision, text, tmp_path / "out")
    small = {path.name: path for path in (tmp_path / "out").iterdir() if "safetensors" not in path.name}
    assert [path.name for path in small.pop("additional_chat_templates").iterdir()] == ["text.jinja"]
    assert sorted(small) == [
        "config.json", "conversion.json", "preprocessor_config.json", "tokenizer_config.json", "vocab.txt",
    ]  # fmt: skip
    assert json.loads(small["preprocessor_config.json"].read_text("utf-8")) == {"of": "vision"}
    assert json.loads(small["tokenizer_config.json"].read_text("utf-8")) == {"of": "text"}


@pytest.mark.parametrize("format", ["h5", "safetensors"])
def test_for_tensorflow(tmp_path: Path, format: Any) -> None:
    parts = bare(tmp_path / "vision", "vision"), bare(tmp_path / "text", "text")
    combine(*parts, tmp_path / "pt")
    combine(*parts, tmp_path / "tf", target="tf", format=format)
    tf2pt(tmp_path / "tf", tmp_path / "back")
    assert_same(load(tmp_path / "back" / "model.safetensors"), load(tmp_path / "pt" / "model.safetensors"))
    if format == "h5":
        kernel = read_all(tmp_path / "tf" / "tf_model.h5")["visual_projection/kernel"]
        np.testing.assert_array_equal(kernel, load(tmp_path / "pt" / "model.safetensors")["visual_projection.weight"].T)


def without_a_layer(tmp_path: Path) -> tuple[Path, Path]:
    lost = {name: value for name, value in tower_of("text").items() if "layer.1.output.dense.bias" not in name}
    return bare(tmp_path / "vision", "vision"), write_checkpoint(tmp_path / "text", config_of_tower("text"), lost)


def of_another_width(tmp_path: Path) -> tuple[Path, Path]:
    config = config_of_tower("text") | {"vocab_size": 98}
    return bare(tmp_path / "vision", "vision"), write_checkpoint(tmp_path / "text", config, tower_of("text"))


def exchanged(tmp_path: Path) -> tuple[Path, Path]:
    return bare(tmp_path / "text", "text"), bare(tmp_path / "vision", "vision")


@pytest.mark.parametrize(
    ("write", "kind", "said"),
    [
        (without_a_layer, PlanError, "missing (1): encoder.layer.1.output.dense.bias"),
        (of_another_width, PlanError, "of another shape (1): embeddings.word_embeddings.weight is (97, 32)"),
        (exchanged, UnsupportedTower, "bert"),
    ],
)
def test_towers_that_are_not_there(
    tmp_path: Path, write: Callable[[Path], tuple[Path, Path]], kind: type[ConverterError], said: str
) -> None:
    parts = write(tmp_path)
    with pytest.raises(ConverterError) as caught:
        combine(*parts, tmp_path / "out")
    assert type(caught.value) is kind
    assert said in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_container_of_the_other_framework_is_refused(tmp_path: Path) -> None:
    parts = bare(tmp_path / "vision", "vision"), bare(tmp_path / "text", "text")
    with pytest.raises(TargetError) as caught:
        combine(*parts, tmp_path / "out", format="h5")
    assert str(caught.value) == "format h5 is not one of PyTorch's; choose safetensors or bin"
    assert not (tmp_path / "out").exists()


def test_out_is_kept_unless_it_may_be_replaced(tmp_path: Path) -> None:
    parts = bare(tmp_path / "vision", "vision"), bare(tmp_path / "text", "text")
    combine(*parts, tmp_path / "out")
    before = (tmp_path / "out" / "model.safetensors").read_bytes()
    with pytest.raises(TargetError, match="exists already"):
        combine(*parts, tmp_path / "out", seed=1)
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == before
    combine(*parts, tmp_path / "out", seed=1, overwrite=True)
    assert (tmp_path / "out" / "model.safetensors").read_bytes() != before
    for place in parts:
        with pytest.raises(TargetError):
            combine(*parts, place, overwrite=True)

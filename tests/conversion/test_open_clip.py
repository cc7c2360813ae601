"""OpenCLIP's layout, in and out, against names and shapes that open_clip 3.3.0 itself gave (fixtures/names/open_clip.json)."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from converter import convert, inspect, verify
from converter.errors import ConverterError, UnsupportedOption
from converter.folder import manifest
from converter.names.layout_tables import make_table

FIXTURE = json.loads((Path(__file__).parents[2] / "fixtures/names/open_clip.json").read_text())
CONFIG: dict[str, Any] = {
    "model_cfg": {
        "embed_dim": 11,
        "vision_cfg": {"image_size": 30, "layers": 3, "width": 20, "head_width": 5, "mlp_ratio": 4.35, "patch_size": 10},
        "text_cfg": {"context_length": 17, "vocab_size": 59, "width": 24, "heads": 3, "layers": 2, "mlp_ratio": 3.0},
    },
    "preprocess_cfg": {
        "size": [30, 30], "mode": "RGB", "mean": [0.4, 0.5, 0.6], "std": [0.1, 0.2, 0.3], "interpolation": "bilinear",
        "resize_mode": "shortest", "fill_color": 0,
    },
}  # fmt: skip
Tensors = dict[str, np.ndarray[Any, Any]]


def source(folder: Path, config: dict[str, Any] = CONFIG, prefix: str = "") -> Tensors:
    """A model of OpenCLIP with random weights; the prefix goes before the text tower's names."""
    random = np.random.default_rng(0)
    tensors = {
        name if name.startswith(("visual.", "logit")) else prefix + name: np.asarray(
            random.normal(size=shape), "float32"
        )
        for name, (shape, _, _) in FIXTURE["clip"].items()
    }
    folder.mkdir()
    save_file(tensors, folder / "open_clip_model.safetensors")
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return tensors


def changed(section: str, **fields: Any) -> dict[str, Any]:
    """The config with other fields in a section of ``model_cfg``, or on its top level."""
    model = CONFIG["model_cfg"]
    inner = {**model, **fields} if not section else {**model, section: {**model[section], **fields}}
    return {**CONFIG, "model_cfg": inner}


@pytest.mark.parametrize("prefix", ["", "text."])
def test_every_tensor_in_its_place_and_back_bit_for_bit(tmp_path: Path, prefix: str) -> None:
    theirs = source(tmp_path / "src", prefix=prefix)
    convert(tmp_path / "src", tmp_path / "pt", "pt")
    ours = load_file(tmp_path / "pt/model.safetensors")
    placed = 0
    for name, (_, how, names) in FIXTURE["clip"].items():
        tensor = theirs[name] if name in theirs else theirs[prefix + name]
        parts = np.split(tensor, 3) if how == "split3" else [tensor.T if how == "transpose" else tensor]
        for part, ours_name in zip(parts, names, strict=True):
            np.testing.assert_array_equal(ours[ours_name], part, strict=True)
            placed += 1
    assert placed == len(ours)
    convert(tmp_path / "src", tmp_path / "tf", "tf")
    for middle in ("pt", "tf"):
        convert(tmp_path / middle, tmp_path / f"back-{middle}", "pt", layout="open_clip")
        back = load_file(tmp_path / f"back-{middle}/open_clip_model.safetensors")
        assert sorted(back) == sorted(FIXTURE["clip"])
        for name, tensor in back.items():
            np.testing.assert_array_equal(
                tensor, theirs[name] if name in theirs else theirs[prefix + name], strict=True
            )


def test_hashes_are_of_pytorchs_rows_whatever_both_ends_share(tmp_path: Path) -> None:
    source(tmp_path / "src")
    ways = {"pt": "src", "tf": "src", "tf-tf": "tf", "flax": "pt", "flax-tf": "flax", "tf-flax": "tf"}
    for out, start in ways.items():
        convert(tmp_path / start, tmp_path / out, out.split("-")[-1])
    for start in ("src", "pt", "tf"):
        convert(tmp_path / start, tmp_path / f"open_clip-{start}", "pt", layout="open_clip")
    outs = [*ways, *(f"open_clip-{start}" for start in ("src", "pt", "tf"))]
    recorded = {out: json.loads((tmp_path / out / manifest.NAME).read_text())["tensors"] for out in outs}
    for out in outs:
        assert recorded[out] == recorded["pt"], out
    for start in ("src", *ways):
        shutil.move(tmp_path / start, tmp_path / f"moved-{start}")
    for out in outs:
        folder = tmp_path / out if out.startswith("open_clip") else tmp_path / f"moved-{out}"
        report = verify(folder, weights_only=True)
        assert report.status == "passed", report


def test_the_configs(tmp_path: Path) -> None:
    source(tmp_path / "src")
    convert(tmp_path / "src", tmp_path / "pt", "pt")
    config = json.loads((tmp_path / "pt/config.json").read_text())
    assert (config["model_type"], config["projection_dim"]) == ("clip", 11)
    assert config["vision_config"]["num_attention_heads"] == 4
    assert (config["vision_config"]["intermediate_size"], config["vision_config"]["hidden_act"]) == (87, "gelu")
    assert (config["text_config"]["intermediate_size"], config["text_config"]["eos_token_id"]) == (72, 2)
    processor = json.loads((tmp_path / "pt/preprocessor_config.json").read_text())
    assert (processor["image_mean"], processor["image_std"]) == ([0.4, 0.5, 0.6], [0.1, 0.2, 0.3])
    assert (processor["size"], processor["resample"]) == ({"shortest_edge": 30}, 2)
    convert(tmp_path / "pt", tmp_path / "back", "pt", layout="open_clip")
    again = json.loads((tmp_path / "back/open_clip_config.json").read_text())
    model = CONFIG["model_cfg"]
    assert {**again["model_cfg"], "quick_gelu": None, "text_cfg": None} == {
        **model,
        "quick_gelu": None,
        "text_cfg": None,
    }
    assert again["model_cfg"]["text_cfg"] == {**model["text_cfg"], "pool_type": "argmax", "eos_id": 2}
    assert {**CONFIG["preprocess_cfg"], **again["preprocess_cfg"]} == CONFIG["preprocess_cfg"]


def test_pooling_at_the_first_end_is_metaclip_2(tmp_path: Path) -> None:
    source(tmp_path / "src", changed("text_cfg", pool_type="eos", eos_id=7))
    found = inspect(tmp_path / "src")
    assert (found.family, found.problem, found.dialects) == ("metaclip_2", None, {"open_clip": len(FIXTURE["clip"])})


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_names_and_shapes_are_open_clips_own(kind: str) -> None:
    table, shapes = FIXTURE[kind], FIXTURE["ours"][kind]
    made = make_table("open_clip", kind, {name: tuple(shape) for name, shape in shapes.items()})
    assert {name: list(shape) for name, shape in made.shapes.items()} == {
        name: shape for name, (shape, *_) in table.items()
    }


@pytest.mark.parametrize(
    ("section", "fields", "words"),
    [
        ("", {"multimodal_cfg": {"width": 24}}, "CoCa"),
        ("text_cfg", {"hf_model_name": "roberta-base"}, "a text tower of transformers"),
        ("vision_cfg", {"timm_model_name": "eva02_base_patch16_clip_224"}, "eva02_base_patch16_clip_224"),
        ("vision_cfg", {"layers": [3, 4, 6, 3]}, "a modified ResNet"),
        ("vision_cfg", {"pool_type": "avg"}, "vision_cfg.pool_type is 'avg'"),
        ("vision_cfg", {"ls_init_value": 1e-4}, "vision_cfg.ls_init_value is 0.0001"),
        ("vision_cfg", {"attentional_pool": True}, "vision_cfg.attentional_pool is True"),
        ("text_cfg", {"no_causal_mask": True}, "text_cfg.no_causal_mask is True"),
        ("text_cfg", {"qk_norm": True}, "text_cfg.qk_norm is True"),
        ("vision_cfg", {"later": 1}, "vision_cfg.later is 1: a field that OpenCLIP 3.3 does not have"),
    ],
)
def test_other_models_are_refused_by_name(tmp_path: Path, section: str, fields: dict[str, Any], words: str) -> None:
    source(tmp_path / "src", changed(section, **fields))
    with pytest.raises(UnsupportedOption) as error:
        convert(tmp_path / "src", tmp_path / "out", "tf")
    assert words in str(error.value)
    assert not (tmp_path / "out").exists()


def test_what_open_clip_has_no_model_for_is_not_written(tmp_path: Path) -> None:
    source(tmp_path / "src")
    convert(tmp_path / "src", tmp_path / "pt", "pt")
    config = json.loads((tmp_path / "pt/config.json").read_text())
    config["vision_config"]["layer_norm_eps"] = 1e-6
    (tmp_path / "pt/config.json").write_text(json.dumps(config))
    with pytest.raises(UnsupportedOption) as error:
        convert(tmp_path / "pt", tmp_path / "out", "pt", layout="open_clip")
    assert "vision_config.layer_norm_eps is 1e-06, its own 1e-05" in str(error.value)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"model_cfg": []}, "model_cfg is [], expected an object"),
        ({"model_cfg": {**CONFIG["model_cfg"], "text_cfg": 3}}, "text_cfg is 3, expected an object"),
        ({**CONFIG, "preprocess_cfg": 3}, "preprocess_cfg is 3, expected an object"),
        ({**CONFIG, "preprocess_cfg": {"mean": [1]}}, "expected a size and three numbers each"),
        (changed("vision_cfg", image_size=[30, 40]), "images that are not square"),
        (changed("vision_cfg", head_width=0), "cannot be right"),
        (changed("text_cfg", hf_tokenizer_name=3), "hf_tokenizer_name is no text"),
        (changed("vision_cfg", width=21), "tensor shapes that differ from open_clip_config.json"),
    ],
)
def test_hostile_configs_are_refused(tmp_path: Path, config: dict[str, Any], words: str) -> None:
    source(tmp_path / "src", config)
    with pytest.raises(ConverterError) as error:
        convert(tmp_path / "src", tmp_path / "out", "tf")
    assert words in str(error.value)

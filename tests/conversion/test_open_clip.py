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
from converter.errors import ConverterError, CorruptCheckpoint, UnsupportedOption
from converter.folder import manifest
from converter.names.configs import check_config
from converter.names.layout_configs import to_theirs
from converter.names.layout_tables import make_table
from tests.archives import dump, ordered, storage, tensor, write_archive

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


def saved(path: Path, tensors: Tensors, prefix: str = "", **beside: Any) -> Path:
    """As ``torch.save`` writes a state dict, in a dictionary with what a trainer keeps beside it."""
    held, storages = {}, {}
    for number, (name, array) in enumerate(tensors.items()):
        count, kind = array.size, str(array.dtype)
        strides = (
            tuple(stride // array.itemsize for stride in np.ascontiguousarray(array).strides) if array.shape else ()
        )
        held[prefix + name] = tensor(storage(str(number), count, kind), 0, array.shape, strides)
        storages[str(number)] = array.tobytes()
    return write_archive(path, dump({**beside, "state_dict": ordered(held)} if beside else ordered(held)), storages)


def test_a_pickle_and_what_its_trainer_leaves(tmp_path: Path) -> None:
    """The same as from safetensors, whichever holds the weights."""
    theirs = source(tmp_path / "src", prefix="text.")
    convert(tmp_path / "src", tmp_path / "expected", "pt")
    expected = load_file(tmp_path / "expected/model.safetensors")
    (tmp_path / "bin").mkdir()
    shutil.copy(tmp_path / "src/open_clip_config.json", tmp_path / "bin")
    saved(tmp_path / "bin/open_clip_pytorch_model.bin", theirs)
    (tmp_path / "run").mkdir()
    beside = {"epoch": 3, "name": "x", "optimizer": {"state": {0: {"step": 7}}, "param_groups": [{"lr": 1e-3}]}}
    epoch = saved(tmp_path / "run/epoch_3.pt", theirs, "module.", **beside)
    config = tmp_path / "src/open_clip_config.json"
    model = tmp_path / "model.json"  # as open_clip's package has it: what stands in model_cfg
    model.write_text(json.dumps(CONFIG["model_cfg"]))
    for out, source_, given in (
        ("from-bin", tmp_path / "bin", None),
        ("from-epoch", epoch, config),
        ("from-package", epoch, model),
    ):
        convert(source_, tmp_path / out, "pt", config=given)
        found = load_file(tmp_path / out / "model.safetensors")
        assert found.keys() == expected.keys()
        for name, array in found.items():
            np.testing.assert_array_equal(array, expected[name], strict=True)
        assert (tmp_path / out / "preprocessor_config.json").exists() == (given != model)


@pytest.mark.parametrize("dtypes", [("float16",), ("float16", "float32")])
def test_half_precision_in_whole_or_in_part(tmp_path: Path, dtypes: tuple[str, ...]) -> None:
    """As OpenCLIP's ``pure_fp16`` has it, and ``fp16``, which leaves norms and embeddings as they are."""
    theirs = source(tmp_path / "src")
    halves = {
        name: array if len(dtypes) > 1 and ("ln_" in name or "embedding" in name) else array.astype("float16")
        for name, array in theirs.items()
    }
    save_file(halves, tmp_path / "src/open_clip_model.safetensors")
    assert {str(array.dtype) for array in halves.values()} == set(dtypes)
    for way in ("pt", "tf", "flax"):
        convert(tmp_path / "src", tmp_path / way, way)
        convert(tmp_path / way, tmp_path / f"from-{way}", "pt", layout="open_clip")
        back = load_file(tmp_path / f"from-{way}/open_clip_model.safetensors")
        for name, array in halves.items():
            np.testing.assert_array_equal(back[name], array, strict=True)
    config = json.loads((tmp_path / "pt/config.json").read_text())
    assert config.get("torch_dtype", "float16") == "float16"


def test_query_key_and_value_of_two_dtypes(tmp_path: Path) -> None:
    """Theirs is one tensor: it cannot be written, and says how it could."""
    source(tmp_path / "src")
    convert(tmp_path / "src", tmp_path / "pt", "pt")
    path = tmp_path / "pt/model.safetensors"
    tensors = load_file(path)
    name = "vision_model.encoder.layers.0.self_attn.k_proj.weight"
    save_file({**tensors, name: tensors[name].astype("float16")}, path, metadata={"format": "pt"})
    with pytest.raises(ConverterError, match="choose one dtype with --dtype"):
        convert(tmp_path / "pt", tmp_path / "out", "pt", layout="open_clip")
    convert(tmp_path / "pt", tmp_path / "out", "pt", layout="open_clip", dtype="float32")


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


# As ViT-B-16-SigLIP.json in open_clip 3.3.0 has it.
SIGLIP: dict[str, Any] = {
    "embed_dim": 768,
    "init_logit_bias": -10,
    "custom_text": True,
    "vision_cfg": {
        "image_size": 224, "timm_model_name": "vit_base_patch16_siglip_224", "timm_model_pretrained": False,
        "timm_pool": "map", "timm_proj": "none",
    },
    "text_cfg": {
        "context_length": 64, "vocab_size": 32000, "hf_tokenizer_name": "timm/ViT-B-16-SigLIP",
        "tokenizer_kwargs": {"clean": "canonicalize"}, "width": 768, "heads": 12, "layers": 12, "no_causal_mask": True,
        "proj_bias": True, "pool_type": "last", "norm_kwargs": {"eps": 1e-6},
    },
}  # fmt: skip


def test_siglips_config_there_and_back() -> None:
    found = check_config({"model_cfg": SIGLIP, "preprocess_cfg": {}}, "open_clip_config.json")
    assert found.family.model_type == "siglip"
    of = {side: found.tower(side).fields for side in ("vision", "text")}
    assert (of["vision"]["hidden_act"], of["vision"]["hidden_size"], of["vision"]["image_size"]) == ("gelu", 768, 224)
    assert (of["text"]["max_position_embeddings"], of["text"]["projection_size"]) == (64, 768)
    assert (found.tokenizer, found.cleaning) == ("timm/ViT-B-16-SigLIP", "in lower case and without punctuation")
    assert found.processor is not None
    assert found.processor["size"] == {"height": 224, "width": 224}
    assert to_theirs(found.fields, "siglip", "open_clip", of) == {
        **SIGLIP,
        "text_cfg": {**SIGLIP["text_cfg"], "mlp_ratio": 4.0},
    }


@pytest.mark.parametrize(
    ("said", "act"), [({"approximate": "tanh"}, "gelu_pytorch_tanh"), (None, "gelu"), (False, "gelu")]
)
def test_siglips_activation(said: Any, act: str) -> None:
    """SigLIP 2 says that it is the approximation."""
    config = {**SIGLIP, "text_cfg": {**SIGLIP["text_cfg"], "act_kwargs": said}}
    found = check_config(config)
    assert found.text.fields["hidden_act"] == act
    of = {side: found.tower(side).fields for side in ("vision", "text")}
    assert to_theirs(found.fields, "siglip", "open_clip", of)["text_cfg"].get("act_kwargs") == (said or None)


@pytest.mark.parametrize("name", ["no_causal_mask", "pool_type", "norm_kwargs", "proj_bias", "timm_pool", "timm_proj"])
def test_what_silence_means_in_open_clip_is_another_model_than_siglip(name: str) -> None:
    silent = {
        **SIGLIP,
        **{side: {k: v for k, v in SIGLIP[side].items() if k != name} for side in ("vision_cfg", "text_cfg")},
    }
    with pytest.raises(UnsupportedOption, match=f"_cfg.{name} is .* by default, supported is"):
        check_config(silent)


@pytest.mark.parametrize(
    ("field", "value"), [("image_size", 64), ("hidden_act", "gelu_new"), ("num_hidden_layers", 11)]
)
def test_a_tower_that_timm_does_not_have_is_not_written(field: str, value: object) -> None:
    found = check_config(SIGLIP)
    of = {"vision": {**found.vision.fields, field: value}, "text": found.text.fields}
    with pytest.raises(UnsupportedOption, match=f"OpenCLIP has no vision tower with .*{field} {value!r}"):
        to_theirs(found.fields, "siglip", "open_clip", of)


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
        ("vision_cfg", {"later": 1}, "vision_cfg.later is 1: OpenCLIP 3.3 has no such field"),
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
        (changed("text_cfg", hf_tokenizer_name=3), "hf_tokenizer_name is not a string"),
        (changed("vision_cfg", width=21), "tensor shapes that differ from open_clip_config.json"),
        (changed("vision_cfg", **{"la\x7fter": 1}), "ter is 1: OpenCLIP 3.3 has no such field"),
    ],
)
def test_hostile_configs_are_refused(tmp_path: Path, config: dict[str, Any], words: str) -> None:
    source(tmp_path / "src", config)
    with pytest.raises(ConverterError) as error:
        convert(tmp_path / "src", tmp_path / "out", "tf")
    assert words in str(error.value)
    assert str(error.value).isprintable()


def test_a_config_that_is_a_link_out_of_the_folder(tmp_path: Path) -> None:
    source(tmp_path / "src")
    (tmp_path / "src/open_clip_config.json").rename(tmp_path / "other.json")
    (tmp_path / "src/open_clip_config.json").symlink_to("../other.json")
    with pytest.raises(CorruptCheckpoint, match=r"open_clip_config\.json: "):
        convert(tmp_path / "src", tmp_path / "out", "tf")
    assert not (tmp_path / "out").exists()

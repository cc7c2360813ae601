"""OpenCLIP's layout both ways, judged by open_clip 3.3.0: its models, its loader, its tokenizers, and every config of its own."""

from __future__ import annotations

import filecmp
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converter import convert
from converter.errors import UnsupportedOption
from converter.names.configs import check_config
from converter.names.layout_files import kinds_of
from converter.names.layout_tables import make_table
from converter.names.rules import compile_rules
from tests.compat.conftest import NOTHING, Peer
from tests.contents import read_tensors
from tests.torture import FULL
from tests.towers import ROUND

pytestmark = [
    pytest.mark.compat,
    pytest.mark.skipif(
        "OPENCLIP_PYTHON" not in os.environ, reason="OPENCLIP_PYTHON names no interpreter; `make compat` makes one"
    ),
]
VISION = {"image_size": 64, "layers": 2, "width": 40, "head_width": 10, "patch_size": 32, "mlp_ratio": 3.5}
TEXT = {"context_length": 17, "vocab_size": 96, "width": 24, "heads": 3, "layers": 3}
PREPROCESS = {"mean": [0.4, 0.5, 0.6], "std": [0.1, 0.2, 0.3], "interpolation": "bilinear"}
OF_PIECES = {"hf_tokenizer_name": "x/y", "tokenizer_kwargs": {"clean": "canonicalize"}}
SIGLIP = {
    "embed_dim": 768,
    "init_logit_bias": -10,
    "custom_text": True,
    "vision_cfg": {
        "image_size": 256,
        "timm_model_name": "vit_base_patch32_siglip_256",
        "timm_model_pretrained": False,
        "timm_pool": "map",
        "timm_proj": "none",
    },
    "text_cfg": {
        **TEXT,
        **OF_PIECES,
        "no_causal_mask": True,
        "proj_bias": True,
        "pool_type": "last",
        "norm_kwargs": {"eps": 1e-6},
        "act_kwargs": {"approximate": "tanh"},
    },
}
MODELS: dict[str, dict[str, Any]] = {
    "quickgelu": {"embed_dim": 22, "quick_gelu": True, "vision_cfg": VISION, "text_cfg": TEXT},
    "gelu": {"embed_dim": 22, "custom_text": True, "vision_cfg": VISION, "text_cfg": TEXT},
    "eos": {
        "embed_dim": 22,
        "vision_cfg": VISION,
        "text_cfg": {**TEXT, **OF_PIECES, "pool_type": "eos", "eos_id": 1},
    },
    # The smallest that there are: 93 million numbers in timm's tower.
    "siglip": SIGLIP,
}
if FULL:
    first = {name: value for name, value in SIGLIP["text_cfg"].items() if name != "act_kwargs"}
    trunk = {**SIGLIP["vision_cfg"], "image_size": 224, "timm_model_name": "vit_base_patch16_siglip_224"}
    MODELS["siglip 1"] = {**SIGLIP, "vision_cfg": trunk, "text_cfg": first}
Made = Callable[[str], Path]


@pytest.fixture(scope="module")
def made(in_open_clip: Peer, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Makes each model once, with its outputs for a batch in ``outputs.npz``."""
    folders: dict[str, Path] = {}

    def make(model: str) -> Path:
        if model not in folders:
            folder = folders[model] = tmp_path_factory.mktemp("open_clip")
            ways = ["safetensors", *([] if model.startswith("siglip") else ["bin", "half", "epoch"])]
            in_open_clip("make_open_clip", out=folder, model_cfg=MODELS[model], preprocess_cfg=PREPROCESS, ways=ways)
            np.savez(folder / "inputs.npz", **batch(model))  # type: ignore[arg-type]
            run(in_open_clip, folder / "safetensors", folder, folder / "outputs.npz")
        return folders[model]

    return make


def batch(model: str) -> dict[str, np.ndarray[Any, Any]]:
    """Pictures, and texts that end where the model looks for their end: one of them twice."""
    noise = np.random.default_rng(3)
    ids = noise.integers(3, TEXT["vocab_size"] - 1, (4, TEXT["context_length"]))
    end = 1 if model == "eos" else TEXT["vocab_size"] - 1
    for row, length in enumerate((17, 7, 3, 9)):
        ids[row, length - 1] = end
        ids[row, length:] = 0
    ids[0, 4] = end
    size = MODELS[model]["vision_cfg"]["image_size"]
    return {"pixel_values": noise.standard_normal((3, 3, size, size), dtype=np.float32), "input_ids": ids}


def run(peer: Peer, source: Path, made: Path, out: Path) -> None:
    peer("run_open_clip", source=source, inputs=made / "inputs.npz", out=out)


def assert_alike(ours: Path, theirs: Path) -> None:
    """Embeddings within 1e-5, logits within 1e-4; NaN and shapes count."""
    with np.load(ours) as mine, np.load(theirs) as expected:
        assert set(mine.files) == set(expected.files) != set()
        for name in expected.files:
            assert mine[name].shape == expected[name].shape, name
            difference = np.abs(mine[name].astype(np.float64) - expected[name]).max()
            assert difference <= (1e-4 if name.startswith("logits") else 1e-5), f"{name}: {difference}"


def assert_bits(folder: Path, made: Path) -> None:
    """The same tensors as OpenCLIP's own, whatever module its text tower is in."""
    theirs = read_tensors(made / "safetensors" / "open_clip_model.safetensors")
    if any(name.startswith("text.") for name in theirs) and "visual.proj" in theirs:
        theirs = {name.removeprefix("text."): value for name, value in theirs.items()}
    assert read_tensors(folder / "open_clip_model.safetensors") == theirs


@pytest.mark.parametrize("model", MODELS)
def test_transformers_answers_as_open_clip(model: str, made: Made, in_open_clip: Peer, tmp_path: Path) -> None:
    folder = made(model)
    convert(folder / "safetensors", tmp_path / "pt", "pt")
    said = in_open_clip("run_pt", source=tmp_path / "pt", inputs=folder / "inputs.npz", out=tmp_path / "pt.npz")
    assert {name: said[name] for name in NOTHING} == NOTHING
    assert_alike(tmp_path / "pt.npz", folder / "outputs.npz")
    with np.load(folder / "outputs.npz") as outputs:
        assert np.abs(outputs["image_embeds"][0] - outputs["image_embeds"][1]).max() > 1e-2
        assert np.abs(outputs["text_embeds"][0] - outputs["text_embeds"][1]).max() > 1e-2


def test_tensorflow_answers_as_open_clip(made: Made, peer: Peer, tmp_path: Path) -> None:
    folder = made("quickgelu")
    convert(folder / "safetensors", tmp_path / "tf", "tf")
    given = dict(batch("quickgelu"), attention_mask=np.ones((4, TEXT["context_length"]), np.int64))
    np.savez(tmp_path / "inputs.npz", **given)  # type: ignore[arg-type]
    said = peer("run_tf", source=tmp_path / "tf", inputs=tmp_path / "inputs.npz", out=tmp_path / "tf.npz")
    assert {name: said[name] for name in NOTHING} == NOTHING
    assert_alike(tmp_path / "tf.npz", folder / "outputs.npz")


@pytest.mark.parametrize("model", MODELS)
def test_back_with_a_config_that_open_clip_loads(model: str, made: Made, in_open_clip: Peer, tmp_path: Path) -> None:
    """From PyTorch and from TensorFlow: the same bits, and of the whole folder the same outputs to the last bit."""
    folder = made(model)
    for way in ("pt", "tf"):
        convert(folder / "safetensors", tmp_path / way, way)
        convert(tmp_path / way, tmp_path / f"from-{way}", "pt", layout="open_clip")
        assert_bits(tmp_path / f"from-{way}", folder)
    run(in_open_clip, tmp_path / "from-tf", folder, tmp_path / "again.npz")
    with np.load(tmp_path / "again.npz") as again, np.load(folder / "outputs.npz") as first:
        for name in first.files:
            np.testing.assert_array_equal(again[name], first[name], strict=True)


@pytest.mark.parametrize("model", ["gelu", "eos"])
def test_whatever_open_clip_saves(model: str, made: Made, tmp_path: Path) -> None:
    """Its .bin, its trainer's checkpoint, and half precision, in which norms and embeddings stay as they are."""
    folder = made(model)
    config = folder / "epoch" / "open_clip_config.json"
    convert(folder / "bin", tmp_path / "bin", "pt")
    convert(folder / "epoch" / "epoch_3.pt", tmp_path / "epoch", "pt", config=config)
    convert(folder / "safetensors", tmp_path / "pt", "pt")
    for way in ("bin", "epoch"):
        assert filecmp.cmp(tmp_path / way / "model.safetensors", tmp_path / "pt/model.safetensors", shallow=False)
    held = read_tensors(folder / "half" / "open_clip_model.safetensors")
    assert {dtype for dtype, _, _ in held.values()} == {"F16", "F32"}
    convert(folder / "half", tmp_path / "half", "tf")
    convert(tmp_path / "half", tmp_path / "half-back", "pt", layout="open_clip")
    back = read_tensors(tmp_path / "half-back" / "open_clip_model.safetensors")
    assert back == {name.removeprefix("text."): value for name, value in held.items()}


TEXTS = ["a photo of a cat", "A Photo, of the CAT's 2nd  hat!", "naïve café / 25°", "", "猫 and 🐈", "x" * 300]


def test_clips_tokenizer_is_taken_along(made: Made, in_open_clip: Peer, tmp_path: Path) -> None:
    """Beside OpenCLIP's weights lies, on the Hub, what this makes of the vocabulary in its package."""
    folder = made("quickgelu") / "safetensors"
    in_open_clip("save_tokenizer", out=folder)
    convert(folder, tmp_path / "pt", "pt")
    convert(tmp_path / "pt", tmp_path / "back", "pt", layout="open_clip")
    for source in (folder, tmp_path / "back"):
        # 17 positions have room for 17 ids: the last text is cut off.
        found = in_open_clip("tokenize", source=source, ours=tmp_path / "pt", texts=TEXTS)
        assert found["open_clip"] == found["transformers"]
        assert found["class"].startswith("CLIPTokenizer")
        assert {len(ids) for ids in found["open_clip"]} > {2, 17}


@pytest.mark.parametrize("model", ["eos", "siglip"])
def test_a_tokenizer_of_pieces_is_taken_along(
    model: str, made: Made, in_open_clip: Peer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Where OpenCLIP cleans texts before it, a warning says so; texts that are clean have the same ids."""
    folder = made(model) / "safetensors"
    in_open_clip("save_pieces", out=folder, vocabulary=TEXT["vocab_size"])
    with caplog.at_level(logging.WARNING):
        convert(folder, tmp_path / "pt", "pt")
    assert "gives its tokenizer texts in lower case and without punctuation" in caplog.text
    convert(tmp_path / "pt", tmp_path / "back", "pt", layout="open_clip")
    clean = ["a photo of a cat", "two dogs", "x"]
    for source in (folder, tmp_path / "back"):
        found = in_open_clip("tokenize", source=source, ours=tmp_path / "pt", texts=clean)
        assert found["open_clip"] == found["transformers"]
    said = json.loads((tmp_path / "back/open_clip_config.json").read_text("utf-8"))["model_cfg"]["text_cfg"]
    assert said["hf_tokenizer_name"]
    if model == "siglip":  # as all of OpenCLIP's own
        found = in_open_clip("tokenize", source=tmp_path / "back", ours=tmp_path / "pt", texts=["Two, DOGS!"])
        assert found["open_clip"] != found["transformers"]
        assert said["tokenizer_kwargs"] == OF_PIECES["tokenizer_kwargs"]


def test_sizes_of_timms_towers(in_open_clip: Peer) -> None:
    said = kinds_of("open_clip")["open_clip_siglip"]["trunks"]
    sized = {name: {**trunk, "image_size": int(name.rpartition("_")[2])} for name, trunk in said.items()}
    assert in_open_clip("trunks", names=list(said)) == sized


def test_every_config_of_open_clips_own(in_open_clip: Peer) -> None:
    """Each is refused by name, or has the tensors that OpenCLIP makes of it: some of them today, all under torture."""
    taken: list[str] = []
    for name, config in in_open_clip("configs").items():
        try:
            check_config(config, name)
        except UnsupportedOption as error:
            assert "transformers has no class for" in str(error), error
        else:
            taken.append(name)
    assert sum("SigLIP" in name for name in taken) == 25
    assert len(taken) == 63
    some = taken if FULL else taken[ROUND % 16 :: 16]
    for name, theirs in in_open_clip("shapes", names=some).items():
        config = check_config(in_open_clip("configs")[name], name)
        shapes = {rule.name: rule.shape for rule in compile_rules(config).tensors}
        made = make_table("open_clip", config.family.model_type, shapes).shapes
        assert {key: list(shape) for key, shape in made.items()} == theirs, name

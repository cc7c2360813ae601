"""sentence-transformers loads what we write, and gives the vectors that it gives of the source."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from converter import convert, pt2tf, tf2pt
from tests.compat.conftest import Peer
from tests.compat.towers import FAMILIES
from tests.tiny import FIXTURES

pytestmark = pytest.mark.compat

TEXTS = ["a red circle on blue", "Two stripes", "x"]
PICTURES = sorted(str(path) for path in (FIXTURES / "pictures").glob("*.png"))


def vectors(peer: Peer, folder: Path, out: Path, as_module: bool = False) -> dict[str, np.ndarray]:
    peer("encode", source=folder, texts=TEXTS, pictures=PICTURES, out=out, as_module=as_module)
    return dict(np.load(out))


def make_clip(peer: Peer, folder: Path) -> None:
    """A tiny CLIP with a tokenizer and an image processor that fit it."""
    config = {"model_type": "clip", **FAMILIES["clip"]}
    vision, text = config["vision_config"], config["text_config"]
    config["text_config"] = {**text, "vocab_size": 514, "bos_token_id": 512, "eos_token_id": 513, "pad_token_id": 513}
    peer("make_family", config=config, out=folder)
    made = peer("save_processor", out=folder, size=vision["image_size"], length=text["max_position_embeddings"])
    assert made["tokens"] == config["text_config"]["vocab_size"]


@pytest.mark.parametrize("laid_out", ["by transformers", "by sentence-transformers"])
def test_clip_there_and_back(laid_out: str, sentences: Peer, tmp_path: Path) -> None:
    """Into the module that is for CLIP, and by the folder alone."""
    make_clip(sentences, tmp_path / "clip")
    source = tmp_path / "clip"
    if laid_out == "by sentence-transformers":
        source = tmp_path / "sentences"
        files = sentences("save_sentence_model", source=tmp_path / "clip", out=source)["files"]
        assert "modules.json" in files
    pt2tf(source, tmp_path / "tf")
    tf2pt(tmp_path / "tf", tmp_path / "back")
    for as_module in (True, False):
        wanted = vectors(sentences, tmp_path / "clip", tmp_path / "wanted.npz", as_module)
        found = vectors(sentences, tmp_path / "back", tmp_path / "found.npz", as_module)
        assert {name: array.shape for name, array in found.items()} == {"texts": (3, 22), "images": (len(PICTURES), 22)}
        assert len(np.unique(wanted["texts"], axis=0)) == len(TEXTS)
        for name, array in found.items():
            np.testing.assert_array_equal(array, wanted[name], err_msg=name)


def test_a_dual_encoder_from_flax(sentences: Peer, tmp_path: Path) -> None:
    source = FIXTURES / "clip-bert-tiny"
    convert(source, tmp_path / "flax", "flax")
    convert(tmp_path / "flax", tmp_path / "pt", "pt")
    wanted = vectors(sentences, source, tmp_path / "wanted.npz")
    for name, array in vectors(sentences, tmp_path / "pt", tmp_path / "found.npz").items():
        np.testing.assert_array_equal(array, wanted[name], err_msg=name)

"""Config, tokenizer and processor files that transformers 5.x saved open in 4.57.6 once converted, and say the same."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converter import pt2tf
from tests.compat.conftest import Peer, PeerError
from tests.compat.towers import TEMPLATES, VISION

pytestmark = pytest.mark.compat

TEXTS = ["un gatto nero", "gelato <foto> un mare"]
CLASSES = {
    "AutoConfig": "VisionTextDualEncoderConfig",
    "AutoProcessor": "VisionTextDualEncoderProcessor",
    "VisionTextDualEncoderConfig": "VisionTextDualEncoderConfig",
    "VisionTextDualEncoderProcessor": "VisionTextDualEncoderProcessor",
}
CASES = [
    ("clip_vision_model", "bert", "bert", "clip", "BertTokenizerFast", "CLIPImageProcessor"),
    ("vit", "bert", "bert with extra tokens", "vit", "BertTokenizerFast", "ViTImageProcessor"),
    ("vit", "bert", "bare", "vit", "PreTrainedTokenizerFast", "ViTImageProcessor"),
    ("vit", "roberta", "roberta", "vit", "RobertaTokenizerFast", "ViTImageProcessor"),
    ("deit", "xlm-roberta", "xlm-roberta", "deit", "XLMRobertaTokenizerFast", "DeiTImageProcessor"),
    ("clip_vision_model", "camembert", "camembert", "clip", "CamembertTokenizerFast", "CLIPImageProcessor"),
    ("swin", "albert", "albert", "vit", "AlbertTokenizerFast", "ViTImageProcessor"),
]


@pytest.mark.parametrize("apart", [False, True], ids=["one processor", "saved apart"])
@pytest.mark.parametrize(
    ("vision", "text", "tokenizer", "image", "tokenizer_class", "image_class"), CASES, ids=[case[2] for case in CASES]
)
def test_files_saved_by_5_open_in_the_peer_after_pt2tf(
    vision: str,
    text: str,
    tokenizer: str,
    image: str,
    tokenizer_class: str,
    image_class: str,
    apart: bool,
    current: Peer,
    peer: Peer,
    fixtures: Path,
    tmp_path: Path,
) -> None:
    source, target, pictures = tmp_path / "pt", tmp_path / "tf", sorted((fixtures / "pictures").glob("*.png"))
    current("make", vision=vision, text=text, out=source)
    size = VISION[vision]["image_size"]
    current("save_processor", out=source, tokenizer=tokenizer, image=image, size=size, apart=apart)
    pt2tf(source, target)
    request: dict[str, Any] = {"pictures": pictures, "texts": TEXTS}
    saved = current("open_files", source=source, out=tmp_path / "saved.npz", **request)
    opened = peer("open_files", source=target, out=tmp_path / "opened.npz", **request)
    assert opened["how"] == CLASSES | {"AutoTokenizer": tokenizer_class, "AutoImageProcessor": image_class}
    assert same_arrays(tmp_path / "saved.npz", tmp_path / "opened.npz")
    again = current("open_files", source=target, out=tmp_path / "again.npz", **request)
    assert [held["templates"] for held in (saved, opened, again)] == [TEMPLATES] * 3
    for side in ("vision_config", "text_config"):
        stated = json.loads((source / "config.json").read_text(encoding="utf-8"))[side]
        assert {name: opened["config"][side][name] for name in stated} == stated
        assert saved["config"][side].items() >= stated.items()
    assert same_arrays(tmp_path / "saved.npz", tmp_path / "again.npz")


def test_the_peer_cannot_open_some_of_them_as_they_are(current: Peer, peer: Peer, tmp_path: Path) -> None:
    """The reason for rewriting: should this fail one day, the rewriting can go."""
    complaints = {}
    for tokenizer in ("camembert", "bare"):
        folder = tmp_path / tokenizer
        current("save_processor", out=folder, tokenizer=tokenizer, image="vit", size=24, apart=False)
        current("make", vision="vit", text="bert", out=folder)
        with pytest.raises(PeerError) as caught:
            peer("open_files", source=folder, pictures=[], texts=TEXTS, out=tmp_path / "x.npz")
        complaints[tokenizer] = str(caught.value).splitlines()[-1]
    assert complaints == {
        "camembert": "AttributeError: 'list' object has no attribute 'keys'",
        "bare": "ValueError: Tokenizer class TokenizersBackend does not exist or is not currently imported.",
    }


def test_the_fixture_opens_in_the_peer(peer: Peer, tiny: Path, tiny_expected: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny, tmp_path / "pt")
    pt2tf(tmp_path / "pt", tmp_path / "tf")
    captions = json.loads((tiny.parent / "pictures" / "captions.json").read_text(encoding="utf-8"))
    request = {"pictures": [tiny.parent / "pictures" / name for name in captions], "texts": list(captions.values())}
    peer("open_files", source=tmp_path / "tf", out=tmp_path / "opened.npz", **request)
    from safetensors.numpy import load_file

    expected = load_file(tiny_expected / "outputs.safetensors")
    with np.load(tmp_path / "opened.npz") as opened:
        assert set(opened.files) == {"pixel_values", "input_ids", "attention_mask", "token_type_ids"}
        for name in opened.files:
            np.testing.assert_array_equal(opened[name], expected[f"input.{name}"])


def same_arrays(left: Path, right: Path) -> bool:
    """Whether two runs of a processor gave the same arrays, names included."""
    with np.load(left) as a, np.load(right) as b:
        shared = ("pixel_values", "input_ids", "attention_mask")
        return all(a[name].size > 0 and np.array_equal(a[name], b[name]) for name in shared)

"""The shipped checkpoint becomes what transformers made of it, and what transformers made of it becomes it again."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from converter import pt2tf, tf2pt
from fixtures import same_tensors
from tests.contents import read_h5, read_tensors


def test_pt2tf_writes_what_transformers_wrote(tiny: Path, tiny_expected: Path, tmp_path: Path) -> None:
    pt2tf(tiny, tmp_path / "tf")
    assert read_h5(tmp_path / "tf" / "tf_model.h5") == read_h5(tiny_expected / "tf_model.h5")


def test_tf2pt_writes_what_transformers_read(tiny: Path, tiny_expected: Path, tmp_path: Path) -> None:
    tf2pt(tiny_expected, tmp_path / "pt")
    assert read_tensors(tmp_path / "pt" / "model.safetensors") == read_tensors(tiny / "model.safetensors")


def test_the_demos_comparison_finds_one_flipped_bit(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = tiny / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    (tmp_path / "flipped.safetensors").write_bytes(content)
    assert same_tensors.main(str(weights), str(weights)) == 0
    assert same_tensors.main(str(weights), str(tmp_path / "flipped.safetensors")) == 1
    last = max(read_tensors(weights))
    assert capsys.readouterr().out.splitlines()[-1] == f"1 of 97 tensors differ: {last}"


def test_the_fixture_is_hard(tiny: Path) -> None:
    """Every tensor has a value of its own in every place, and logit_scale is not what config.json says."""
    config = json.loads((tiny / "config.json").read_text(encoding="utf-8"))
    tensors = read_tensors(tiny / "model.safetensors")
    assert len(tensors) == 97
    assert len({content for _, _, content in tensors.values()}) == 97
    for name, (_, shape, content) in tensors.items():
        values = [content[at : at + 4] for at in range(0, len(content), 4)]
        assert len(set(values)) > 0.99 * len(values), f"{name} {shape} repeats itself"
    assert config["logit_scale_init_value"] == 2.6592
    assert 3.309 < memoryview(tensors["logit_scale"][2]).cast("f")[0] < 3.311


def test_the_demos_model_is_small_and_its_pictures_are_twelve(tiny: Path, tmp_path: Path) -> None:
    """Every shape and colour is among them, each with a caption of its own; `tests/models` has the model name them."""
    model, pictures = (tiny.parent / name for name in ("forme-italiane", "forme-italiane-pictures"))
    assert sum(path.stat().st_size for folder in (model, pictures) for path in folder.iterdir()) < 2e6
    captions = json.loads((pictures / "captions.json").read_text("utf-8"))
    assert sorted(captions) == sorted(path.name for path in pictures.glob("*.png"))
    assert (len(captions), len(set(captions.values()))) == (12, 12)
    assert (pictures / "texts.txt").read_text("utf-8").splitlines() == list(captions.values())
    words = {word for caption in captions.values() for word in caption.split()}
    assert {"cerchio", "quadrato", "triangolo", "croce", "stella"} <= words
    assert {"rosso", "blu", "verde", "gialla", "nero", "bianco"} <= words
    pt2tf(model, tmp_path / "tf")
    tf2pt(tmp_path / "tf", tmp_path / "pt")
    assert same_tensors.main(str(model / "model.safetensors"), str(tmp_path / "pt" / "model.safetensors")) == 0


def test_converting_imports_no_framework(tiny: Path, tmp_path: Path) -> None:
    program = (
        "import sys; from converter import pt2tf, tf2pt; pt2tf(sys.argv[1], sys.argv[2]); tf2pt(*sys.argv[2:]); "
        "print(sorted({'tensorflow', 'tf_keras', 'keras', 'torch', 'transformers', 'jax', 'click', 'rich'} "
        "& sys.modules.keys()))"
    )
    command = [sys.executable, "-c", program, str(tiny), str(tmp_path / "tf"), str(tmp_path / "pt")]
    answer = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tiny.parents[1])
    assert answer.stdout == "[]\n"
    assert answer.stderr == ""

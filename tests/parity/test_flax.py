"""verify of checkpoints that came from Flax or went there: weights as they were moved, outputs in PyTorch's place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converter import convert, verify
from tests.tiny import FIXTURES

FLAX = FIXTURES / "flax"


@pytest.mark.parametrize("positions", ["keep", "flax"])
@pytest.mark.parametrize("way", ["pt", "tf", "flax"])
@pytest.mark.parametrize("name", ["vit-roberta", "beit_rel-bert", "dinov2_swiglu-albert"])
def test_weights(tmp_path: Path, name: str, way: str, positions: Any) -> None:
    """From Flax, and from there back to it."""
    if way == "flax":
        positions = "keep"
    convert(FLAX / name, tmp_path / "out", way, positions=positions)
    found = verify(tmp_path / "out", weights_only=True)
    assert found.passed, found.findings
    if way != "flax":
        convert(tmp_path / "out", tmp_path / "back", "flax", positions=positions)
        assert verify(tmp_path / "back", weights_only=True).passed


def test_a_table_that_was_not_moved_is_found(tmp_path: Path) -> None:
    """Bits that lie elsewhere are other bits, whichever of both is the reference; of the Flax source the manifest says it."""
    convert(FLAX / "vit-roberta", tmp_path / "moved", "pt", positions="flax")
    convert(FLAX / "vit-roberta", tmp_path / "kept", "pt")
    for one, other in (("moved", "kept"), ("kept", "moved")):
        found = verify(tmp_path / one, reference=tmp_path / other, weights_only=True)
        assert found.status == "failed"
        problems = " ".join(problem for finding in found.findings for problem in finding.problems)
        assert problems.startswith("text_model.embeddings.position_embeddings.weight differs in ")


def test_one_value_of_a_flax_source(tmp_path: Path) -> None:
    convert(FLAX / "clip-bert", tmp_path / "pt", "pt")
    convert(tmp_path / "pt", tmp_path / "flax", "flax")
    path = tmp_path / "flax" / "flax_model.msgpack"
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    found = verify(tmp_path / "flax", weights_only=True)
    assert found.status == "failed"
    problems = " ".join(problem for finding in found.findings for problem in finding.problems)
    assert "visual_projection.weight differs in 1 of" in problems


@pytest.mark.torch
@pytest.mark.tf
@pytest.mark.parametrize(
    ("name", "way", "positions"),
    [("vit-roberta", "tf", "flax"), ("clip-bert", "pt", "keep"), ("vit-roberta", "pt", "flax")],
)
def test_outputs(tmp_path: Path, name: str, way: str, positions: Any) -> None:
    convert(FLAX / name, tmp_path / "out", way, positions=positions)
    found = verify(tmp_path / "out")
    assert {finding.part: finding.status for finding in found.findings} == {
        "files": "passed", "weights": "passed", "outputs": "passed", "samples": "not checked",
    }, found.findings  # fmt: skip
    convert(tmp_path / "out", tmp_path / "back", "flax", positions=positions)
    outputs = {finding.part: finding.status for finding in verify(tmp_path / "back").findings}
    assert outputs["outputs"] == "passed"


@pytest.mark.torch
@pytest.mark.parametrize("positions", ["keep", "flax"])
@pytest.mark.parametrize("name", sorted(path.name for path in FLAX.iterdir() if path.is_dir()))
def test_golden_outputs_in_pytorch(tmp_path: Path, name: str, positions: Any) -> None:
    """PyTorch's with the bits kept, Flax's own with the positions moved: as transformers 4.57.6 and flax gave them."""
    import torch
    from transformers import VisionTextDualEncoderModel

    convert(FLAX / name, tmp_path / "pt", "pt", positions=positions, dtype="float32")
    model = VisionTextDualEncoderModel.from_pretrained(tmp_path / "pt").eval()
    golden = np.load(FLAX / name / "golden.npz")
    inputs = {key: torch.tensor(golden[key]) for key in ("input_ids", "attention_mask", "pixel_values")}
    with torch.no_grad():
        outputs = model(**inputs)
    prefix = "pt" if positions == "keep" else "flax"
    for part in ("logits_per_image", "image_embeds", "text_embeds"):
        difference = np.abs(golden[f"{prefix}_{part}"] - getattr(outputs, part).numpy()).max()
        assert difference < 3e-5, (part, difference)


@pytest.mark.tf
@pytest.mark.parametrize("positions", ["keep", "flax"])
@pytest.mark.parametrize("name", ["vit-roberta", "beit_both-xlm-roberta", "clip-bert"])
def test_golden_outputs_in_tensorflow(tmp_path: Path, name: str, positions: Any) -> None:
    from converter import TFVisionTextDualEncoderModel

    convert(FLAX / name, tmp_path / "tf", "tf", positions=positions)
    model = TFVisionTextDualEncoderModel.from_pretrained(tmp_path / "tf")
    golden = np.load(FLAX / name / "golden.npz")
    outputs = model(**{key: golden[key] for key in ("input_ids", "attention_mask", "pixel_values")})
    prefix = "pt" if positions == "keep" else "flax"
    for part in ("logits_per_image", "image_embeds", "text_embeds"):
        difference = np.abs(golden[f"{prefix}_{part}"] - np.asarray(getattr(outputs, part))).max()
        assert difference < 3e-5, (part, difference)

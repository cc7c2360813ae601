"""A source, or a checkpoint to verify, in OpenCLIP's layout: both sides run what it becomes in PyTorch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from converter import convert, verify
from converter.folder.files import write_json
from converter.parity.options import VerifyOptions
from tests.conversion.test_open_clip import source

# The weights of the source are of size 1, which rounding in float32 shows.
EXACT = VerifyOptions(float64=True, atol=1e-9)


@pytest.mark.torch
@pytest.mark.tf
@pytest.mark.parametrize(("out", "named"), [("tf", ""), ("open_clip", "src")])
def test_outputs(tmp_path: Path, caplog: pytest.LogCaptureFixture, out: str, named: str) -> None:
    source(tmp_path / "src")
    options = {"layout": "open_clip"} if out == "open_clip" else {}
    convert(tmp_path / "src", tmp_path / "out", "pt" if options else out, **options)
    assert any("no tokenizer lies beside the weights" in message for message in caplog.messages)
    caplog.clear()
    found = verify(tmp_path / "out", reference=tmp_path / named if named else None, options=EXACT)
    assert {finding.part: (finding.status, finding.problems) for finding in found.findings} == dict.fromkeys(
        ("files", "weights", "outputs", "samples"), ("passed", ())
    )
    assert caplog.messages == []  # the conversion has said what there is to know
    against = {finding.part: finding.against for finding in found.findings}
    assert against["weights"] == f"{tmp_path / 'src'}, bit for bit"
    stands = tmp_path / ("out" if options else "src")
    assert against["outputs"] == f"PyTorch on {stands}, converted to PyTorch"


def test_a_config_that_cannot_be_read_says_nothing_of_the_checkpoint(tmp_path: Path) -> None:
    source(tmp_path / "src")
    convert(tmp_path / "src", tmp_path / "out", "tf")
    write_json(tmp_path / "src" / "open_clip_config.json", {"model_cfg": {}})
    assert verify(tmp_path / "out", weights_only=True).findings[1].status == "not checked"


@pytest.mark.tf
def test_models_and_towers_are_loaded_from_it(tmp_path: Path) -> None:
    """As from the folder that it is converted to; a tower alone, too."""
    from converter import TFCLIPModel
    from converter.models import load_tower

    source(tmp_path / "src")
    convert(tmp_path / "src", tmp_path / "pt", "pt")
    for load in (
        TFCLIPModel.from_pretrained,
        lambda folder: load_tower(folder, "vision"),
        lambda folder: load_tower(folder, "text"),
    ):
        theirs, ours = load(tmp_path / "src"), load(tmp_path / "pt")
        assert len(theirs.weights) == len(ours.weights) > 20
        for one, other in zip(theirs.weights, ours.weights, strict=True):
            assert one.path.partition("/")[2] == other.path.partition("/")[2]
            np.testing.assert_array_equal(one.numpy(), other.numpy(), strict=True)

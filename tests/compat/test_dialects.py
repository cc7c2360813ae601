"""The names that transformers 5.x gives the same weights: read like 4.x's, and written as it writes them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from converter import pt2tf, tf2pt
from tests.compat.conftest import NOTHING, Peer, assert_same_outputs
from tests.compat.towers import VISION
from tests.contents import read_tensors

pytestmark = pytest.mark.compat


@pytest.mark.parametrize("vision", VISION)
def test_all_dialects_of_one_model_make_one_h5(
    vision: str, current: Peer, checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    nested = checkpoint(vision, "bert")
    current("save_fresh", source=nested, out=tmp_path / "fresh")
    sources = {name: tmp_path / "fresh" / name for name in ("flat", "live")} | {"nested": nested}
    written = {}
    for name, source in sources.items():
        pt2tf(source, tmp_path / name)
        written[name] = (tmp_path / name / "tf_model.h5").read_bytes()
    assert written["flat"] == written["nested"]
    assert written["live"] == written["nested"]


@pytest.mark.parametrize("vision", VISION)
def test_names_v5_are_those_of_a_fresh_save(
    vision: str,
    current: Peer,
    checkpoint: Callable[..., Path],
    inputs: Callable[..., Path],
    tmp_path: Path,
) -> None:
    nested = checkpoint(vision, "bert")
    given = inputs(nested)
    current("save_fresh", source=nested, out=tmp_path / "fresh")
    pt2tf(nested, tmp_path / "tf")
    tf2pt(tmp_path / "tf", tmp_path / "pt", names="v5")
    ours, theirs = tmp_path / "pt", tmp_path / "fresh" / "flat"
    assert read_tensors(ours / "model.safetensors") == read_tensors(theirs / "model.safetensors")
    loaded = current("run_pt", source=ours, inputs=given, out=tmp_path / "ours.npz")
    current("run_pt", source=nested, inputs=given, out=tmp_path / "nested.npz")
    assert {name: loaded[name] for name in NOTHING} == NOTHING
    assert_same_outputs(tmp_path / "ours.npz", tmp_path / "nested.npz", tolerance=0)

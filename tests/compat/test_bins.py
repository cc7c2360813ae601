"""`pytorch_model.bin`: what 4.57.6 saves is read, and what is written loads in both versions with nothing missing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from converter import pt2tf, tf2pt
from tests.compat.conftest import NOTHING, Peer, assert_same_outputs

pytestmark = pytest.mark.compat

PAIRS = [("clip_vision_model", "bert"), ("swin", "albert")]


@pytest.mark.parametrize("shard", [None, "60KB"])
@pytest.mark.parametrize(("vision", "text"), PAIRS, ids="+".join)
def test_bins_that_the_peer_saves_are_the_safetensors_that_it_saves(
    vision: str, text: str, shard: str | None, peer: Peer, checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    source = checkpoint(vision, text)
    saved = peer("save_bin", source=source, out=tmp_path / "bin", shard=shard)["files"]
    assert ("pytorch_model.bin" in saved) == (shard is None)
    assert ("pytorch_model.bin.index.json" in saved) == (shard is not None)
    for name, folder in (("safetensors", source), ("from bin", tmp_path / "bin")):
        pt2tf(folder, tmp_path / name)
    h5 = (tmp_path / "from bin" / "tf_model.h5").read_bytes()
    assert h5 == (tmp_path / "safetensors" / "tf_model.h5").read_bytes()


@pytest.mark.parametrize("options", [{}, {"max_shard_size": "60KB"}, {"names": "v5"}], ids=str)
@pytest.mark.parametrize(("vision", "text"), PAIRS, ids="+".join)
def test_bins_load_in_both_versions(
    vision: str,
    text: str,
    options: dict[str, Any],
    current: Peer,
    peer: Peer,
    checkpoint: Callable[..., Path],
    inputs: Callable[..., Path],
    tmp_path: Path,
) -> None:
    source = checkpoint(vision, text)
    given = inputs(source)
    pt2tf(source, tmp_path / "tf")
    tf2pt(tmp_path / "tf", tmp_path / "pt", format="bin", **options)
    for name, version in (("current", current), ("peer", peer)):
        if options.get("names") == "v5" and name == "peer":
            continue  # 4.x does not know those names
        version("run_pt", source=source, inputs=given, out=tmp_path / f"{name} source.npz")
        loaded = version("run_pt", source=tmp_path / "pt", inputs=given, out=tmp_path / f"{name}.npz")
        assert {key: loaded[key] for key in NOTHING} == NOTHING
        assert_same_outputs(tmp_path / f"{name}.npz", tmp_path / f"{name} source.npz", tolerance=0)

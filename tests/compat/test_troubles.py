"""What docs/troubleshooting.md says of transformers 4.57.6 and 5.x is so."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file

from converter import pt2tf, tf2pt
from tests.compat.conftest import Peer, PeerError
from tests.compat.towers import LOGIT_SCALE

pytestmark = pytest.mark.compat

Checkpoint = Callable[..., Path]


@pytest.fixture
def source(checkpoint: Checkpoint) -> Path:
    return checkpoint("clip_vision_model", "bert")


def test_4_loses_logit_scale_of_its_own_h5(
    source: Path, peer: Peer, peers_tf: Callable[[Path], Path], inputs: Checkpoint, tmp_path: Path
) -> None:
    h5 = peers_tf(source) / "h5"
    loaded = peer("run_tf", source=h5, inputs=inputs(source), out=tmp_path / "tf.npz")
    assert loaded["missing_keys"] == []
    assert loaded["logit_scale"] == [pytest.approx(2.6592)]
    tf2pt(h5, tmp_path / "pt")
    assert load_file(tmp_path / "pt" / "model.safetensors")["logit_scale"] == pytest.approx(LOGIT_SCALE)


def test_from_tf_loads_nothing(source: Path, peer: Peer, current: Peer, tmp_path: Path) -> None:
    pt2tf(source, tmp_path / "tf")
    tensors = len(load_file(source / "model.safetensors"))
    loaded = peer("from_tf", source=tmp_path / "tf")
    assert (loaded["parameters"], loaded["on_meta"]) == (tensors, tensors)
    with pytest.raises(PeerError, match=r"no file named model\.safetensors, or pytorch_model\.bin"):
        current("from_tf", source=tmp_path / "tf")


def test_4_loses_the_clip_tower_of_a_flat_file(
    source: Path, peer: Peer, current: Peer, inputs: Checkpoint, tmp_path: Path
) -> None:
    current("save_fresh", source=source, out=tmp_path / "fresh")
    run = {"source": tmp_path / "fresh" / "flat", "inputs": inputs(source), "out": tmp_path / "out.npz"}
    tower = sum(name.startswith("vision_model.") for name in load_file(source / "model.safetensors"))
    assert len(peer("run_pt", **run)["missing_keys"]) == tower
    assert current("run_pt", **run)["missing_keys"] == []


def test_5_loads_tensorflows_safetensors_as_nothing(
    source: Path, current: Peer, inputs: Checkpoint, tmp_path: Path
) -> None:
    pt2tf(source, tmp_path / "tf", format="safetensors")
    loaded = current("run_pt", source=tmp_path / "tf", inputs=inputs(source), out=tmp_path / "out.npz")
    assert len(loaded["missing_keys"]) == len(load_file(source / "model.safetensors"))


def test_4_fails_on_safetensors_beside_an_h5(source: Path, peer: Peer, inputs: Checkpoint, tmp_path: Path) -> None:
    shutil.copytree(source, tmp_path / "both")
    pt2tf(source, tmp_path / "tf")
    shutil.copy(tmp_path / "tf" / "tf_model.h5", tmp_path / "both")
    for folder in (source, tmp_path / "both"):
        with pytest.raises(PeerError, match="'builtins.safe_open' object is not iterable"):
            peer("run_tf", source=folder, inputs=inputs(source), out=tmp_path / "out.npz")


def test_5_refuses_the_shape_of_tensorflows_logit_scale(
    source: Path, current: Peer, inputs: Checkpoint, tmp_path: Path
) -> None:
    shutil.copytree(source, tmp_path / "wrong")
    tensors = load_file(source / "model.safetensors")
    tensors["logit_scale"] = tensors["logit_scale"].reshape(1)
    save_file(tensors, tmp_path / "wrong" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(PeerError, match="You set `ignore_mismatched_sizes` to `False`"):
        current("run_pt", source=tmp_path / "wrong", inputs=inputs(source), out=tmp_path / "out.npz")
    assert json.loads((source / "config.json").read_text())["model_type"] == "vision-text-dual-encoder"

"""The judgments of these tests can fail: what is wrong on purpose is found."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from converter import pt2tf, tf2pt
from tests.compat.conftest import NOTHING, Peer, assert_same_outputs

pytestmark = pytest.mark.compat

ATTENTION = "text_model/tf_vision_text_dual_encoder_model/text_model/bert/encoder/layer_._0/attention/self"


@pytest.fixture
def converted(checkpoint: Callable[..., Path], tmp_path: Path) -> Path:
    """A CLIP + BERT checkpoint as we write it for TensorFlow."""
    pt2tf(checkpoint("clip_vision_model", "bert"), tmp_path / "tf")
    return tmp_path / "tf"


def test_swapped_query_and_value_give_other_outputs(
    converted: Path, peer: Peer, checkpoint: Callable[..., Path], inputs: Callable[..., Path], tmp_path: Path
) -> None:
    given = inputs(converted)
    with h5py.File(converted / "tf_model.h5", "r+") as file:
        query, value = file[f"{ATTENTION}/query/kernel:0"][()], file[f"{ATTENTION}/value/kernel:0"][()]
        file[f"{ATTENTION}/query/kernel:0"][...] = value
        file[f"{ATTENTION}/value/kernel:0"][...] = query
    loaded = peer("run_tf", source=converted, inputs=given, out=tmp_path / "tf.npz")
    assert {name: loaded[name] for name in NOTHING} == NOTHING
    source = checkpoint("clip_vision_model", "bert")
    peer("run_pt", source=source, inputs=given, out=tmp_path / "pt.npz")
    with pytest.raises(AssertionError, match="apart at a scale of"):
        assert_same_outputs(tmp_path / "tf.npz", tmp_path / "pt.npz")


def test_a_nan_is_not_within_any_tolerance(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.array([1.0, np.nan]))
    np.savez(tmp_path / "b.npz", x=np.array([1.0, 2.0]))
    with pytest.raises(AssertionError, match="x: nan apart"):
        assert_same_outputs(tmp_path / "a.npz", tmp_path / "b.npz")
    with pytest.raises(AssertionError, match="x: nan apart"):
        assert_same_outputs(tmp_path / "b.npz", tmp_path / "a.npz")


def test_a_lost_tensor_is_reported_by_the_peer(
    converted: Path, peer: Peer, inputs: Callable[..., Path], tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(converted, broken)
    with h5py.File(broken / "tf_model.h5", "r+") as file:
        names = [name for name in file["text_model"].attrs["weight_names"] if b"pooler" not in as_bytes(name)]
        file["text_model"].attrs["weight_names"] = [as_bytes(name) for name in names]
    loaded = peer("run_tf", source=broken, inputs=inputs(broken), out=tmp_path / "tf.npz")
    assert [name.rsplit("/", 3)[-3:] for name in loaded["missing_keys"]] == [
        ["pooler", "dense", "bias:0"],
        ["pooler", "dense", "kernel:0"],
    ]


def test_a_tensor_lost_from_tensorflow_safetensors_is_reported(
    checkpoint: Callable[..., Path], peer: Peer, inputs: Callable[..., Path], tmp_path: Path
) -> None:
    pt2tf(checkpoint("vit", "bert"), tmp_path / "tf", format="safetensors")
    lose(tmp_path / "tf" / "model.safetensors", "visual_projection/kernel:0", "tf")
    loaded = peer("run_tf", source=tmp_path / "tf", inputs=inputs(tmp_path / "tf"), out=tmp_path / "tf.npz")
    assert loaded["missing_keys"] == ["visual_projection/kernel:0"]


def test_a_tensor_lost_from_safetensors_is_reported_by_every_version(
    converted: Path, oldest: Peer, peer: Peer, current: Peer, inputs: Callable[..., Path], tmp_path: Path
) -> None:
    tf2pt(converted, tmp_path / "pt")
    lose(tmp_path / "pt" / "model.safetensors", "visual_projection.weight", "pt")
    for version in (oldest, peer, current):
        loaded = version("run_pt", source=tmp_path / "pt", inputs=inputs(converted), out=tmp_path / "pt.npz")
        assert loaded["missing_keys"] == ["visual_projection.weight"]


def test_the_peer_takes_logit_scale_from_the_config(
    converted: Path, peer: Peer, inputs: Callable[..., Path], tmp_path: Path
) -> None:
    """Why pt2tf writes the trained value there: 4.57.6 does not read it from tf_model.h5, and does not say so."""
    config = (converted / "config.json").read_text(encoding="utf-8")
    assert "3.30999994" in config
    (converted / "config.json").write_text(config.replace("3.30999994", "1.30999994"), encoding="utf-8")
    loaded = peer("run_tf", source=converted, inputs=inputs(converted), out=tmp_path / "tf.npz")
    assert loaded["missing_keys"] == []
    assert loaded["logit_scale"][0] == pytest.approx(1.31)


def lose(path: Path, name: str, framework: str) -> None:
    """Takes one tensor out of a safetensors file."""
    tensors = load_file(path)
    del tensors[name]
    save_file(tensors, path, metadata={"format": framework})


def as_bytes(name: str | bytes) -> bytes:
    """An attribute's text, whichever of HDF5's string types it has."""
    return name if isinstance(name, bytes) else name.encode()

"""Every way to keep TensorFlow weights in files: ours in transformers 4.57.6, and its own with us."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from converter import pt2tf, tf2pt
from converter.errors import UnsupportedContainer
from tests.compat.conftest import NOTHING, PAIRS, SHARD, SOME_PAIRS, Peer, assert_same_outputs
from tests.compat.towers import LOGIT_SCALE
from tests.contents import read_tensors

pytestmark = pytest.mark.compat

Checkpoint = Callable[..., Path]
PeersTf = Callable[[Path], Path]
OPTIONS: dict[str, dict[str, Any]] = {
    "h5-shards": {"max_shard_size": SHARD},
    "safetensors": {"format": "safetensors"},
    "safetensors-shards": {"format": "safetensors", "max_shard_size": SHARD},
}
WAYS = ("h5", *OPTIONS)
Contents = dict[str, tuple[str, tuple[int, ...], bytes]]


@pytest.mark.parametrize(("vision", "text"), SOME_PAIRS)
def test_what_we_write_loads_in_the_peer_and_answers_as_pytorch(
    vision: str, text: str, peer: Peer, checkpoint: Checkpoint, inputs: Checkpoint, tmp_path: Path
) -> None:
    source = checkpoint(vision, text)
    given = inputs(source)
    peer("run_pt", source=source, inputs=given, out=tmp_path / "pt.npz")
    for way, options in OPTIONS.items():
        pt2tf(source, tmp_path / way, **options)
        loaded = peer("run_tf", source=tmp_path / way, inputs=given, out=tmp_path / f"{way}.npz")
        assert loaded == NOTHING | {"logit_scale": [float(np.float32(LOGIT_SCALE))]}, way
        assert_same_outputs(tmp_path / f"{way}.npz", tmp_path / "pt.npz")


@pytest.mark.parametrize(("vision", "text"), PAIRS)
def test_what_we_write_is_what_the_peer_writes(
    vision: str, text: str, checkpoint: Checkpoint, peers_tf: PeersTf, tmp_path: Path
) -> None:
    source = checkpoint(vision, text)
    for way, options in OPTIONS.items():
        pt2tf(source, tmp_path / way, **options)
        assert contents(tmp_path / way) == contents(peers_tf(source) / way), way


@pytest.mark.parametrize(("vision", "text"), PAIRS)
def test_what_the_peer_writes_comes_back_bit_for_bit(
    vision: str, text: str, checkpoint: Checkpoint, peers_tf: PeersTf, tmp_path: Path
) -> None:
    source = checkpoint(vision, text)
    for way in WAYS:
        tf2pt(peers_tf(source) / way, tmp_path / way)
        assert read_tensors(tmp_path / way / "model.safetensors") == read_tensors(source / "model.safetensors"), way


@pytest.mark.parametrize(("vision", "text"), PAIRS)
def test_weights_that_keras_saved_come_back_bit_for_bit(
    vision: str, text: str, checkpoint: Checkpoint, peers_tf: PeersTf, tmp_path: Path
) -> None:
    source = checkpoint(vision, text)
    tf2pt(peers_tf(source) / "weights.h5", tmp_path / "pt", config=source / "config.json")
    assert read_tensors(tmp_path / "pt" / "model.safetensors") == read_tensors(source / "model.safetensors")


def test_weights_without_names_are_refused(checkpoint: Checkpoint, peers_tf: PeersTf, tmp_path: Path) -> None:
    """Keras 2.12 and later decide by the name: what ends with .weights.h5 holds numbers instead of names."""
    source = checkpoint("vit", "bert")
    with pytest.raises(UnsupportedContainer, match=r"keras\.weights\.h5: weights in Keras' \.weights\.h5 format"):
        tf2pt(peers_tf(source) / "keras.weights.h5", tmp_path / "pt", config=source / "config.json")
    assert not (tmp_path / "pt").exists()


def contents(folder: Path) -> Contents:
    """Every tensor of a TensorFlow checkpoint by its name without root scope, wherever the shards are cut."""
    is_sharded = folder.name.endswith("-shards")
    found: Contents = {}
    paths = [path for path in folder.iterdir() if path.suffix in (".h5", ".safetensors")]
    assert len(paths) > 1 if is_sharded else len(paths) == 1
    for path in paths:
        held = read_tensors(path) if path.suffix == ".safetensors" else flat_h5(path)
        assert not found.keys() & held.keys()
        found |= held
    return found


def flat_h5(path: Path) -> Contents:
    """The datasets that a shard lists, which are all that it holds."""
    with h5py.File(path) as file:
        names = [name.decode() if isinstance(name, bytes) else name for name in file.attrs["layer_names"]]
        datasets: list[str] = []
        file.visititems(lambda name, item: datasets.append(name) if isinstance(item, h5py.Dataset) else None)
        assert sorted(datasets) == sorted(names)
        return {name: (str(file[name].dtype), file[name].shape, file[name][()].tobytes()) for name in names}

"""The 44 pairs that transformers 4.57.6 has in TensorFlow, there and back, judged by transformers on both sides."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from converter import pt2tf, tf2pt
from tests.compat.conftest import NOTHING, PAIRS, Peer, assert_same_outputs
from tests.compat.towers import LOGIT_SCALE
from tests.contents import read_h5, read_tensors

pytestmark = pytest.mark.compat

Checkpoint = Callable[..., Path]


@pytest.mark.parametrize(("vision", "text"), PAIRS)
def test_our_h5_loads_in_the_peer_and_answers_as_pytorch(
    vision: str, text: str, peer: Peer, checkpoint: Checkpoint, inputs: Checkpoint, tmp_path: Path
) -> None:
    source = checkpoint(vision, text)
    given = inputs(source)
    pt2tf(source, tmp_path / "tf")
    loaded = peer("run_tf", source=tmp_path / "tf", inputs=given, out=tmp_path / "tf.npz")
    assert loaded == NOTHING | {"logit_scale": [float(np.float32(LOGIT_SCALE))]}
    peer("run_pt", source=source, inputs=given, out=tmp_path / "pt.npz")
    assert_same_outputs(tmp_path / "tf.npz", tmp_path / "pt.npz")


@pytest.mark.parametrize(("vision", "text"), PAIRS)
def test_there_and_back_is_bit_identical(vision: str, text: str, checkpoint: Checkpoint, tmp_path: Path) -> None:
    source = checkpoint(vision, text)
    pt2tf(source, tmp_path / "tf")
    tf2pt(tmp_path / "tf", tmp_path / "pt")
    assert read_tensors(tmp_path / "pt" / "model.safetensors") == read_tensors(source / "model.safetensors")


@pytest.mark.parametrize(("vision", "text"), PAIRS)
def test_our_h5_is_the_peers_h5(
    vision: str, text: str, checkpoint: Checkpoint, peers_tf: Callable[[Path], Path], tmp_path: Path
) -> None:
    source = checkpoint(vision, text)
    pt2tf(source, tmp_path / "ours")
    assert read_h5(tmp_path / "ours" / "tf_model.h5") == read_h5(peers_tf(source) / "h5" / "tf_model.h5")

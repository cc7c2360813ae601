"""Configs off the beaten track that transformers 4.57.6 can convert: judged as the plain pairs are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converter import pt2tf, tf2pt
from tests.compat.conftest import NOTHING, Peer, assert_same_outputs
from tests.compat.towers import LOGIT_SCALE
from tests.contents import read_h5, read_tensors

pytestmark = pytest.mark.compat

Checkpoint = Callable[..., Path]
CASES: dict[str, tuple[str, str, dict[str, Any], dict[str, Any]]] = {
    # TensorFlow has query, key and value biases there all the same, of zeros; PyTorch has none.
    "vit without qkv bias": ("vit", "bert", {"qkv_bias": False}, {}),
    "deit without qkv bias": ("deit", "bert", {"qkv_bias": False}, {}),
    "swin without qkv bias": ("swin", "bert", {"qkv_bias": False}, {}),
    "swin of three stages": ("swin", "bert", {"depths": [1, 2, 1], "num_heads": [2, 3, 4], "mlp_ratio": 2.5}, {}),
    "swin of one stage": ("swin", "bert", {"depths": [3], "num_heads": [2]}, {}),
    "one channel": ("vit", "bert", {"num_channels": 1}, {}),
    "four channels": ("clip_vision_model", "bert", {"num_channels": 4}, {}),
    "albert of two groups of two": (
        "vit",
        "albert",
        {},
        {"num_hidden_groups": 2, "inner_group_num": 2, "num_hidden_layers": 4},
    ),
    "albert of two groups in three layers": (
        "vit",
        "albert",
        {},
        {"num_hidden_groups": 2, "inner_group_num": 1, "num_hidden_layers": 3},
    ),
    "twelve layers": ("clip_vision_model", "roberta", {"num_hidden_layers": 12}, {"num_hidden_layers": 11}),
    "one token type": ("vit", "bert", {}, {"type_vocab_size": 1}),
    "two token types": ("vit", "roberta", {}, {"type_vocab_size": 2}),
    "relu": ("clip_vision_model", "bert", {"hidden_act": "relu"}, {"hidden_act": "gelu_new"}),
    "longformer with a window for each layer": ("vit", "longformer", {}, {"attention_window": [8, 4]}),
    "mobilebert without what makes it mobile": (
        "vit",
        "mobilebert",
        {},
        {
            "trigram_input": False,
            "classifier_activation": False,
            "num_feedforward_networks": 1,
            "use_bottleneck_attention": True,
            "key_query_shared_bottleneck": False,
        },
    ),
    "a wide epsilon": ("vit", "xlm-roberta", {"layer_norm_eps": 1e-3}, {"layer_norm_eps": 1e-2}),
}


@pytest.fixture(params=CASES)
def source(request: pytest.FixtureRequest, checkpoint: Checkpoint) -> Path:
    """A checkpoint of one of the odd configs."""
    vision, text, vision_options, text_options = CASES[request.param]
    return checkpoint(vision, text, vision_options=vision_options, text_options=text_options)


def test_our_h5_is_the_peers_and_answers_as_pytorch(
    source: Path, peer: Peer, peers_tf: Callable[[Path], Path], inputs: Checkpoint, tmp_path: Path
) -> None:
    given = inputs(source)
    pt2tf(source, tmp_path / "ours")
    assert read_h5(tmp_path / "ours" / "tf_model.h5") == read_h5(peers_tf(source) / "h5" / "tf_model.h5")
    loaded = peer("run_tf", source=tmp_path / "ours", inputs=given, out=tmp_path / "tf.npz")
    assert loaded == NOTHING | {"logit_scale": [float(np.float32(LOGIT_SCALE))]}
    peer("run_pt", source=source, inputs=given, out=tmp_path / "pt.npz")
    assert_same_outputs(tmp_path / "tf.npz", tmp_path / "pt.npz")


def test_the_peers_h5_comes_back_bit_for_bit(
    source: Path, peer: Peer, current: Peer, peers_tf: Callable[[Path], Path], inputs: Checkpoint, tmp_path: Path
) -> None:
    tf2pt(peers_tf(source) / "h5", tmp_path / "pt")
    assert read_tensors(tmp_path / "pt" / "model.safetensors") == read_tensors(source / "model.safetensors")
    given = inputs(source)
    for version in (peer, current):
        loaded = version("run_pt", source=tmp_path / "pt", inputs=given, out=tmp_path / "out.npz")
        assert loaded == NOTHING | {"logit_scale": [float(np.float32(LOGIT_SCALE))]}

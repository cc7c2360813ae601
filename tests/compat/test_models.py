"""Our Keras model and transformers 4.57.6 on each other's files: the same outputs, and PyTorch's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.compat.conftest import NOTHING, Peer, assert_same_outputs
from tests.compat.towers import LOGIT_SCALE

pytestmark = [pytest.mark.compat, pytest.mark.tf]

Checkpoint = Callable[..., Path]
OUTPUTS = ("logits_per_image", "logits_per_text", "image_embeds", "text_embeds")
# Every tower of the peer once.
PAIRS = [
    ("clip_vision_model", "bert"),
    ("vit", "roberta"),
    ("deit", "xlm-roberta"),
    ("swin", "camembert"),
    ("vit", "albert"),
]


@pytest.mark.parametrize(("vision", "text"), PAIRS)
def test_each_reads_what_the_other_saved(
    vision: str,
    text: str,
    peer: Peer,
    checkpoint: Checkpoint,
    peers_tf: Callable[[Path], Path],
    inputs: Checkpoint,
    tmp_path: Path,
) -> None:
    from converter.models import TFVisionTextDualEncoderModel

    source = checkpoint(vision, text)
    given = inputs(source)
    peer("run_pt", source=source, inputs=given, out=tmp_path / "pt.npz")

    model = TFVisionTextDualEncoderModel.from_pretrained(peers_tf(source) / "h5")
    with np.load(given) as arrays:
        outputs = model(**dict(arrays))
    np.savez(tmp_path / "ours.npz", **{name: np.asarray(outputs[name]) for name in OUTPUTS})
    assert_same_outputs(tmp_path / "ours.npz", tmp_path / "pt.npz")

    model.save_pretrained(tmp_path / "ours")
    loaded = peer("run_tf", source=tmp_path / "ours", inputs=given, out=tmp_path / "tf.npz")
    assert loaded == NOTHING | {"logit_scale": [float(np.float32(LOGIT_SCALE))]}
    assert_same_outputs(tmp_path / "tf.npz", tmp_path / "ours.npz")

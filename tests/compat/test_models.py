"""Our Keras model and transformers 4.57.6 on each other's files: the same outputs, and PyTorch's."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.compat.conftest import NOTHING, SOME_PAIRS, Peer, assert_same_outputs
from tests.compat.towers import LOGIT_SCALE

pytestmark = [pytest.mark.compat, pytest.mark.tf]

Checkpoint = Callable[..., Path]
OUTPUTS = ("logits_per_image", "logits_per_text", "image_embeds", "text_embeds")


@pytest.mark.parametrize(("vision", "text"), SOME_PAIRS)
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


CLIP_PROGRAM = """
import inspect, json, sys
import numpy as np
from transformers import TFCLIPModel
pt, ours, theirs, given, found = sys.argv[1:]
inputs = dict(np.load(given))
answers = {}
for name, (folder, options) in {"converted": (pt, {"from_pt": True}), "read": (ours, {})}.items():
    model, info = TFCLIPModel.from_pretrained(folder, output_loading_info=True, **options)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"], info
    output = model(inputs, return_loss=True, output_hidden_states=True, output_attentions=True)
    answers[name] = {key: np.asarray(output[key]) for key in output if "_model_output" not in key}
    answers[name] |= {"text_states": np.asarray(output.text_model_output.hidden_states)}
    answers[name] |= {"image_states": np.asarray(output.vision_model_output.hidden_states)}
    if name == "converted":
        model.save_pretrained(theirs + "/h5")
        model.save_pretrained(theirs + "/safetensors", safe_serialization=True)
np.savez(found, **{f"{name}.{key}": value for name, values in answers.items() for key, value in values.items()})
calls = {name: list(inspect.signature(getattr(TFCLIPModel, name)).parameters) for name in
         ("call", "get_text_features", "get_image_features")}
print(json.dumps({"calls": calls, "fields": list(output)}))
"""


def test_clip_and_the_peer_read_what_the_other_saved(tmp_path: Path) -> None:
    """And our class has the peer's arguments, the fields of its output and what they hold."""
    from converter.models import TFCLIPModel, named_variables

    towers = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 30}
    config = TFCLIPModel.config_class(
        vision_config={**towers, "hidden_size": 28, "image_size": 22, "patch_size": 4},
        text_config={**towers, "vocab_size": 50, "eos_token_id": 49, "bos_token_id": 3, "max_position_embeddings": 20},
        projection_dim=13,
    )
    rng = np.random.default_rng(3)
    model = TFCLIPModel(config)
    model.build()
    for name, variable in named_variables(model).items():
        noise = rng.normal(size=tuple(variable.shape)).astype(np.float32)
        variable.assign(np.array([2.1]) if name.endswith("logit_scale") else 0.2 * noise + name.endswith("gamma"))
    ids = rng.integers(4, 48, (3, 7))
    ids[:, -1] = 49
    inputs = {
        "input_ids": ids,
        "attention_mask": np.ones_like(ids),
        "pixel_values": rng.normal(size=(3, 3, 22, 22)).astype(np.float32),
    }
    np.savez(tmp_path / "inputs.npz", **inputs)
    model.save_pretrained(tmp_path / "pt", framework="pt")
    model.save_pretrained(tmp_path / "ours")
    places = [tmp_path / name for name in ("pt", "ours", "theirs", "inputs.npz", "found.npz")]
    command = [os.environ["COMPAT_PYTHON"], "-c", CLIP_PROGRAM, *map(str, places)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    said = json.loads(done.stdout.splitlines()[-1])

    output = model(inputs, return_loss=True, output_hidden_states=True, output_attentions=True)
    assert list(output) == said["fields"]
    for name, parameters in said["calls"].items():
        assert list(inspect.signature(getattr(TFCLIPModel, name)).parameters) == parameters, name
    wanted = {name: np.asarray(output[name]) for name in output if "_model_output" not in name}
    wanted["text_states"] = np.asarray(output.text_model_output.hidden_states)
    wanted["image_states"] = np.asarray(output.vision_model_output.hidden_states)
    with np.load(tmp_path / "found.npz") as found:
        assert sorted(found) == sorted(f"{kind}.{name}" for kind in ("converted", "read") for name in wanted)
        for name, value in found.items():
            np.testing.assert_allclose(value, wanted[name.split(".")[1]], rtol=0, atol=1e-5, err_msg=name)
    for container in ("h5", "safetensors"):
        again = named_variables(TFCLIPModel.from_pretrained(tmp_path / "theirs" / container))
        for name, variable in named_variables(model).items():
            np.testing.assert_array_equal(again[name], variable, err_msg=name)

"""`export` gives a SavedModel that needs neither this package nor Keras."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from converter.errors import ModelError
from converter.exporting.targets import TARGETS
from converter.models import AutoTwoTower
from tests.models import reference
from tests.models.conftest import Case, make_case
from tests.models.families import Kind, config_of

pytestmark = [pytest.mark.torch, pytest.mark.tf]

if keras.backend.backend() != "tensorflow":
    pytest.skip("about TensorFlow's graphs", allow_module_level=True)

# Another process, in another folder, where importing Keras or this package fails.
PROGRAM = """
import sys
sys.modules.update(dict.fromkeys(("keras", "tf_keras", "converter", "transformers", "torch")))
import numpy as np, tensorflow as tf
loaded = tf.saved_model.load("saved")
print(*sorted(loaded.signatures))
for number in sys.argv[1:]:
    given = {name: tf.constant(value) for name, value in np.load(f"inputs-{number}.npz").items()}
    found = {}
    for name in ("similarity", "encode_image", "encode_text"):
        call = loaded.signatures[name]
        takes = call.structured_input_signature[1]
        found |= {f"{name}.{key}": value.numpy() for key, value in call(**{key: given[key] for key in takes}).items()}
    np.savez(f"found-{number}.npz", **found)
"""
FOUND = [
    "encode_image.image_embeds", "encode_text.text_embeds", "similarity.image_embeds",
    "similarity.logits_per_image", "similarity.logits_per_text", "similarity.text_embeds",
]  # fmt: skip


# No tower is trivial: CLIP has a flat table of positions, RoBERTa counts after padding, images of SigLIP 2 are three inputs.
@pytest.mark.parametrize(
    "name", ["clip_vision_model+roberta", "siglip2", pytest.param("clip", marks=pytest.mark.torture)]
)
def test_a_process_without_us_gives_the_same(name: str, tmp_path: Path) -> None:
    case = make_case(config_of(name))
    case.keras.export(tmp_path / "saved")
    batches = [reference.make_inputs(case.config, *shape) for shape in ((3, 4, 9), (2, 1, 5))]
    for number, inputs in enumerate(batches):
        np.savez(tmp_path / f"inputs-{number}.npz", **inputs)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-c", PROGRAM, *map(str, range(len(batches)))]
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-3000:]
    assert run.stdout.split() == ["encode_image", "encode_text", "serving_default", "similarity"]
    served = (*case.keras.serving_fields, *case.keras.vision_model.served)  # of SigLIP's texts no mask
    for number, inputs in enumerate(batches):
        wanted = case.keras({name: value for name, value in inputs.items() if name in served})
        with np.load(tmp_path / f"found-{number}.npz") as found:
            assert sorted(found) == FOUND
            for key, value in found.items():
                np.testing.assert_allclose(value, wanted[key.partition(".")[2]], atol=1e-5, rtol=0, err_msg=key)


def test_another_format_is_refused(one: Case, tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        one.keras.export(tmp_path / "out", format="torch")
    assert str(caught.value) == (
        f"export cannot write 'torch'; expected {' or '.join(map(repr, TARGETS))} or 'tf_saved_model'. "
        "Leave format= out to get a SavedModel."
    )
    assert not (tmp_path / "out").exists()


def test_signatures_are_not_for_choosing(one: Case, tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        one.keras.export(tmp_path / "out", input_signature=[])
    assert str(caught.value) == (
        "export has no input_signature: its signatures are similarity, encode_image and encode_text. "
        "Leave it out, or use keras.export.ExportArchive for signatures of your own."
    )


def test_another_backend_is_refused(kind: Kind, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    model = AutoTwoTower.from_config(kind.make())
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(ModelError) as caught:
        model.export(tmp_path / "out")
    assert str(caught.value) == (
        "export writes a SavedModel with TensorFlow; the Keras backend is jax. "
        "Save with save_pretrained, and export in a process with KERAS_BACKEND=tensorflow."
    )

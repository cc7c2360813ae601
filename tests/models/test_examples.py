"""The examples that run a model: they end, and what they make is right."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from converter.models import TFVisionTextDualEncoderModel, named_variables
from tests.docs.pages import ROOT

pytestmark = [pytest.mark.torch, pytest.mark.tf]

if keras.backend.backend() != "tensorflow":
    pytest.skip("run once, on TensorFlow", allow_module_level=True)

PICTURES = sorted((ROOT / "fixtures" / "pictures").glob("*.png"))
# As if neither were installed.
WITHOUT_TORCH = """
import json, runpy, sys
sys.modules.update(torch=None, torchvision=None)
for path, sys.argv[1:] in json.loads(sys.argv[1]):
    runpy.run_path(path, run_name="__main__")
assert sys.modules["torch"] is None
"""


def example(name: str) -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "examples" / name))


def test_fine_tuning_ends_with_an_equal_pytorch_model(tiny: Path, tmp_path: Path) -> None:
    found = example("fine_tune.py")["fine_tune"](str(tiny), str(tmp_path / "out"), epochs=3)
    losses = found["losses"]
    assert len(losses) == 3
    assert np.isfinite(losses).all()
    assert losses[-1] < 0.8 * losses[0]
    assert found["moved"] == []
    assert found["equal"] is True
    before, after = (
        named_variables(TFVisionTextDualEncoderModel.from_pretrained(folder)) for folder in (tiny, tmp_path / "out/pt")
    )
    same = {
        name for name in before if np.asarray(before[name].value).tobytes() == np.asarray(after[name].value).tobytes()
    }
    assert {name for name in before if name.startswith("vision_model/")} <= same
    assert not any(name.endswith("kernel") for name in same if not name.startswith("vision_model/"))


def test_what_moved_is_seen(tiny: Path) -> None:
    tuning = example("fine_tune.py")
    model = TFVisionTextDualEncoderModel.from_pretrained(tiny)
    was = tuning["weights"](model.vision_model)
    name, variable = next(iter(named_variables(model.vision_model).items()))
    variable.assign(np.nextafter(np.asarray(variable.value), np.float32(9)))
    now = tuning["weights"](model.vision_model)
    assert [n for n in was if was[n].tobytes() != now[n].tobytes()] == [name]


def test_zero_shot_and_embeddings_without_torch(tiny: Path, tmp_path: Path) -> None:
    captions = ["un cerchio rosso su sfondo blu", "una croce verde in un quadrato giallo"]
    runs = [
        (str(ROOT / "examples" / "zero_shot.py"), [str(tiny), str(PICTURES[1]), *captions]),
        (str(ROOT / "examples" / "embed_pictures.py"), [str(tiny), str(tmp_path / "out.npz"), *map(str, PICTURES)]),
    ]
    run = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, json.dumps(runs)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    *scores, last = run.stdout.splitlines()
    parts = [line.split("%") for line in scores]
    assert [rest.strip() for _, rest in parts] == [f"{caption}  (croce.png)" for caption in captions]
    assert abs(sum(float(percent) for percent, _ in parts) - 100) < 0.2
    assert last == f"{tmp_path / 'out.npz'}: 3 pictures, 28 numbers each"


def test_batches_do_not_change_an_embedding(tiny: Path) -> None:
    embed = example("embed_pictures.py")["embed"]
    names = list(map(str, PICTURES))
    together, apart = embed(str(tiny), names), embed(str(tiny), names, batch=2)
    assert together.shape == (3, 28)
    np.testing.assert_allclose(np.linalg.norm(together, axis=-1), 1, atol=1e-6)
    np.testing.assert_allclose(apart, together, atol=1e-6)
    assert np.abs(together - together[::-1]).max() > 1e-3

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


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def example(name: str) -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "examples" / name))


@pytest.mark.parametrize("name", sorted(path.name for path in (ROOT / "examples").glob("*.py")))
def test_without_arguments_an_example_says_how_it_is_called(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [name])
    with pytest.raises(SystemExit) as caught:
        runpy.run_path(str(ROOT / "examples" / name), run_name="__main__")
    said = capsys.readouterr().err + (caught.value.code if isinstance(caught.value.code, str) else "")
    assert caught.value.code not in (0, None)
    assert f"usage: {name}" in said or f"python examples/{name} " in said


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("zero_shot.py", ["none", "none.png", "un gatto"]),
        ("name_pictures.py", ["none", "none"]),
        ("embed_pictures.py", ["none", "none.npz", "none.png"]),
        ("from_memory.py", ["none", "out"]),
        ("fine_tune.py", ["none", "out"]),
    ],
)
def test_an_example_ends_with_one_line_where_a_folder_is_missing(
    name: str,
    arguments: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    with pytest.raises(SystemExit) as caught:
        runpy.run_path(str(ROOT / "examples" / name), run_name="__main__")
    assert caught.value.code == 1
    assert capsys.readouterr().err.startswith(f"{name}: ")
    assert list(tmp_path.iterdir()) == []


def test_the_demos_model_names_every_picture(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In TensorFlow, from its PyTorch file; and a caption that is not a picture's is found out."""
    pictures = ROOT / "fixtures" / "forme-italiane-pictures"
    monkeypatch.setattr(sys, "argv", ["name_pictures.py", str(pictures.parent / "forme-italiane"), str(pictures)])
    with pytest.raises(SystemExit) as caught:
        runpy.run_path(str(ROOT / "examples" / "name_pictures.py"), run_name="__main__")
    said = capsys.readouterr().out
    assert (caught.value.code, said.splitlines()[-1]) == (False, "12 of 12 pictures named right")
    assert "WRONG" not in said


def test_fine_tuning_ends_with_an_equal_pytorch_model(tiny: Path, tmp_path: Path) -> None:
    found = example("fine_tune.py")["fine_tune"](str(tiny), str(tmp_path / "out"), epochs=3)
    losses = found["losses"]
    assert len(losses) == 3
    assert np.isfinite(losses).all()
    assert losses[-1] < 0.8 * losses[0]
    assert found["moved"] == []
    assert found["equal"] is True
    for made in ("tf", "pt"):
        assert {"config.json", "tokenizer.json", "tokenizer_config.json"} <= names_in(tmp_path / "out" / made)
        assert {"preprocessor_config.json", "processor_config.json"} & names_in(tmp_path / "out" / made)
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

"""The TensorFlow model from the Hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.tf

from converter import TFVisionTextDualEncoderModel  # noqa: E402
from converter.errors import ModelError  # noqa: E402
from converter.models import load_tower, named_variables  # noqa: E402
from tests.hub.conftest import ID, fetched  # noqa: E402
from tests.hub.loopback import TOKEN, USER, Hub  # noqa: E402
from tests.tiny import FIXTURE  # noqa: E402


def values(model: Any) -> dict[str, Any]:
    return {name: np.asarray(variable.value) for name, variable in named_variables(model).items()}


def test_from_pretrained(hub: Hub, published: str) -> None:
    commit = hub.repositories[ID].refs["main"]
    hub.repositories[ID].commit({"config.json": b"{}"})
    ours = values(TFVisionTextDualEncoderModel.from_pretrained(ID, revision=commit, from_pt=True))
    theirs = values(TFVisionTextDualEncoderModel.from_pretrained(FIXTURE))
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        np.testing.assert_array_equal(ours[name], value, err_msg=name)
    assert "tf_model.h5" not in fetched(hub)


def test_towers(hub: Hub, published: str) -> None:
    tower = load_tower(ID, "text", revision="main")
    for name, value in values(load_tower(str(FIXTURE), "text")).items():
        np.testing.assert_array_equal(values(tower)[name], value, err_msg=name)


@pytest.mark.filterwarnings("ignore:Use .content=<...>. to upload raw bytes:DeprecationWarning")
@pytest.mark.parametrize("after_saving", [False, True])
def test_push_to_hub(hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, after_saving: bool) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    model = TFVisionTextDualEncoderModel.from_pretrained(FIXTURE)
    name = f"{USER}/from-memory"
    if after_saving:
        model.save_pretrained(tmp_path / "m", push_to_hub=True, repo_id=name, private=True, commit_message="Weights")
    else:
        done = model.push_to_hub(name, private=True, commit_message="Weights", safe_serialization=True)
        assert (done.action, done.title, done.verified) == ("commit", "Weights", False)
    made = hub.repositories[name]
    assert made.private
    held = made.files()
    assert ("tf_model.h5" if after_saving else "model.safetensors") in held
    assert str(FIXTURE).encode() not in held["config.json"]


def test_push_to_hub_takes_no_unknown_argument() -> None:
    model = TFVisionTextDualEncoderModel.from_pretrained(FIXTURE)
    with pytest.raises(ModelError, match="colour: no argument of save_pretrained or push_to_hub here"):
        model.push_to_hub(f"{USER}/x", colour="red")

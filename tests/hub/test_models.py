"""The TensorFlow model from the Hub."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.tf

from converter import TFVisionTextDualEncoderModel  # noqa: E402
from converter.models import load_tower, named_variables  # noqa: E402
from tests.hub.conftest import ID, fetched  # noqa: E402
from tests.hub.loopback import Hub  # noqa: E402
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

"""Models that several tests share, each built once."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import pytest

from tests.models import reference

PAIRS = [(vision, text) for vision in ("clip_vision_model", "vit") for text in ("bert", "roberta")]


class Case(NamedTuple):
    """One config on both sides with the same weights."""

    config: Any
    torch: Any
    keras: Any
    inputs: dict[str, Any]
    tensors: dict[str, Any]


@pytest.fixture(scope="session", params=PAIRS, ids="+".join)
def case(request: pytest.FixtureRequest) -> Case:
    """Each of the four pairs in float32."""
    return make_case(reference.make_config(*request.param))


@pytest.fixture(scope="session")
def one() -> Case:
    """One pair, for what does not depend on the towers."""
    return make_case(reference.make_config("vit", "bert"))


def make_case(config: Any) -> Case:
    """Builds both sides of a config."""
    model = reference.torch_model(config)
    tensors = reference.saved_tensors(model)
    return Case(config, model, reference.keras_model(config, tensors), reference.make_inputs(config), tensors)

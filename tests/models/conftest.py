"""Models that several tests share, each built once."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import pytest
import torch

from tests.models import reference
from tests.models.families import FAMILIES, WHOLES, Kind, config_of, kind_of, make_dual
from tests.sampling import changed_files, in_full, tower_of
from tests.towers import TEXT, VISION

PAIRS = [f"{vision}+{text}" for vision in ("clip_vision_model", "vit") for text in ("bert", "roberta")]
# Towers that these do not have.
FURTHER_VISION, FURTHER_TEXT = (
    tuple(t for t in towers if all(t not in pair.split("+") for pair in PAIRS)) for towers in (VISION, TEXT)
)


# The checks that every tower has of its own: of those that this run does not check in full they are left out.
OF_ONE_TOWER = {"test_vision_towers", "test_text_towers", "test_text_graphs"}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out a tower's own checks where tests/sampling.py says so."""
    full = in_full(changed_files())
    left_out = [item for item in items if item.path.stem in OF_ONE_TOWER and _tower(item) not in full | {None}]
    config.hook.pytest_deselected(items=left_out)
    gone = set(map(id, left_out))
    items[:] = [item for item in items if id(item) not in gone]


def _tower(item: pytest.Item) -> str | None:
    called = getattr(item, "callspec", None)
    return None if called is None else tower_of(called.params)


class Case(NamedTuple):
    """One config on both sides with the same weights."""

    config: Any
    torch: Any
    keras: Any
    inputs: dict[str, Any]
    tensors: dict[str, Any]

    @property
    def kind(self) -> Kind:
        """Its family."""
        return kind_of(self.config)


@pytest.fixture(scope="session", params=[*PAIRS, *(name for name in FAMILIES if name in WHOLES)])
def case(request: pytest.FixtureRequest) -> Case:
    """Each of the four pairs, and one of each other family, in float32."""
    return make_case(config_of(request.param))


@pytest.fixture(params=FAMILIES.values(), ids=FAMILIES)
def kind(request: pytest.FixtureRequest) -> Kind:
    """Each family."""
    found: Kind = request.param
    return found


@pytest.fixture(scope="session", params=FAMILIES.values(), ids=FAMILIES)
def one(request: pytest.FixtureRequest) -> Case:
    """One model of each family, for what does not depend on the towers."""
    return make_case(request.param.make())


@pytest.fixture(autouse=True)
def angles_rounded_correctly(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch takes the cosines of rotary positions in float32 whatever the model is in, one in twenty not the nearest."""
    for name in ("cos", "sin"):
        exact = getattr(torch, name)
        monkeypatch.setattr(torch, name, lambda x, exact=exact: exact(x.double()).to(x.dtype))


@pytest.fixture(scope="session")
def dual() -> Case:
    """A dual encoder, for what only that has."""
    return make_case(make_dual())


def make_case(config: Any) -> Case:
    """Builds both sides of a config."""
    model = reference.torch_model(config)
    tensors = reference.saved_tensors(model)
    return Case(config, model, reference.keras_model(config, tensors), reference.make_inputs(config), tensors)

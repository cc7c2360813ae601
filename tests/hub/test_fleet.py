"""Fleets of the Hub: all models of an author, one that does not answer, commits that have moved and those that have not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from converter import fleet, inspect
from converter.errors import HubError, OptionError
from converter.fleets.authors import models_of
from tests.hub.conftest import files_of
from tests.hub.loopback import Answer, Hub
from tests.tiny import FIXTURE


@pytest.fixture
def author(hub: Hub, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An author of two models, beside another's; and what the processes of a fleet have to be told of this Hub."""
    for name in ("org/one", "org/two", "organ/three"):
        hub.add(name, files_of(FIXTURE))
    for name, value in {
        "HF_ENDPOINT": hub.endpoint, "HF_HUB_OFFLINE": "0", "HF_HUB_CACHE": str(cache), "HF_HUB_DISABLE_XET": "1",
        "HF_TOKEN_PATH": str(tmp_path / "token"),
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    return "hub:org"


def test_an_author(hub: Hub, author: str) -> None:
    dry = fleet(author, "out", dry_run=True)
    assert {task.source: task.state for task in dry.tasks} == {"org/one": "convertible", "org/two": "convertible"}
    assert all(request.range for request in hub.asked("/resolve/.*model.safetensors") if request.method == "GET")
    found = fleet(author, "out")
    assert {task.name: task.state for task in found.tasks} == {"org--one": "done", "org--two": "done"}
    assert found.tasks[0].commit == hub.repositories["org/one"].at("main")

    hub.repositories["org/two"].commit({"README.md": b"# Two\n"})
    fetched = len(hub.asked("GET .*model.safetensors"))
    again = fleet(author, "out")
    assert {task.name: task.unchanged for task in again.tasks} == {"org--one": True, "org--two": False}
    assert again.tasks[1].commit == hub.repositories["org/two"].at("main")
    assert len(hub.asked("GET .*model.safetensors")) >= fetched
    assert inspect("out/org--two").framework == "tf"


def test_a_hub_that_hangs(hub: Hub, author: str) -> None:
    """It costs its own task, and no longer than the deadline."""
    hub.fail("/org/one/", *[Answer(500, slow=60)] * 20)
    found = fleet(author, "out", verify="none", deadline=5, workers=1)
    assert {task.name: task.state for task in found.tasks} == {"org--one": "failed", "org--two": "done"}
    assert found.tasks[0].error == "not done within 5 s, so it was stopped; raise --deadline"
    assert fleet(author, "out", verify="none").tasks[0].unchanged


def test_ids_that_an_author_does_not_have(hub: Hub, author: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a Hub lists is held to be of the author, and to be an id."""
    assert models_of("org", 10) == ("org/one", "org/two")
    own = {"private": False, "downloads": 0, "likes": 0, "tags": []}
    listed = json.dumps([{"id": name, **own} for name in ("../../etc", "organ/x", "org/a b", "org/fine")])
    for text in (listed, "[[]]"):
        hub.fail("/api/models$", Answer(200, text.encode(), {"Content-Type": "application/json"}))
    assert models_of("org", 10) == ("org/fine",)
    with pytest.raises(HubError, match="the Hub lists no models that can be read"):
        models_of("org", 10)
    with pytest.raises(OptionError, match="nobody has no models on the Hub"):
        fleet("hub:nobody", "out")
    Path("org/one").mkdir(parents=True)
    found = fleet(author, "out", verify="none")
    assert [task.state for task in found.tasks] == ["failed", "done"]
    assert "a folder here has the name of the model" in found.tasks[0].error

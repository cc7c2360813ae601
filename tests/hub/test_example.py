"""`examples/hub_upload.py`, from a model on the Hub to a repository of one's own."""

from __future__ import annotations

import runpy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from converter import Publication, push
from tests.hub.loopback import TOKEN, Hub
from tests.tiny import FIXTURE

pytestmark = [
    pytest.mark.torch,
    pytest.mark.tf,
    pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload raw bytes:DeprecationWarning"),
]
SCRIPT = FIXTURE.parents[1] / "examples" / "hub_upload.py"


@pytest.fixture
def publish(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Publication]:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.chdir(tmp_path)
    found: Any = runpy.run_path(str(SCRIPT))["publish"]
    return found


def test_from_hub_to_hub(hub: Hub, published: str, publish: Callable[..., Publication], tmp_path: Path) -> None:
    done = publish(published, "me/clip-tiny-tf")
    assert (done.action, done.creates, done.verified) == ("commit", True, True)
    names = {change.name for change in done.changes}
    assert {"README.md", "config.json", "conversion.json", "parity.json", "tf_model.h5"} <= names
    assert push(tmp_path / "converted", "me/clip-tiny-tf").action == "nothing"
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "cache") == ["converted"]


def test_what_is_not_equal_is_not_published(
    hub: Hub, published: str, publish: Callable[..., Publication], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    plain: Any = publish.__globals__["verify"]  # type: ignore[attr-defined]

    def damaged(out: str, **options: Any) -> Any:
        shutil.copy(tmp_path / out / "tokenizer.json", tmp_path / out / "config.json")
        return plain(out, weights_only=True)

    monkeypatch.setitem(publish.__globals__, "verify", damaged)  # type: ignore[attr-defined]
    hub.requests.clear()
    with pytest.raises(SystemExit, match=rf"^converted is not {published}: .*config.json"):
        publish(published, "me/clip-tiny-tf")
    assert [request.method for request in hub.asked("^(POST|PUT)")] == []


def test_it_has_twenty_lines() -> None:
    """Of code, without the words."""
    lines = [line for line in SCRIPT.read_text().splitlines() if line.strip() and '"""' not in line]
    assert len(lines) <= 20

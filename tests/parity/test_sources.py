"""A source that was moved is found where it can be known to be the same; where not, the message says what was looked for."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from converter import pt2tf, verify
from converter.folder.manifest import read_manifest
from converter.parity.sources import find_source
from tests.tiny import write_tiny


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with ``models/src`` and ``made/out``; another one is the current folder."""
    write_tiny(tmp_path / "models" / "src")
    pt2tf(tmp_path / "models" / "src", tmp_path / "made" / "out")
    (tmp_path / "here").mkdir()
    (tmp_path / "new").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path


def found(out: Path) -> Path | None:
    return find_source(out, read_manifest(out), [])


def test_where_it_was(made: Path) -> None:
    assert found(made / "made" / "out") == made / "models" / "src"


@pytest.mark.parametrize("below", ["", "models"])
def test_moved_together(made: Path, below: str) -> None:
    """Into one folder, the source alone or with the folder that it lay in."""
    shutil.move(made / "made" / "out", made / "new" / "out")
    if below:
        shutil.move(made / "models", made / "new")
    else:
        shutil.move(made / "models" / "src", made / "new" / "src")
    assert found(made / "new" / "out") == made / "new" / below / "src"
    weights = verify(made / "new" / "out", weights_only=True).findings[1]
    assert (weights.status, weights.against) == ("passed", f"{made / 'new' / below / 'src'}, bit for bit")


def test_beside_where_the_command_runs(made: Path) -> None:
    shutil.move(made / "made" / "out", made / "new" / "elsewhere")
    shutil.move(made / "models" / "src", made / "here" / "src")
    assert found(made / "new" / "elsewhere") == made / "here" / "src"


@pytest.mark.parametrize("change", ["content", "size", "gone"])
def test_another_model_of_the_same_name_is_none(made: Path, change: str) -> None:
    shutil.move(made / "made" / "out", made / "new" / "out")
    shutil.move(made / "models" / "src", made / "new" / "src")
    file = made / "new" / "src" / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content if change == "content" else content + b"\0")
    if change == "gone":
        file.unlink()
    assert found(made / "new" / "out") is None


def test_what_has_changed_where_it_was_is_the_source_all_the_same(made: Path) -> None:
    """It differs, which is what is to be found."""
    file = made / "models" / "src" / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert found(made / "made" / "out") == made / "models" / "src"
    assert verify(made / "made" / "out", weights_only=True).findings[1].status == "failed"


def test_what_was_looked_for_is_said(made: Path) -> None:
    shutil.move(made / "models", made / "far")
    assert verify(made / "made" / "out").findings[2].problems == (
        "the source does not exist; name it with --reference. Looked for: "
        f"{made}/models/src, {made}/made/models/src, {made}/made/src and 2 more",
    )


def test_a_manifest_without_sums_trusts_no_name(made: Path) -> None:
    path = made / "made" / "out" / "conversion.json"
    raw = json.loads(path.read_text())
    raw["source"]["files"] = []
    path.write_text(json.dumps(raw))
    shutil.move(made / "made" / "out", made / "new" / "out")
    shutil.move(made / "models" / "src", made / "new" / "src")
    assert found(made / "new" / "out") is None

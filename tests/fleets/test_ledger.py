"""The ledger: what is written is read again, what is torn or hostile says nothing, what is not ours is left alone."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from converter.errors import SourceError
from converter.fleets import ledger
from converter.fleets.ledger import NAME, Attempt, Ledger, read_history
from tests.cli.schemas import validated

SUM = "ab" * 32
DONE = Attempt(
    "a", "0f" * 16, "models/a", "done", 2, 1, 0.5, 7, "weights", "passed", "", SUM, SUM, {"x": SUM},
    report="fleet-reports/a.html",
)  # fmt: skip


@pytest.fixture
def written(tmp_path: Path) -> Path:
    book = Ledger(tmp_path)
    book.begin("tf", "weights", 3, "us", "now")
    book.append(DONE)
    book.close()
    return tmp_path


def add(folder: Path, line: bytes) -> None:
    with (folder / NAME).open("ab") as file:
        file.write(line)


def test_there_and_back(written: Path) -> None:
    found = read_history(written)
    assert found is not None
    assert (found.to, found.verify, found.tasks, found.attempts, found.ignored) == ("tf", "weights", 3, {"a": DONE}, 0)
    assert found.names == {DONE.key: "a"}
    for line in (written / NAME).read_text().splitlines():
        validated(line, "ledger")
    with pytest.raises(jsonschema.ValidationError):
        validated(json.dumps(DONE.to_json() | {"state": "perhaps"}), "ledger")


@pytest.mark.parametrize("cut", [1, 20, 200])
def test_a_torn_last_line_says_nothing_and_spoils_no_other(written: Path, cut: int) -> None:
    whole = (written / NAME).read_bytes()
    (written / NAME).write_bytes(whole[:-cut])
    torn = read_history(written)
    assert torn is not None
    assert (torn.attempts, torn.ignored) == (({}, 1) if cut > 1 else ({"a": DONE}, 0))
    book = Ledger(written)
    book.append(DONE)
    book.close()
    assert read_history(written).attempts == {"a": DONE}  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "../x", "report": ""}, {"name": "fleet.json", "report": ""},
        {"key": "x"}, {"state": "fine"}, {"attempt": "1"}, {"attempt": True},
        {"seconds": -1}, {"nbytes": 2**64}, {"hashes": {"x": 7}}, {"hashes": []}, {"manifest": "x"}, {"commit": "main"},
        {"report": "../../x.html"}, {"report": "javascript:alert(1)"}, {"verify": "some"}, {"kind": "other"}, {"error": None},
    ],
    ids=str,
)  # fmt: skip
def test_hostile_lines_say_nothing(written: Path, wrong: dict[str, Any]) -> None:
    add(written, json.dumps(DONE.to_json() | {"name": "b", "report": "fleet-reports/b.html"} | wrong).encode() + b"\n")
    found = read_history(written)
    assert found is not None
    assert (set(found.attempts), found.ignored) == ({"a"}, 1)


@pytest.mark.parametrize(
    "line", [b"[" * 100_000, b"\xff\xfe", b"7", b"{" + b" " * (ledger.MAX_LEDGER_LINE_BYTES + 9) + b"}"]
)
def test_lines_that_are_none(written: Path, line: bytes) -> None:
    add(written, line + b"\n")
    found = read_history(written)
    assert found is not None
    assert (set(found.attempts), found.ignored > 0) == ({"a"}, True)


def test_what_is_not_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_history(tmp_path) is None
    path = tmp_path / NAME
    path.write_text('{"my": "notes"}\n')
    with pytest.raises(SourceError, match="not the ledger of a fleet; choose another folder"):
        read_history(tmp_path)
    path.write_text('{"format": 2, "kind": "run"}\n')
    with pytest.raises(SourceError, match="written by another version"):
        read_history(tmp_path)
    monkeypatch.setattr(ledger, "MAX_LEDGER_BYTES", 3)
    with pytest.raises(SourceError, match="larger than 3 bytes"):
        read_history(tmp_path)
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SourceError, match="a link, which is not followed"):
        read_history(tmp_path)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(SourceError, match="not a ledger"):
        read_history(tmp_path)


def test_an_out_of_very_many_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "MAX_LEDGER_LINE_BYTES", len(json.dumps(DONE.to_json())))
    book = Ledger(tmp_path)
    book.begin("tf", "weights", 1, "us", "now")
    book.append(DONE)
    book.close()
    assert read_history(tmp_path).attempts["a"].hashes == {}  # type: ignore[union-attr]

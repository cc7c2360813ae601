"""What a list may say, in each of its forms, and what is refused of it with its line."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from converter.errors import OptionError
from converter.fleets import lists
from converter.fleets.lists import read_tasks
from converter.fleets.tasks import MAX_TEXT_CHARACTERS

OUT = Path("out")
SAID = [("one", None, ""), ("org/two", "v1", "second")]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("x.txt", '# comment\n\none\r\n  {"source": "org/two", "revision": "v1", "name": "second"}\n'),
        ("x.csv", "source,revision,name\none,,\n#,,\n,,\norg/two, v1 ,second\n"),
        ("x.jsonl", '{"source": "one"}\n\n{"source": "org/two", "revision": "v1", "name": "second", "dtype": null}\n'),
        ("x.CSV", "\ufeffname,source,revision\n,one,\nsecond,org/two,v1\n"),
    ],
)
def test_forms(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_bytes(text.encode())
    found = read_tasks(tmp_path / name, "tf", OUT)
    assert [(task.source, task.revision, task.asked_name) for task in found] == SAID
    assert len({task.key for task in found}) == 2


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"one\n")))
    assert [task.source for task in read_tasks("-", "tf", OUT)] == ["one"]


def test_a_folder(models: Path) -> None:
    """Neither links nor what is hidden, nor OUTDIR itself; nothing within a checkpoint."""
    (models / "link").symlink_to(models / "a")
    (models / "a" / "inner").mkdir()
    (models / "a" / "inner" / "config.json").write_text("{}")
    for name in (".hidden", "made"):
        (models / name).mkdir()
        (models / name / "config.json").write_text("{}")
    deep = models / "1" / "2" / "3"
    deep.mkdir(parents=True)
    (deep / "config.json").write_text("{}")
    found = read_tasks(models, "tf", models / "made")
    assert [task.label for task in found] == ["1/2/3", "a", "b", "org/c"]
    assert [(task.source, task.hub) for task in found][-1] == (str(models / "org/c"), False)


def test_labels_are_no_paths_of_this_machine(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text(f"{tmp_path}/deep/model\n../up\n~/home/model/\nC:\\models\\x\norg/name\n")
    found = read_tasks(tmp_path / "x.txt", "tf", OUT)
    assert [task.label for task in found] == ["model", "../up", "model", "x", "org/name"]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("x.txt", "# nothing\n", "the list names no source"),
        ("x.txt", "\xff", "not a text in UTF-8"),
        ("x.txt", "one\n{", "line 2: not JSON"),
        ("x.txt", '{"source": "x", "sources": "y"}', "line 1: sources: no such column; choose from source, revision"),
        ("x.txt", '{"source": 7}', "line 1: source is 7; give a text of 4,096 characters at most"),
        ("x.txt", json.dumps({"source": "\0"}), "line 1: source is '\\\\x00'; give a text"),
        ("x.txt", '{"source": "\\ud800"}', "line 1: source is '\\\\ud800'; give a text"),
        ("x.txt", "x" * (MAX_TEXT_CHARACTERS + 1), "line 1: source is 'x"),
        ("x.txt", '{"name": "x"}', "line 1: names no source"),
        ("x.txt", '{"source": "x", "revision": "../x"}', "line 1: '../x' is not a revision"),
        ("x.txt", '{"source": "x", "dtype": "fp16"}', "line 1: dtype 'fp16' does not exist"),
        ("x.txt", '{"source": "x", "format": "bin"}', "line 1: format bin is not one of TensorFlow's"),
        ("x.txt", '{"source": "x", "layout": "timm"}', "line 1: layout 'timm' does not exist"),
        ("x.txt", '{"source": "x", "names": "v5"}', "line 1: names 'v5' does not exist"),
        ("x.txt", '{"source": "x", "positions": "pt"}', "line 1: positions 'pt' does not exist"),
        ("x.txt", '{"source": "x", "max_shard_size": "much"}', "line 1: a shard size looks like 5GB"),
        ("x.txt", '{"source": ' + "[" * 100_000, "line 1: not JSON"),
        ("x.jsonl", "one\n", "line 1: not JSON"),
        ("x.jsonl", '["one"]\n', "line 1: a list; write an object"),
        ("x.csv", "one\ntwo\n", "the first line of a CSV names its columns"),
        ("x.csv", "source,source\n", "the first line of a CSV names its columns"),
        ("x.csv", "source,name\none\n", "line 2: has 1 fields, the first line 2"),
        ("x.csv", 'source\n"one"two\n', "line 2: not CSV"),
    ],
)  # fmt: skip
def test_refused(tmp_path: Path, name: str, text: str, said: str) -> None:
    (tmp_path / name).write_bytes(text.encode("latin-1"))
    with pytest.raises(OptionError) as caught:
        read_tasks(tmp_path / name, "tf", OUT)
    assert said.replace("\\\\", "\\") in str(caught.value)
    assert caught.value.next_step


def test_what_is_no_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "long.txt").write_text("one\ntwo\nthree\n")
    with monkeypatch.context() as patch:
        patch.setattr(lists, "MAX_TASKS", 2)
        with pytest.raises(OptionError, match="more than 2 checkpoints"):
            read_tasks(tmp_path / "long.txt", "tf", OUT)
    monkeypatch.setattr(lists, "MAX_LIST_BYTES", 3)
    for name, said in {"long.txt": "larger than 3 bytes", "none.txt": "not found", ".": "holds no checkpoints"}.items():
        with pytest.raises(OptionError, match=said):
            read_tasks(tmp_path / name, "tf", OUT)
    with pytest.raises(OptionError, match="not the name of an author"):
        read_tasks("hub:org/name", "tf", OUT)

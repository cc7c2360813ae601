"""What may not be read or written, and too few files that may be open: one line each, nothing left, nothing harmed."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.crash import children
from tests.crash.conftest import Mounted
from tests.crash.preparing import with_few_files, without_powers
from tests.crash.sources import CASES, SHARD, content, listing
from tests.torture import rounds


@pytest.fixture
def place(small: Path, tmp_path: Path) -> Path:
    """A source of its own, an old OUT, and a folder for a new one."""
    shutil.copytree(small / "pt", tmp_path / "src")
    for name in ("there", "old"):
        (tmp_path / name).mkdir()
    (tmp_path / "old" / "config.json").write_text("old")
    return tmp_path


FORBIDDEN = {
    "no folder can be made": ("there", 0o555, "there/out", "{out}: cannot be made: Permission denied; choose another folder"),
    "no folder can be made in one to be made": (
        "there", 0o555, "there/new/out", "{out}: cannot be made: Permission denied; choose another folder",
    ),
    "the folder cannot be entered": (
        "there", 0o000, "there/out",
        "{out}: cannot be accessed: Permission denied; check its permissions, or choose another",
    ),
    "OUT is read-only": (
        "old", 0o555, "old", "{out}: is read-only, so it is not replaced; make it writable, or choose another folder",
    ),
    "OUT cannot be looked at": (
        "old", 0o000, "old", "{out}: is read-only, so it is not replaced; make it writable, or choose another folder",
    ),
    "weights": (
        "src/model.safetensors", 0o000, "out",
        "{path}: cannot be read: Permission denied; check its permissions",
    ),
    "config.json": (
        "src/config.json", 0o000, "out", "{path}: cannot be read: Permission denied; check its permissions",
    ),
    "a tokenizer": (
        "src/vocab.txt", 0o000, "out",
        "{path}: cannot be read: Permission denied; check its permissions (nothing was left behind)",
    ),
    "the source's folder": (
        "src", 0o000, "out",
        "{path}/model.safetensors: cannot be read: Permission denied; check its permissions",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FORBIDDEN)
def test_forbidden(place: Path, talk: Path, name: str) -> None:
    path, mode, out, message = FORBIDDEN[name]
    before = content(place)
    (place / path).chmod(mode)
    ended = children.run(["pt2tf", str(place / "src"), str(place / out), "--overwrite"], talk, prepare=without_powers)
    (place / path).chmod(0o755)
    expected = message.format(out=place / out, path=place / path)
    assert (ended.status, ended.out, ended.err) == (1, "", f"convert: {expected}\n")
    shutil.rmtree(talk)
    talk.mkdir()
    assert content(place) == before


UNREADABLE = {
    "what is in a closed folder": ("locked", "locked/tf"),
    "the folder itself": ("locked/tf", "locked/tf"),
    "a file of weights": ("locked/tf/tf_model.h5", "locked/tf"),
    "config.json": ("locked/tf/config.json", "locked/tf"),
    "a tokenizer": ("locked/tf/vocab.txt", "locked/tf"),
    "the manifest": ("locked/tf/conversion.json", "locked/tf"),
    "a name that is too long": ("old", "n" * 300),
    "a path that is too long": ("old", "/".join(["n" * 200] * 30)),
}
READING = {
    "inspect": ("inspect", "{}"),
    "verify": ("verify", "{}", "--weights-only"),
    "verify against": ("verify", "{old}", "--weights-only", "--reference", "{}"),
    "reference": ("reference", "{}", "-o", "{old}/golden.safetensors"),
    "push": ("push", "{}", "a/b", "--dry-run"),
    "combine": ("combine", "{}", "{}", "{old}/new"),
}


@pytest.mark.parametrize("command", READING)
@pytest.mark.parametrize("name", UNREADABLE)
def test_every_command_says_what_it_cannot_read(
    checkpoint: Path, tmp_path: Path, talk: Path, name: str, command: str
) -> None:
    forbidden, given = UNREADABLE[name]
    place = tmp_path / "place"
    for folder in ("locked/tf", "old"):
        shutil.copytree(checkpoint, place / folder)
    before = content(place)
    (place / forbidden).chmod(0o500 if forbidden == "old" else 0)
    words = [word.format(place / given, old=place / "old") for word in READING[command]]
    ended = children.run(words, talk, prepare=without_powers)
    (place / forbidden).chmod(0o755)
    if ended.status == 0:  # combine needs no manifest
        shutil.rmtree(place / "old" / "new", ignore_errors=True)
    assert content(place) == before
    if ended.out:  # it could do without, or says so of the part in question
        verdict = ended.out.partition("\n")[0].rpartition(": ")[2]
        assert ended.status == (3 if verdict == "not checked" else 0), verdict
        assert "failed" not in ended.out
        assert ended.err == ""
    else:
        assert ended.status == (3 if words[0] == "verify" else 1)
        assert re.fullmatch(r"convert: .+\n", ended.err)


OPTIONS = {
    "--report": (3, "cannot write the report: {}; choose another place"),
    "--texts": (2, "cannot be read: {}; name another file"),
    "--images": (2, "cannot be read: {}; name another folder"),
    "--reference": (3, "cannot be read: {}; check its permissions"),
}


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("name", ["what is in a closed folder", "a name that is too long", "a path that is too long"])
def test_what_an_option_names_cannot_be_looked_at(
    checkpoint: Path, tmp_path: Path, talk: Path, name: str, option: str
) -> None:
    (tmp_path / "locked").mkdir(mode=0)
    words = ["verify", str(checkpoint), option, str(tmp_path / UNREADABLE[name][1] / "x.json")]
    ended = children.run(words, talk, prepare=without_powers)
    status, message = OPTIONS[option]
    why = "Permission denied" if "closed" in name else "File name too long"
    assert (ended.status, ended.out) == (status, "")
    assert re.fullmatch(rf"convert: \S+/x\.json: {message.format(why)}\n", ended.err), ended.err


def test_with_permission_it_is_converted(place: Path, talk: Path) -> None:
    ended = children.run(["pt2tf", str(place / "src"), str(place / "out")], talk, prepare=without_powers)
    assert (ended.status, ended.err) == (0, "")


def test_a_folder_that_may_be_entered_and_not_listed(place: Path, talk: Path) -> None:
    (place / "src").chmod(0o311)
    ended = children.run(["pt2tf", str(place / "src"), str(place / "out")], talk, prepare=without_powers)
    (place / "src").chmod(0o755)
    assert (ended.status, ended.err) == (0, "")
    assert json.loads((place / "out" / "conversion.json").read_text())["left_behind"] == []


def test_a_read_only_file_system(place: Path, talk: Path, mounted: Mounted) -> None:
    disk = mounted("tmpfs", "ro,size=1m")
    ended = children.run(["pt2tf", str(place / "src"), str(disk / "out")], talk)
    assert (ended.status, ended.err) == (
        1, f"convert: {disk / 'out'}: cannot be made: Read-only file system; choose another folder\n",
    )  # fmt: skip


@pytest.mark.parametrize("name", list(CASES)[:: rounds(sample=2, full=1)])
def test_too_few_files_may_be_open(small: Path, tmp_path: Path, talk: Path, name: str) -> None:
    """Refused until it is enough."""
    case = CASES[name]
    place = tmp_path / "place"
    place.mkdir()
    arguments = [word.replace(SHARD, "40KB") for word in case.words(small, place / "out")]
    said = set()
    for most in range(4, 60):  # three are open in any case, and one that says when it begins
        ended = children.run(arguments, talk, prepare=partial(with_few_files, most))
        if ended.status == 0:
            shutil.rmtree(place / "out")
            break
        assert (ended.status, ended.out) == (1, ""), ended
        said.add(ended.err.partition(": cannot be ")[2])
        assert list(place.iterdir()) == []
    else:
        pytest.fail(f"60 files are not enough: {ended.err}")
    assert said == {
        "read: too many open files; raise the limit (ulimit -n)\n",
        "written, nothing was left behind: too many open files; raise the limit (ulimit -n), or use fewer shards\n",
    }


COMMANDS: dict[str, Callable[[Path, Path], list[str]]] = {
    "convert": lambda source, out: ["tf2pt" if source.name.startswith("tf") else "pt2tf", str(source), str(out)],
    "dry run": lambda source, out: [*COMMANDS["convert"](source, out), "--dry-run"],
    "inspect": lambda source, _: ["inspect", str(source)],
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("kind", ["pt", "pt-bin", "pt-shards", "tf", "tf-shards", "tf-safetensors"])
def test_sources_are_only_read(small: Path, tmp_path: Path, talk: Path, kind: str, command: str) -> None:
    """No lock, no cache, no time of change; and it works where nothing could be written."""
    source = tmp_path / kind
    shutil.copytree(small / kind, source)
    for path in source.iterdir():
        path.chmod(0o444)
    source.chmod(0o555)
    before = listing(source)
    ended = children.run(COMMANDS[command](source, tmp_path / "out"), talk, prepare=without_powers)
    assert (ended.status, ended.err) == (0, "")
    assert listing(source) == before
    source.chmod(0o755)
    assert os.access(source, os.W_OK)

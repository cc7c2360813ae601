"""Files of a checkpoint are replaced in a folder that is there, all of them or none, and nothing else in it is touched."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from converter import inspect, pt2tf, push, verify
from converter.checkpoints.detect import WEIGHTS
from converter.conversion.streams import open_tensors
from converter.errors import ConverterError, TargetError
from converter.folder import replacing
from converter.folder.replacing import NAME, outlook, replaced_by, settle
from converter.folder.staging import staged
from tests.crash.sources import content
from tests.tiny import write_tiny

OLD = {
    "config.json": "old config",
    "conversion.json": "old manifest",
    "parity.json": "old proof",
    "model.safetensors": "old weights",
    "tf_model-00001-of-00002.h5": "half of old weights",
    "vocab.txt": "old words",
    "preprocessor_config.json": "old pictures",
}
FOREIGN = {".git/HEAD": "ref", ".git/objects/pack": "packed", "README.md": "card", "notes/day one.txt": "diary"}
NEW = {
    "config.json": "new config",
    "tf_model.h5": "new weights",
    "vocab.txt": "new words",
    "conversion.json": "new manifest",
}
PICTURES = "preprocessor_config.json"
AFTER = NEW | {PICTURES: "old pictures"} | FOREIGN


# Old chat templates, new ones, and what else lies in their folder before: it is made, kept, or taken away.
TEMPLATES = "additional_chat_templates"
OF_TEMPLATES = {
    "no templates": ({}, {}, {}),
    "templates for templates": ({"rag": "old"}, {"rag": "new", "tool": "new"}, {"README.md": "mine"}),
    "templates for none": ({}, {"rag": "new"}, {}),
    "templates beside files of others": ({}, {"rag": "new"}, {"README.md": "mine", "old/x.jinja": "mine"}),
    "none for templates": ({"rag": "old", "tool": "old"}, {}, {}),
    "none for templates beside files of others": ({"rag": "old"}, {}, {".x.jinja": "mine"}),
}


def with_templates(name: str) -> tuple[dict[str, str], dict[str, str], dict[str, str]]:
    """What is old, what is new and what is foreign, chat templates among them."""
    old, new = (
        {f"{TEMPLATES}/{template}.jinja": text for template, text in held.items()} for held in OF_TEMPLATES[name][:2]
    )
    beside = {f"{TEMPLATES}/{file}": text for file, text in OF_TEMPLATES[name][2].items()}
    return OLD | old, NEW | new, FOREIGN | beside


def texts(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def replace(out: Path, new: dict[str, str] = NEW) -> None:
    with staged(out, True) as staging:
        write(staging, new)


@pytest.mark.parametrize("name", OF_TEMPLATES)
def test_what_is_replaced_and_what_stays(tmp_path: Path, name: str) -> None:
    old, new, others = with_templates(name)
    out = write(tmp_path / "out", old | others)
    inodes = {name: (out / name).stat().st_ino for name in [".git", "notes", *others]}
    there = outlook(out, new)
    replace(out, new)
    assert there == (tuple(sorted(old.keys() - {PICTURES}, key=lambda name: (name != "conversion.json", name))),
                     len({name.partition("/")[0] for name in FOREIGN}) + len(others) - len(FOREIGN) + 1)  # fmt: skip
    assert texts(out) == new | {PICTURES: "old pictures"} | others
    assert {name: (out / name).stat().st_ino for name in inodes} == inodes
    assert (out / TEMPLATES).exists() == any(name.startswith(TEMPLATES) for name in texts(out))
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_is_ours_by_name() -> None:
    every = {name for side in WEIGHTS.values() for name in side}
    shards = {"model-00001-of-00002.safetensors", "pytorch_model-00002-of-00002.bin", "tf_model-00001-of-00009.h5"}
    assert set(replaced_by((), every | shards)) == every | shards
    others = {"README.md", ".git", "my_model.msgpack", "my_model.h5", "model.safetensors.bak", "onnx", "vocab.txt"}
    assert replaced_by((), others) == ()
    assert replaced_by(("merges.txt",), ("vocab.txt", "preprocessor_config.json")) == ("vocab.txt",)
    assert replaced_by(("preprocessor_config.json",), ("vocab.txt", "processor_config.json")) == (
        "processor_config.json",
    )
    assert replaced_by(("merges.txt",), ("a.tiktoken", ".a.tiktoken")) == ("a.tiktoken",)
    assert replaced_by(("a.tiktoken",), ("vocab.txt", "tokenizer.json", "my.words")) == ("tokenizer.json", "vocab.txt")
    assert replaced_by(("tf_model.h5",), ("a.tiktoken", "vocab.txt")) == ()
    template, *others = (f"{TEMPLATES}/{name}" for name in ("x.jinja", ".x.jinja", "x.txt", "a/x.jinja"))
    for new, gone in ((("vocab.txt",), (template,)), (("tf_model.h5",), ())):
        assert replaced_by(new, (template, *others, TEMPLATES, "x.jinja", f"old/{template}")) == gone
    assert replaced_by((), ("a", "config.json", "conversion.json")) == ("conversion.json", "config.json")


class Died(BaseException):
    """Stands for the death of the process: nothing of ours runs after it."""


CALLS = ("rename", "unlink", "rmdir")


def dying(
    monkeypatch: pytest.MonkeyPatch, step: int, *, after: bool, calls: tuple[str, ...] = CALLS
) -> Callable[[], None]:
    """Lets the process die at one of its renames or unlinks, before or right after it; returns what revives it."""
    seen = 0
    patched = pytest.MonkeyPatch()

    def patch(name: str) -> None:
        real = getattr(Path, name)

        def call(self: Path, *arguments: object, **options: object) -> object:
            nonlocal seen
            if "out" not in self.parts and ".partial-" not in str(self):
                return real(self, *arguments, **options)
            seen += 1
            if seen > step or (seen == step and not after):
                raise Died
            result = real(self, *arguments, **options)
            if seen == step:
                raise Died
            return result

        patched.setattr(Path, name, call)

    for name in calls:
        patch(name)
    patched.setattr(shutil, "rmtree", lambda *_, **__: None)
    monkeypatch.undo()
    return patched.undo


STEPS = len(OLD) - 1 + len(NEW) + 2  # the renames of old, of new, and of the journal to and fro


@pytest.mark.parametrize("after", [True, False])
@pytest.mark.parametrize("step", range(1, STEPS + 1))
def test_death_at_every_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int, after: bool) -> None:
    out = write(tmp_path / "out", OLD | FOREIGN)
    live = dying(monkeypatch, step, after=after)
    try:
        with pytest.raises(Died):
            replace(out)
    finally:
        live()
    assert {name: text for name, text in texts(out).items() if name in FOREIGN} == FOREIGN
    if (out / NAME).exists():
        assert (out / "conversion.json").exists() == (
            step > STEPS - 2 + (not after) or (step == 2 and not after) or step == 1
        )
    settle(out)
    assert texts(out) == (AFTER if step > STEPS - 2 + (not after) else OLD | FOREIGN)
    replace(out)
    assert texts(out) == AFTER
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def dies(out: Path, act: Callable[[], object], step: int, *, after: bool) -> bool:
    """Whether an act dies at a step, that of making a folder counted, or had come to its end."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        live = dying(monkeypatch, step, after=after, calls=(*CALLS, "mkdir"))
        try:
            act()
        except Died:
            return True
        finally:
            live()
    return False


@pytest.mark.parametrize("after", [True, False])
@pytest.mark.parametrize("name", OF_TEMPLATES)
def test_death_at_every_step_of_chat_templates(tmp_path: Path, name: str, after: bool) -> None:
    """It is the old files up to some step and the new ones from then on; their folder is there where something is in it."""
    old, new, others = with_templates(name)
    before, done = old | others, new | {PICTURES: "old pictures"} | others
    ends = []
    for step in range(1, 100):
        out = write(tmp_path / str(step) / "out", before)
        if not dies(out, lambda: replace(out, new), step, after=after):  # noqa: B023 - called at once
            break
        for act in (settle, lambda folder: replace(folder, new)):
            assert {name: text for name, text in texts(out).items() if name in others} == others
            act(out)
            ends.append(texts(out))
            assert (out / TEMPLATES).exists() == any(name.startswith(TEMPLATES) for name in texts(out))
        assert [path.name for path in out.parent.iterdir()] == ["out"]
    assert step > len(old) + len(new)
    assert ends[1::2] == [done] * (step - 1)
    assert [end == done for end in ends[::2]] == sorted(end == done for end in ends[::2])
    assert all(end in (before, done) for end in ends)
    assert ends[0] == before
    assert ends[-2] == done


@pytest.mark.parametrize("name", OF_TEMPLATES)
def test_death_while_chat_templates_are_put_right(tmp_path: Path, name: str) -> None:
    old, new, others = with_templates(name)
    noise = random.Random(name)
    for turn in range(60):
        out = write(tmp_path / str(turn) / "out", old | others)
        dies(out, lambda: replace(out, new), noise.randint(8, 30), after=noise.random() < 0.5)  # noqa: B023
        for _ in range(2):
            dies(out, lambda: settle(out), noise.randint(1, 20), after=noise.random() < 0.5)  # noqa: B023
            assert {name: text for name, text in texts(out).items() if name in others} == others
        settle(out)
        assert texts(out) in (old | others, new | {PICTURES: "old pictures"} | others)
        assert (out / TEMPLATES).exists() == any(name.startswith(TEMPLATES) for name in texts(out))
        assert not (out / NAME).exists()


@pytest.mark.parametrize("call", ["rename", "mkdir"])
@pytest.mark.parametrize("name", OF_TEMPLATES)
def test_a_disk_that_fills_while_chat_templates_are_replaced(tmp_path: Path, name: str, call: str) -> None:
    """What had been replaced is put back at once, a folder that was made for new ones taken away."""
    old, new, others = with_templates(name)
    out = write(tmp_path / "out", old | others)
    before, real, failed = content(out), getattr(Path, call), 0
    for step in range(1, 100):
        seen = 0

        def full(self: Path, *arguments: object, **options: object) -> object:
            nonlocal seen
            seen += 1
            if seen == step:  # noqa: B023
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return real(self, *arguments, **options)

        with pytest.MonkeyPatch.context() as patched, contextlib.suppress(OSError, TargetError):
            patched.setattr(Path, call, full)
            replace(out, new)
        if texts(out) == new | {PICTURES: "old pictures"} | others:
            break
        failed += 1
        assert content(out) == before
        assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert failed >= (len(old) + len(new) if call == "rename" else 2)


@pytest.mark.parametrize("again", range(1, 30))
def test_death_while_it_is_put_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, again: int) -> None:
    for step in (3, 9, STEPS - 1):
        out = write(tmp_path / str(step) / "out", OLD | FOREIGN)
        for number in (step, again):
            live = dying(monkeypatch, number, after=True)
            try:
                replace(out) if number == step else settle(out)
            except Died:
                pass
            finally:
                live()
            assert {name: text for name, text in texts(out).items() if name in FOREIGN} == FOREIGN
        settle(out)
        assert texts(out) == (AFTER if step == STEPS - 1 else OLD | FOREIGN)
        assert not (out / NAME).exists()


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, OSError])
@pytest.mark.parametrize("step", range(STEPS))
def test_stopped_at_every_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int, kind: type[BaseException]
) -> None:
    """A signal, a full disk: what had been replaced is put back at once."""
    out = write(tmp_path / "out", OLD | FOREIGN)
    real, seen = Path.rename, 0

    def rename(self: Path, place: Path) -> Path:
        nonlocal seen
        seen += 1
        if seen == step + 1:
            raise kind(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(self, place)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", rename)
        with pytest.raises(kind):
            replace(out)
    assert seen > step
    assert texts(out) == (AFTER if step == STEPS - 1 else OLD | FOREIGN)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_disk_that_fails_for_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = write(tmp_path / "out", OLD | FOREIGN)
    real, seen = Path.rename, 0

    def rename(self: Path, place: Path) -> Path:
        nonlocal seen
        seen += 1
        if seen > 4:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(self, place)

    said = (
        f"{out}: interrupted while its files were being replaced, and cannot be restored: Input/output error; fix "
        "that and run this again"
    )
    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", rename)
        for act in (replace, settle):
            with pytest.raises(TargetError) as caught:
                act(out)
            assert str(caught.value) == said
    assert not (out / "conversion.json").exists()
    settle(out)
    assert texts(out) == OLD | FOREIGN


def interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str = "out") -> Path:
    """A folder whose replacing died in the middle."""
    out = write(tmp_path / name, OLD | FOREIGN)
    live = dying(monkeypatch, len(OLD) + 1, after=True)
    try:
        with pytest.raises(Died):
            replace(out)
    finally:
        live()
    assert (out / NAME).is_dir()
    assert not (out / "conversion.json").exists()
    return out


@pytest.mark.parametrize("command", ["verify", "inspect", "push", "open", "convert", "overwrite", "dry run"])
def test_every_command_puts_it_right_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    out = interrupted(tmp_path, monkeypatch)
    source = tmp_path / "src"
    write_tiny(source)
    run: dict[str, Callable[[], object]] = {
        "verify": lambda: verify(out, weights_only=True),
        "inspect": lambda: inspect(out / "model.safetensors"),
        "push": lambda: push(out, "some/where", dry_run=True),
        "open": lambda: open_tensors(out, "tf").__enter__(),
        "convert": lambda: pt2tf(source, out),
        "overwrite": lambda: pt2tf(source, out, overwrite=True, config={}),
        "dry run": lambda: pt2tf(source, out, overwrite=True, dry_run=True),
    }
    if command == "dry run":
        run[command]()
    else:
        with pytest.raises(ConverterError):
            run[command]()
    assert texts(out) == OLD | FOREIGN
    assert not (out / NAME).exists()


def test_another_run_is_at_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = interrupted(tmp_path, monkeypatch)
    before = content(out)
    held = os.open(out / NAME, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    with pytest.raises(TargetError) as caught:
        inspect(out)
    os.close(held)
    assert str(caught.value) == f"{out}: another run is replacing its files; wait until it ends"
    assert content(out) == before
    settle(out)
    assert texts(out) == OLD | FOREIGN


def test_two_writers(tmp_path: Path) -> None:
    out = write(tmp_path / "out", OLD | FOREIGN)
    with staged(out, True) as staging:
        write(staging, NEW)
        with pytest.raises(TargetError) as caught:
            replace(out)
        assert texts(out) == OLD | FOREIGN
    said = f"{out}: another run is writing to it; wait until it ends, or choose another folder"
    assert str(caught.value) == said
    assert texts(out) == AFTER


def strange(out: Path) -> str:
    return (
        f"{out}: interrupted while its files were being replaced, and copied from elsewhere, so {NAME} is ignored; "
        f"move the files in {NAME}/.replaced back by hand, then delete {NAME}"
    )


def refused(out: Path) -> str:
    before = content(out)
    with pytest.raises(TargetError) as caught:
        settle(out)
    assert content(out) == before
    return str(caught.value)


def journal(out: Path, **changes: object) -> None:
    """Writes a journal as a stranger might, with a right inode for once."""
    (out / NAME / ".replaced").mkdir(parents=True, exist_ok=True)
    held = {"format": 1, "inode": (out / NAME).stat().st_ino, "replaced": [], "new": []} | changes
    (out / NAME / ".journal.json").write_text(json.dumps(held))


def test_a_journal_that_came_with_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is bound to the folder that it was made in: no download, no clone and no copy of it is followed."""
    shutil.copytree(interrupted(tmp_path, monkeypatch), tmp_path / "copy")
    assert refused(tmp_path / "copy") == strange(tmp_path / "copy")


def test_a_folder_that_was_moved_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moved = interrupted(tmp_path, monkeypatch).rename(tmp_path / "moved")
    settle(moved)
    assert texts(moved) == OLD | FOREIGN


@pytest.mark.parametrize("key", ["replaced", "new"])
@pytest.mark.parametrize(
    "names",
    [
        ["../notes.txt"], ["/etc/passwd"], [".git"], ["a/b"], [""], [".."], [7], "config.json", None, {"a": 1},
        [f"{TEMPLATES}/../notes.jinja"], [f"{TEMPLATES}/x.txt"], [f"{TEMPLATES}/.x.jinja"], [f"{TEMPLATES}/"],
        [f"notes/{TEMPLATES}/x.jinja"], ["notes/x.jinja"],
    ],
)  # fmt: skip
def test_names_that_lead_elsewhere(tmp_path: Path, key: str, names: object) -> None:
    out = write(tmp_path / "out", FOREIGN)
    journal(out, **{key: names})
    assert refused(out) == strange(out)


@pytest.mark.parametrize("changes", [{"format": 2}, {"format": None}, {"inode": 1}, {"inode": "1"}])
def test_a_journal_of_another_kind(tmp_path: Path, changes: dict[str, object]) -> None:
    out = write(tmp_path / "out", FOREIGN)
    journal(out, **changes)
    assert refused(out) == strange(out)


@pytest.mark.parametrize(
    "text", ["", "[]", "{", "[" * 100_000, None], ids=["empty", "list", "half", "deep", "too long"]
)
def test_a_journal_that_cannot_be_read(tmp_path: Path, text: str | None) -> None:
    out = write(tmp_path / "out", FOREIGN)
    journal(out)
    held = out / NAME / ".journal.json"
    held.write_text(held.read_text() + " " * replacing.MAX_JOURNAL_BYTES if text is None else text)
    assert refused(out) == strange(out)


@pytest.mark.parametrize("name", [".journal.json", ".replaced", TEMPLATES, f".replaced/{TEMPLATES}"])
def test_links_in_a_journal(tmp_path: Path, name: str) -> None:
    out = write(tmp_path / "out", FOREIGN)
    journal(out)
    for folder in (TEMPLATES, f".replaced/{TEMPLATES}"):
        (out / NAME / folder).mkdir()
    moved = (out / NAME / name).rename(tmp_path / "there")
    (out / NAME / name).symlink_to(moved)
    assert refused(out) == strange(out)


@pytest.mark.parametrize("kind", ["file", "link", "link to nowhere"])
def test_a_journal_that_is_no_folder(tmp_path: Path, kind: str) -> None:
    out = write(tmp_path / "out", FOREIGN)
    if kind == "file":
        (out / NAME).write_text("x")
    else:
        (tmp_path / "there").mkdir()
        (out / NAME).symlink_to(tmp_path / ("there" if kind == "link" else "nowhere"))
    assert refused(out) == f"{out / NAME}: not a folder, so no conversion made it; move it away"


def test_a_folder_is_never_moved(tmp_path: Path) -> None:
    out = write(tmp_path / "out", FOREIGN)
    journal(out, new=["notes", "conversion.json"])
    (out / NAME / "conversion.json").touch()
    assert refused(out) == f"{out / 'notes'}: a folder in the place of a file; move it, or choose another OUT"


@pytest.mark.parametrize("kind", ["file", "link", "link to nowhere"])
def test_what_is_no_folder_of_chat_templates(tmp_path: Path, kind: str) -> None:
    """Neither a conversion nor a journal writes there."""
    out = write(tmp_path / "out", OLD | FOREIGN)
    if kind == "file":
        (out / TEMPLATES).write_text("mine")
    else:
        (tmp_path / "there").mkdir()
        (out / TEMPLATES).symlink_to(tmp_path / ("there" if kind == "link" else "nowhere"))
    before = content(tmp_path)
    said = f"{out / TEMPLATES}: not a folder, but new chat templates belong in one; move it, or choose another OUT"
    with pytest.raises(TargetError) as caught:
        replace(out, NEW | {f"{TEMPLATES}/x.jinja": "new"})
    assert (str(caught.value), content(tmp_path)) == (said, before)
    journal(out, replaced=[f"{TEMPLATES}/x.jinja"], new=["conversion.json"])
    write(out / NAME / ".replaced", {f"{TEMPLATES}/x.jinja": "a stranger's"})
    assert refused(out) == said


def test_what_was_put_there_meanwhile_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = interrupted(tmp_path, monkeypatch)
    (out / "conversion.json").write_text("mine")
    with pytest.raises(TargetError) as caught:
        settle(out)
    said = f"{out / 'conversion.json'}: another process put it there meanwhile; move it away and run this again"
    assert str(caught.value) == said
    assert (out / "conversion.json").read_text() == "mine"
    (out / "conversion.json").unlink()
    settle(out)
    assert texts(out) == OLD | FOREIGN


def test_what_is_left_of_a_journal(tmp_path: Path) -> None:
    """Of a run that died as it took it away: an empty folder."""
    out = write(tmp_path / "out", FOREIGN)
    (out / NAME).mkdir()
    settle(out)
    assert not (out / NAME).exists()
    (out / NAME).mkdir()
    (out / NAME / "mine").touch()
    assert refused(out) == strange(out)


def test_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    out = interrupted(tmp_path, monkeypatch)
    settle(out)
    settle(out)
    said = f"{out}: interrupted while its files were being replaced; the old ones are restored"
    assert [record.message for record in caplog.records] == [said]

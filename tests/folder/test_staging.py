"""An output folder appears whole or not at all, whatever happens meanwhile."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from converter.errors import SourceError, TargetError
from converter.folder import staging as folders
from converter.folder.staging import explained, staged, staged_file
from converter.system import renaming

HALF = ".partial-123456123456"  # what comes after the name, of a run that died


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


def old_checkpoint(out: Path) -> Path:
    out.mkdir()
    (out / "config.json").write_text("old")
    return out


def test_appears_at_the_end(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    with staged(out, False) as staging:
        assert not out.exists()
        assert staging.parent == out.parent
        (staging / "a").write_text("new")
    assert (out / "a").read_text() == "new"
    assert leftovers(out.parent) == []


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, MemoryError])
def test_nothing_is_left_of_a_failure(tmp_path: Path, error: type[BaseException]) -> None:
    with pytest.raises(error), staged(tmp_path / "out", False) as staging:
        (staging / "a").write_text("half")
        raise error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kernel", [True, False])
def test_overwrites_what_is_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kernel: bool) -> None:
    if not kernel:
        monkeypatch.setattr(renaming, "_in_kernel", lambda *_: False)
    out = old_checkpoint(tmp_path / "out")
    (out / "README.md").write_text("mine")
    with staged(out, True) as staging:
        (staging / "b").write_text("new")
        assert (out / "config.json").read_text() == "old"
    assert sorted(path.name for path in out.iterdir()) == ["README.md", "b"]
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("kernel", [True, False])
def test_a_failure_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kernel: bool) -> None:
    if not kernel:
        monkeypatch.setattr(renaming, "_in_kernel", lambda *_: False)
    out = old_checkpoint(tmp_path / "out")
    with pytest.raises(ValueError), staged(out, True):
        raise ValueError
    assert (out / "config.json").read_text() == "old"
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("kernel", [True, False])
def test_somebody_else_was_faster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kernel: bool) -> None:
    if not kernel:
        monkeypatch.setattr(renaming, "_in_kernel", lambda *_: False)
    out = tmp_path / "out"
    with pytest.raises(TargetError) as caught, staged(out, False):
        old_checkpoint(out)
    assert str(caught.value) == f"{out}: another process created it meanwhile; choose another folder"
    assert (out / "config.json").read_text() == "old"
    assert leftovers(tmp_path) == []


def test_sweeps_what_the_dead_left_and_nothing_else(tmp_path: Path) -> None:
    names = [f".{name}{HALF}" for name in ("out", "out2", "other")] + [f".out{HALF[:-1]}5", ".out.partial-mine"]
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_text("half")
    (tmp_path / f".out{HALF[:-1]}f").write_text("not a folder")
    (tmp_path / f".out{HALF[:-1]}a").symlink_to(tmp_path / f".other{HALF}")
    with staged(tmp_path / "out", False):
        pass
    assert leftovers(tmp_path) == [
        f".other{HALF}", f".out{HALF[:-1]}a", f".out{HALF[:-1]}f", ".out.partial-mine", f".out2{HALF}",
    ]  # fmt: skip


def test_stars_in_a_name_are_letters(tmp_path: Path) -> None:
    for name in ("oxt", "o*t", "o[x]t"):
        (tmp_path / f".{name}{HALF}").mkdir()
    for name in ("o*t", "o[x]t"):
        with staged(tmp_path / name, False):
            pass
    assert leftovers(tmp_path) == [f".oxt{HALF}"]


def test_the_living_are_not_swept(tmp_path: Path) -> None:
    with staged(tmp_path / "out", True) as first:
        (first / "first").touch()
        with staged(tmp_path / "out", False) as second:
            assert first.exists()
            assert first != second
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["first"]


def test_swept_before_it_was_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between making and locking its folder a run may lose it to another's sweep: it makes one again."""
    real = os.open
    lost: list[Path] = []

    def lose_once(path: Path, flags: int) -> int:
        if not lost:
            lost.append(path)
            path.rmdir()
        return real(path, flags)

    monkeypatch.setattr(os, "open", lose_once)
    with staged(tmp_path / "out", False) as staging:
        assert staging != lost[0]
    assert (tmp_path / "out").is_dir()


def test_two_runs_at_once(tmp_path: Path) -> None:
    """One wins, the others are refused; nothing of them is left."""
    barrier = threading.Barrier(6)
    results: list[str] = []

    def run(number: int) -> None:
        try:
            with staged(tmp_path / "out", False) as staging:
                (staging / "who").write_text(str(number))
                barrier.wait(10)
            results.append(f"won {number}")
        except TargetError as error:
            results.append(str(error))

    threads = [threading.Thread(target=run, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    won = [result for result in results if result.startswith("won")]
    assert won == [f"won {(tmp_path / 'out' / 'who').read_text()}"]
    assert results.count(f"{tmp_path / 'out'}: another process created it meanwhile; choose another folder") == 5
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGTERM])
def test_killed_in_the_middle(tmp_path: Path, kill: signal.Signals) -> None:
    script = (
        "import sys, time; from pathlib import Path; from converter.folder.staging import staged\n"
        f"with staged(Path({str(tmp_path / 'out')!r}), False) as staging:\n"
        "    (staging / 'half').write_text('half'); print(staging.name, flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        name = process.stdout.readline().strip()
        process.send_signal(kill)
        process.wait(10)
    assert leftovers(tmp_path) == [name]
    with staged(tmp_path / "out", False) as staging:
        (staging / "whole").touch()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["whole"]


def test_a_parent_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    out = tmp_path / "file" / "out"
    with pytest.raises(TargetError) as caught, staged(out, False):
        pass
    assert str(caught.value) == f"{out}: cannot be made: File exists; choose another folder"


def failing(code: int) -> Callable[..., None]:
    def fail(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    return fail


def test_a_parent_that_may_not_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "mkdir", failing(errno.EACCES))
    with pytest.raises(TargetError) as caught, staged(tmp_path / "out", False):
        pass
    assert str(caught.value) == f"{tmp_path / 'out'}: cannot be made: Permission denied; choose another folder"


@pytest.mark.parametrize("call", [(Path, "mkdir"), (os, "open"), (fcntl, "flock")], ids=lambda call: call[1])
def test_interrupted_right_after_a_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: tuple[object, str]
) -> None:
    """What the handler of a signal raises comes between two calls of ours; the folder is removed all the same."""
    owner, name = call
    real = getattr(owner, name)

    def interrupted(*arguments: object, **options: object) -> object:
        result = real(*arguments, **options)
        if ".partial-" in str(arguments[0]) or name == "flock":
            patched.undo()  # what cleans up calls it, too
            raise KeyboardInterrupt
        return result

    place = tmp_path / "place"
    place.mkdir()
    with monkeypatch.context() as patched:
        patched.setattr(owner, name, interrupted)
        with pytest.raises(KeyboardInterrupt), staged(place / "new" / "out", False):
            pass
    assert list(place.iterdir()) == []


def test_what_became_something_else_is_not_replaced(tmp_path: Path) -> None:
    out = old_checkpoint(tmp_path / "out")
    with pytest.raises(TargetError) as caught, staged(out, True):
        (out / "config.json").unlink()
        out.rmdir()
        out.write_text("years")
    assert str(caught.value) == f"{out}: exists and is not a folder; choose another"
    assert out.read_text() == "years"
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("again", [True, False])
def test_out_is_taken_away_while_it_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, again: bool) -> None:
    """Right before its files are replaced: it is made again, or the other one that is there now gets them."""
    out = old_checkpoint(tmp_path / "out")
    real = folders._check_place
    taken: list[Path] = []

    def check(place: Path, overwrite: bool) -> None:
        real(place, overwrite)
        if not taken:
            taken.append(out.rename(tmp_path / "elsewhere"))
            if again:
                old_checkpoint(out)
                (out / "notes.txt").touch()

    with staged(out, True) as staging:
        (staging / "config.json").write_text("new")
        monkeypatch.setattr(folders, "_check_place", check)
    assert taken
    assert sorted(path.name for path in out.iterdir()) == ["config.json", *(["notes.txt"] if again else [])]
    assert (out / "config.json").read_text() == "new"
    assert (taken[0] / "config.json").read_text() == "old"
    assert leftovers(tmp_path) == []


def test_a_link_is_not_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What lies beside OUT may be made by anybody. That rmtree happens to refuse links is not relied on."""
    removed: list[Path] = []
    monkeypatch.setattr(shutil, "rmtree", lambda path, **_: removed.append(path))
    old_checkpoint(tmp_path / "elsewhere")
    link = tmp_path / f".out{HALF}"
    link.symlink_to("elsewhere")
    with staged(tmp_path / "out", False) as staging:
        (staging / "new").touch()
    assert removed == []
    assert link.is_symlink()
    assert (tmp_path / "elsewhere" / "config.json").read_text() == "old"


def test_a_folder_that_fills_between_look_and_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(renaming, "_in_kernel", lambda *_: False)
    out, real = tmp_path / "out", Path.rename

    def rename(self: Path, target: Path) -> Path:
        old_checkpoint(out)
        return real(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(TargetError) as caught, staged(out, False) as staging:
        (staging / "new").touch()
    assert str(caught.value) == f"{out}: another process created it meanwhile; choose another folder"


def test_parents_that_were_made_are_taken_away(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(ValueError), staged(tmp_path / "there" / "a" / "b" / "out", False):
        raise ValueError
    assert [path.name for path in tmp_path.rglob("*")] == ["there"]


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "flock", failing(errno.ENOLCK))
    with pytest.raises(TargetError) as caught, staged(tmp_path / "out", False):
        pass
    assert str(caught.value) == f"{tmp_path / 'out'}: cannot be made: No locks available; choose another folder"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("ENOSPC", "the disk is full; free some space"),
        ("EDQUOT", "the disk quota is used up; free some space"),
        ("EFBIG", "the file system does not support files of this size; choose another"),
        ("EROFS", "the file system is read-only; choose another folder"),
        ("EACCES", "permission denied; choose another folder"),
        ("EPERM", "operation not permitted; choose another folder"),
        ("EIO", "the disk reports a read or write error; choose another"),
        ("EOPNOTSUPP", "the file system lacks a needed operation; choose another"),
        ("EBUSY", "a file system is mounted there; choose a folder in it"),
        ("ENAMETOOLONG", "the name is too long; choose a shorter one"),
        ("EMFILE", "too many open files; raise the limit (ulimit -n), or use fewer shards"),
        ("ENFILE", "too many open files on this machine; try again later"),
        (
            "EXDEV",
            "the folder belongs to a lower layer of the file system; remove it yourself, or choose another folder",
        ),
    ],
)
def test_what_the_system_says_of_writing(code: str, reason: str) -> None:
    with pytest.raises(TargetError) as caught, explained(Path("out")):
        raise OSError(getattr(errno, code), "no")
    assert str(caught.value) == f"out: cannot be written, nothing was left behind: {reason}"


def test_other_system_errors_keep_their_traceback() -> None:
    with pytest.raises(OSError, match="Bad file"), explained(Path("out")):
        raise OSError(errno.EBADF, "Bad file")


def test_what_cannot_be_read_is_the_source() -> None:
    with pytest.raises(SourceError) as caught, explained(Path("out")):
        raise OSError(errno.EACCES, "Permission denied", "src/vocab.txt")
    assert str(caught.value) == (
        "src/vocab.txt: cannot be read: Permission denied; check its permissions (nothing was left behind)"
    )
    with pytest.raises(TargetError), explained(Path("out")):
        raise OSError(errno.EACCES, "Permission denied", f".out{HALF}/vocab.txt")


def test_a_file_appears_whole(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")
    (tmp_path / f".file.txt{HALF}").mkdir()
    with staged_file(path) as fresh:
        fresh.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_no_half_file_is_left(tmp_path: Path, error: type[BaseException]) -> None:
    with pytest.raises(error), staged_file(tmp_path / "file.txt") as fresh:
        fresh.write_text("half")
        raise error
    assert list(tmp_path.iterdir()) == []


def test_interrupted_while_the_folder_of_a_file_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is in its place by then."""
    real = folders._remove
    removed: list[Path] = []

    def remove(staging: Path) -> None:
        removed.append(staging)
        if len(removed) == 1:
            raise KeyboardInterrupt
        real(staging)

    monkeypatch.setattr(folders, "_remove", remove)
    with pytest.raises(KeyboardInterrupt), staged_file(tmp_path / "file.txt") as fresh:
        fresh.write_text("new")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["new"]


@pytest.mark.parametrize("kernel", [True, False])
@pytest.mark.parametrize("late", [True, False])
def test_a_file_that_is_there_may_have_to_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, late: bool, kernel: bool
) -> None:
    if not kernel:
        monkeypatch.setattr(renaming, "_in_kernel", lambda *_: False)
    path = tmp_path / "file.txt"
    if not late:
        path.write_text("old")
    with pytest.raises(FileExistsError), staged_file(path, replace=False) as fresh:
        fresh.write_text("new")
        path.write_text("old")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "there").write_text("old")
    (tmp_path / "link").symlink_to("there")
    with staged_file(tmp_path / "link") as fresh:
        fresh.write_text("new")
    assert (tmp_path / "there").read_text() == "old"
    assert (tmp_path / "link").read_text() == "new"
    assert not (tmp_path / "link").is_symlink()


def test_what_others_take_away_while_it_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not read-only then."""
    out = old_checkpoint(tmp_path / "out")
    real = os.access
    taken: list[Path] = []

    def look(path: Path, mode: int) -> bool:
        if path == out and not taken:
            taken.append(out.rename(tmp_path / "elsewhere"))
        return real(path, mode)

    monkeypatch.setattr(os, "access", look)
    with staged(out, True) as staging:
        (staging / "new").touch()
        folders.check_out(out, None, True)
    assert taken
    assert [path.name for path in out.iterdir()] == ["new"]

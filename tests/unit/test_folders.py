"""An output folder appears whole or not at all, whatever happens meanwhile."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from converter import folders
from converter.errors import TargetError
from converter.folders import staged


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
def test_overwrites_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kernel: bool) -> None:
    if not kernel:
        monkeypatch.setattr(folders, "_rename", lambda *_: False)
    out = old_checkpoint(tmp_path / "out")
    with staged(out, True) as staging:
        (staging / "b").write_text("new")
        assert (out / "config.json").read_text() == "old"
    assert [path.name for path in out.iterdir()] == ["b"]
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("kernel", [True, False])
def test_a_failure_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kernel: bool) -> None:
    if not kernel:
        monkeypatch.setattr(folders, "_rename", lambda *_: False)
    out = old_checkpoint(tmp_path / "out")
    with pytest.raises(ValueError), staged(out, True):
        raise ValueError
    assert (out / "config.json").read_text() == "old"
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("kernel", [True, False])
def test_somebody_else_was_faster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kernel: bool) -> None:
    if not kernel:
        monkeypatch.setattr(folders, "_rename", lambda *_: False)
    out = tmp_path / "out"
    with pytest.raises(TargetError) as caught, staged(out, False):
        old_checkpoint(out)
    assert str(caught.value) == f"{out}: was made by somebody else meanwhile; choose another folder"
    assert (out / "config.json").read_text() == "old"
    assert leftovers(tmp_path) == []


def test_a_second_rename_that_fails_is_undone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "_rename", lambda *_: False)
    out = old_checkpoint(tmp_path / "out")
    real = Path.rename

    def rename(self: Path, target: Path) -> Path:
        if target == out and not self.name.endswith("-old"):
            raise OSError(errno.EIO, "I/O error")
        return real(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(OSError, match="I/O error"), staged(out, True):
        pass
    assert (out / "config.json").read_text() == "old"
    assert leftovers(tmp_path) == []


def test_killed_between_two_renames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the kernel's exchange there is a moment without ``out``: the next run puts the old one back."""
    aside = old_checkpoint(tmp_path / ".out.partial-123456123456-old")
    (tmp_path / ".out.partial-123456123456").mkdir()
    with pytest.raises(TargetError) as caught, staged(tmp_path / "out", False):
        pass
    assert str(caught.value) == f"{tmp_path / 'out'}: was made by somebody else meanwhile; choose another folder"
    assert (tmp_path / "out" / "config.json").read_text() == "old"
    assert not aside.exists()
    assert leftovers(tmp_path) == []


def test_what_a_living_run_has_put_aside_is_left_alone(tmp_path: Path) -> None:
    old_checkpoint(tmp_path / ".out.partial-123456123456-old")
    staging = tmp_path / ".out.partial-123456123456"
    staging.mkdir()
    held = os.open(staging, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    with staged(tmp_path / "out", False):
        pass
    os.close(held)
    assert leftovers(tmp_path) == [staging.name, f"{staging.name}-old"]


def test_sweeps_what_the_dead_left_and_nothing_else(tmp_path: Path) -> None:
    names = [".out.partial-0123", ".out.partial-4567", ".out2.partial-0123", ".other.partial-0123"]
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_text("half")
    (tmp_path / ".out.partial-file").write_text("not a folder")
    (tmp_path / ".out.partial-link").symlink_to(tmp_path / ".other.partial-0123")
    with staged(tmp_path / "out", False):
        pass
    assert leftovers(tmp_path) == [
        ".other.partial-0123", ".out.partial-file", ".out.partial-link", ".out2.partial-0123",
    ]  # fmt: skip


def test_stars_in_a_name_are_letters(tmp_path: Path) -> None:
    (tmp_path / ".oxt.partial-0123").mkdir()
    with staged(tmp_path / "o*t", False):
        pass
    assert leftovers(tmp_path) == [".oxt.partial-0123"]


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
    assert results.count(f"{tmp_path / 'out'}: was made by somebody else meanwhile; choose another folder") == 5
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGTERM])
def test_killed_in_the_middle(tmp_path: Path, kill: signal.Signals) -> None:
    script = (
        "import sys, time; from pathlib import Path; from converter.folders import staged\n"
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

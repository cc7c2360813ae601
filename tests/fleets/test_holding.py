"""The lock of OUTDIR: refused while its owner lives, taken over when that is certain or its heart has stopped."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from converter.errors import TargetError
from converter.fleets import holding
from converter.fleets.holding import NAME, SECONDS_TO_EXPIRE, Held, holder_of
from converter.system.others import began, this_machine


def lock(folder: Path, age: float = 0.0, **said: object) -> None:
    usual = {
        "owner": "x",
        "machine": this_machine(),
        "process": os.getpid(),
        "since": began(os.getpid()),
        "running": ["a"],
    }
    (folder / NAME).write_text(json.dumps(usual | said))
    os.utime(folder / NAME, (time.time() - age,) * 2)


@pytest.fixture
def ended() -> int:
    """The number of a process that has ended."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    return process.pid


def test_held_and_given_back(tmp_path: Path) -> None:
    with Held(tmp_path, lambda: ("a", "b")):
        held = holder_of(tmp_path)
        assert held is not None
        assert (held.running, held.has_expired, held.process) == (("a", "b"), False, os.getpid())
        with (
            pytest.raises(TargetError, match=f"another run is converting into it \\(process {os.getpid()} of this"),
            Held(tmp_path),
        ):
            pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("age", "said", "expired"),
    [
        (0, {}, False),
        (SECONDS_TO_EXPIRE + 9, {}, True),
        (0, {"machine": "another"}, False),
        (SECONDS_TO_EXPIRE - 9, {"machine": "another"}, False),
        (SECONDS_TO_EXPIRE + 9, {"machine": "another"}, True),
        (0, {"since": "another process of that number"}, True),
        (0, {"process": -1}, False),
        (0, {"process": 2**70}, False),
    ],
)
def test_when_it_has_expired(tmp_path: Path, age: float, said: dict[str, object], expired: bool) -> None:
    lock(tmp_path, age, **said)
    held = holder_of(tmp_path)
    assert held is not None
    assert held.has_expired is expired
    if expired:
        with Held(tmp_path):
            assert holder_of(tmp_path) != held
    else:
        with pytest.raises(TargetError, match="another run is converting"), Held(tmp_path):
            pass
        assert holder_of(tmp_path).owner == "x"  # type: ignore[union-attr]


def test_a_process_that_has_ended(tmp_path: Path, ended: int) -> None:
    lock(tmp_path, process=ended)
    (tmp_path / f".{NAME}-0123456789ab").touch()
    (tmp_path / f".{NAME}-mine").touch()
    with Held(tmp_path):
        assert sorted(path.name for path in tmp_path.iterdir()) == [f".{NAME}-mine", NAME]


@pytest.mark.parametrize(
    "text", ["", "my notes", "[]", "{}", '{"owner": 7}', "[" * 60_000, '{"owner": "x"}' + " " * holding.MAX_LOCK_BYTES]
)
def test_a_file_that_is_no_lock_is_left_alone(tmp_path: Path, text: str) -> None:
    (tmp_path / NAME).write_text(text)
    os.utime(tmp_path / NAME, (0, 0))
    with pytest.raises(TargetError, match="not the lock of a fleet; choose another folder"), Held(tmp_path):
        pass
    assert (tmp_path / NAME).read_text() == text


def test_a_link_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / NAME).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(TargetError, match="not the lock of a fleet"), Held(tmp_path):
        pass
    assert (tmp_path / NAME).is_symlink()


def test_the_heart_beats_until_another_has_taken_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holding, "SECONDS_PER_BEAT", 0.01)
    with Held(tmp_path) as held:
        os.utime(tmp_path / NAME, (0, 0))
        until = time.monotonic() + 20
        while (tmp_path / NAME).stat().st_mtime == 0 and time.monotonic() < until:
            time.sleep(0.01)
        assert (tmp_path / NAME).stat().st_mtime > 0
        held._ended.set()
        held._heart.join()
        lock(tmp_path, owner="another")
        held._ended.clear()
        held._beat()
        assert held.is_lost
    assert holder_of(tmp_path).owner == "another"  # type: ignore[union-attr]

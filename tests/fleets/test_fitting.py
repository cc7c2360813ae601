"""What tasks take, and that no more are started than fit: of the disk, of memory, of the Hub."""

from __future__ import annotations

import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from converter import fleet
from converter.fleets import fitting
from converter.fleets.fitting import (
    CONVERSION_BYTES,
    FRAMEWORKS_BYTES,
    MAX_HUB_TASKS,
    Need,
    Room,
    need_of,
    weights_bytes,
)
from converter.fleets.running import FleetProgress
from converter.fleets.tasks import Task
from tests.tiny import FIXTURE

Usage = namedtuple("Usage", "total used free")
SIZE = (FIXTURE / "model.safetensors").stat().st_size


def test_what_a_task_takes() -> None:
    here = Task(str(FIXTURE), "x", "line 1")
    assert need_of(here, "weights", 7, is_done=False) == Need(SIZE, CONVERSION_BYTES)
    assert need_of(here, "weights", 7, is_done=True).disk == 0
    outputs = need_of(here, "outputs", 7, is_done=False)
    assert outputs == Need(SIZE, CONVERSION_BYTES + FRAMEWORKS_BYTES + 2 * SIZE, cpus=2)
    wide = Task(str(FIXTURE), "x", "line 1", options={"dtype": "float32"})
    assert need_of(wide, "none", 0, is_done=False).disk == 2 * SIZE
    for hub in (True, None):
        assert need_of(Task("org/none", "x", "line 1", hub=hub), "none", 7, is_done=False) == Need(7, network=1)
    assert need_of(Task("org/none", "x", "line 1", hub=False), "none", 7, is_done=False) == Need(0)
    assert need_of(Task("s3://bucket/a", "x", "line 1"), "none", 7, is_done=False) == Need(7)
    for on_hub in ("hf://org/none", "hf://datasets/org/none"):
        assert need_of(Task(on_hub, "x", "line 1"), "none", 7, is_done=False).network == 1


def test_of_weights_for_several_frameworks_one_set_counts(tmp_path: Path) -> None:
    for name, size in {"a-1.bin": 3, "a-2.bin": 4, "tf_model.h5": 6, "notes.txt": 99}.items():
        (tmp_path / name).write_bytes(b"x" * size)
    assert weights_bytes(tmp_path) == 7
    assert weights_bytes(tmp_path / "tf_model.h5") == 6
    assert weights_bytes(tmp_path / "none") == 0


def test_what_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting.shutil, "disk_usage", lambda _: Usage(1000, 0, 120))  # of which 20 stay free
    room = Room(tmp_path / "not" / "yet", memory=10)
    assert room.disk == 100
    assert room.fits(Need(100, 0), ())
    assert not room.fits(Need(101, 0), ())
    assert not room.fits(Need(41, 0), (Need(40, 0), Need(20, 0)))
    assert room.fits(Need(40, 0), (Need(40, 0), Need(20, 0)))
    assert room.fits(Need(0, 99), ())  # alone, whatever it takes
    assert not room.fits(Need(0, 6), (Need(0, 5),))
    assert Room(tmp_path, None).fits(Need(0, 6), (Need(0, 5),))
    hub = Need(0, 0, network=1)
    assert room.fits(hub, [hub] * (MAX_HUB_TASKS - 1))
    assert not room.fits(hub, [hub] * MAX_HUB_TASKS)
    assert room.fits(Need(0, 0), [hub] * MAX_HUB_TASKS)


def test_a_disk_that_would_fill(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One at a time where it has room for one; what does not fit at all is left, and said; then goes on from there."""
    large = models / "b" / "model.safetensors"
    with large.open("ab") as file:
        file.truncate(3 * SIZE)
    free = 3 * SIZE // 2
    monkeypatch.setattr(fitting.shutil, "disk_usage", lambda _: Usage(0, 0, free))
    most: list[int] = []

    def look(far: FleetProgress) -> None:
        most.append(len(far.running))

    found = fleet(models, "out", verify="none", workers=3, progress=look)
    assert max(most) == 1
    assert {task.name: task.state for task in found.tasks} == {"b": "left", "a": "done", "org--c": "done"}
    assert found.stopped == (
        f"stopped: the disk of out is too full: b needs {3 * SIZE:,} bytes, and {free:,} are free; free some space "
        "and run this again for the rest"
    )
    shutil.copy(FIXTURE / "model.safetensors", large)
    free = 2 * SIZE
    assert fleet(models, "out", verify="none").counts == {"done": 3}

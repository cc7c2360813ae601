"""On a Ray cluster, what goes wrong costs its own task alone: poisoned checkpoints, signals, second runs (`make torture`)."""

from __future__ import annotations

import os
import pickle
import re
import shutil
import signal
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from converter import fleet_status, inspect
from converter.buckets.scratch import PREFIX
from converter.fleets.holding import NAME as LOCK
from tests.fleets.conftest import Rays
from tests.fleets.test_fleet import attempts, command_of, corrupt, lines, started_by
from tests.fleets.test_ray_cluster import below, kill_a_worker, noted, until
from tests.tiny import FIXTURE

pytestmark = [pytest.mark.torture, pytest.mark.filterwarnings("ignore")]
pytest.importorskip("ray")
_BOMB = "[" + "[]," * 2_700_000 + "[]]"  # 8 MB that take some 250 to read


class Hostile:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_poisoned_checkpoints(models: Path, rays: Rays) -> None:
    """Each costs its own task, with its own reason; what stands beside it is converted."""
    pytest.importorskip("s3fs")
    corrupt(models / "b")
    shutil.copytree(FIXTURE, models / "bomb")
    (models / "bomb" / "config.json").write_text(_BOMB)
    shutil.copytree(FIXTURE, models / "hostile")
    (models / "hostile" / "model.safetensors").unlink()
    with zipfile.ZipFile(models / "hostile" / "pytorch_model.bin", "w") as file:
        file.writestr("archive/data.pkl", pickle.dumps(Hostile(models / "owned"), 2))
        file.writestr("archive/version", "3\n")
    names = [
        "s3://bucket/hangs",
        "models/bomb",
        "models/hostile",
        "models/b",
        "models/a",
        "models/org/c",
        "models/none",
    ]
    Path("list.txt").write_text("\n".join(names))
    run = rays.run("list.txt", "out", "--deadline", "25", "--memory", "150MB")
    found = {task.source: task for task in fleet_status("out").tasks}
    assert run.returncode == 1, run.stderr
    assert Counter(task.state for task in found.values()) == {"failed": 5, "done": 2}
    for label, said in {
        names[0]: "not done within 25 s, so it was stopped; raise --deadline",
        names[1]: "took more than 150,000,000 bytes of memory, so it was stopped; raise --memory",
        names[2]: "",
        names[3]: "download or save it again",
        names[6]: "",
    }.items():
        assert said in found[label].error, found[label]
        assert found[label].next, found[label]
    assert len({task.error for task in found.values() if task.state == "failed"}) == 5
    assert not (models / "owned").exists()
    assert not list(Path("out").glob(".*"))


def test_retry_failed_and_stop_after_failures(models: Path, rays: Rays) -> None:
    for name in ("a", "b", "org/c"):
        corrupt(models / name)
    first = rays.run("models", "out", "--workers", "1", "--stop-after-failures", "2")
    assert first.returncode == 1
    assert first.stdout.splitlines()[1].strip().startswith("stopped after 2 failures (--stop-after-failures)")
    assert fleet_status("out").counts == {"failed": 2, "left": 1}
    shutil.copy(FIXTURE / "model.safetensors", models / "org" / "c")
    assert rays.run("models", "out").returncode == 1
    assert Counter(attempts(Path("out"))) == {"a": 1, "b": 1, "org--c": 1}
    again = rays.run("models", "out", "--retry", "failed")
    assert (again.returncode, again.stderr.count("download or save it again")) == (1, 2)
    assert Counter(attempts(Path("out"))) == {"a": 2, "b": 2, "org--c": 1}
    for name in ("a", "b"):
        shutil.copy(FIXTURE / "model.safetensors", models / name)
    assert rays.run("models", "out", "--retry", "failed", "-q").returncode == 0
    assert fleet_status("out").counts == {"done": 3}


def test_a_dry_run(models: Path, rays: Rays) -> None:
    corrupt(models / "b")
    run = rays.run("models", "out", "--dry-run")
    assert (run.returncode, run.stdout.splitlines()[0]) == (1, "3 checkpoints to tf: 1 failed, 2 convertible")
    assert not Path("out").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_driver_that_is_told_to_end(models: Path, rays: Rays, number: signal.Signals) -> None:
    """It takes back what Ray has, and leaves no half OUT and no lock; while it lives, a second run is refused."""
    for place in range(97):
        shutil.copytree(FIXTURE, models / f"m{place:02}")
    out = Path("out")
    with rays.start("models", "out", start_new_session=True) as driver:
        until(lambda: noted(out) >= 3, driver)
        second = rays.run("models", "out")
        os.killpg(driver.pid, number)  # as a terminal does
        _, err = driver.communicate()
    assert driver.returncode == 128 + number, err
    assert second.returncode == 2
    assert re.match(r"convert: out: another run is converting into it \(process \d+ of this machine", second.stderr)
    assert not list(out.glob(".*")) and not (out / LOCK).exists()
    assert noted(out) < 100
    for path in out.glob("[abmo]*"):
        assert inspect(path).problem is None
    until(lambda: not workers())
    assert rays.run("models", "out").returncode == 0
    assert set(Counter(attempts(out)).values()) == {1}
    assert len(attempts(out)) == 100


def test_what_a_killed_worker_leaves(models: Path, rays: Rays) -> None:
    """Its task is done by another, and its temporary folder goes with the next run."""
    for place in range(40):
        shutil.copytree(FIXTURE, models / f"m{place:02}")
    out = Path("out")
    with rays.start("models", "out") as driver:
        until(lambda: noted(out) >= 3, driver)
        kill_a_worker()
        driver.communicate()
    assert driver.returncode == 0
    assert set(Counter(attempts(out)).values()) == {1}
    until(lambda: not workers())
    left = set(rays.temporary.glob(f"{PREFIX}*"))
    assert rays.run("models", "out").returncode == 0
    assert not left & set(rays.temporary.glob(f"{PREFIX}*"))


def test_a_node_whose_memory_runs_out(models: Path) -> None:
    """Ray ends what runs there. It gives up after some times, and the run goes on."""
    rays = Rays(nodes=1, memory_usage_threshold=0.001, memory_monitor_refresh_ms=100)
    try:
        run = rays.run("models", "out", "--verify", "none")
        found = fleet_status("out")
    finally:
        rays.close()
    assert (run.returncode, found.counts) == (1, {"failed": 3}), run.stderr
    assert found.tasks[0].error.startswith("memory of its node ran out 6 times; use nodes with more memory")


@pytest.mark.tf
@pytest.mark.torch
def test_outputs_in_processes_that_are_kept(models: Path, rays: Rays) -> None:
    """One of each framework for all checkpoints of a worker of Ray's."""
    for place in range(6):
        shutil.copytree(FIXTURE, models / f"m{place}")
    seen: set[int] = set()
    with rays.start("models", "out", "--verify", "outputs", "--workers", "1") as driver:
        while driver.poll() is None:
            theirs = [number for worker in workers() for number in started_by(worker)]
            seen.update(number for number in theirs if b"parity.runners" in command_of(number))
        driver.communicate()
    attempted = [line for line in lines(Path("out")) if line["kind"] == "attempt"]
    assert [(line["state"], line["verdict"]) for line in attempted] == [("done", "passed")] * 9
    assert len(seen) == 2 * len({line["worker"] for line in attempted})
    assert len({line["worker"] for line in attempted}) <= 2


def workers() -> list[int]:
    """Processes that work on checkpoints, of any node."""
    return [number for number in below(os.getpid()) if b"converter.fleets.worker" in command_of(number)]

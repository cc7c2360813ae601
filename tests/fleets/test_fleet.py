"""Fleets from end to end: the results of good and bad checkpoints, and of a second run after any interruption."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from converter import Fleet, FleetProgress, fleet, fleet_status, inspect, pt2tf
from converter.buckets.scratch import PREFIX
from converter.errors import OptionError, SourceError, TargetError
from converter.fleets import carrying_out, holding
from converter.fleets.ledger import NAME as LEDGER
from converter.fleets.ledger import read_history
from converter.system.others import private_memory, those_below
from tests.cli.conftest import Convert
from tests.cli.schemas import validated
from tests.tiny import FIXTURE, config_of, tensors_of, write_checkpoint

ROOT = Path(__file__).resolve().parents[2]


def states(found: Fleet) -> dict[str, str]:
    return {task.name: task.state + (" before" if task.unchanged else "") for task in found.tasks}


def lines(out: Path) -> list[dict[str, Any]]:
    """The ledger's lines, each as its schema has it."""
    return [validated(line, "ledger") for line in (out / LEDGER).read_text().splitlines() if line]


def attempts(out: Path) -> list[str]:
    return [line["name"] for line in lines(out) if line["kind"] == "attempt"]


def corrupt(folder: Path) -> None:
    with (folder / "model.safetensors").open("r+b") as file:
        file.truncate(5_000)


def test_a_fleet_and_the_next_runs(models: Path) -> None:
    corrupt(models / "b")
    out = Path("out")
    found = fleet(models, out, workers=2)
    assert states(found) == {"b": "failed", "a": "done", "org--c": "done"}
    assert (found.status, found.tasks[0].name, found.stopped) == ("failed", "b", "")
    assert found.tasks[0].error.endswith("download or save it again")
    assert found.tasks[0].next == "download or save it again"
    assert inspect(out / "a").framework == "tf"
    assert all((out / task.report).is_file() and task.verdict == "passed" for task in found.tasks[1:])
    assert set(found.tasks[1].hashes) == {path.name for path in (out / "a").iterdir()} - {"conversion.json"}
    written = validated((out / "fleet.json").read_text(), "fleet")
    assert written == json.loads(json.dumps(found.to_json()))

    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.parent != out}
    again = fleet(models, out, workers=1)
    assert states(again) == {"b": "failed before", "a": "done before", "org--c": "done before"}
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert sorted(attempts(out)) == ["a", "b", "org--c"]

    shutil.copy(FIXTURE / "model.safetensors", models / "b")  # which is tried again, for it has changed
    third = fleet(models, out)
    assert (states(third), third.status) == ({"a": "done before", "b": "done", "org--c": "done before"}, "done")
    assert next(task.attempt for task in third.tasks if task.name == "b") == 2


def test_retry_failed(models: Path) -> None:
    corrupt(models / "b")
    fleet(models, "out", verify="none")
    again = fleet(models, "out", verify="none", retry="failed")
    assert states(again)["b"] == "failed"
    assert attempts(Path("out")).count("b") == 2


def test_a_changed_source_and_a_changed_out(models: Path) -> None:
    out = Path("out")
    fleet(models, out, verify="none")
    config = config_of()
    write_checkpoint(models / "a", config, tensors_of(config))
    (out / "a" / "mine.txt").write_text("stays\n")
    shutil.rmtree(out / "b")
    os.utime(models / "org" / "c" / "config.json")  # the same bytes: nothing is converted
    stood = (out / "org--c" / "conversion.json").stat().st_ino
    found = fleet(models, out)
    assert states(found) == {"a": "done", "b": "done", "org--c": "done"}
    assert (out / "a" / "mine.txt").read_text() == "stays\n"
    assert inspect(out / "a").family == "vision-text-dual-encoder"
    assert {task.verdict for task in found.tasks} == {"passed"}
    assert (out / "org--c" / "conversion.json").stat().st_ino == stood


def test_more_is_verified_of_what_is_there(models: Path) -> None:
    out = Path("out")
    fleet(models, out, verify="none")
    stood = (out / "a" / "conversion.json").stat().st_ino
    found = fleet(models, out, verify="weights")
    assert {task.verdict for task in found.tasks} == {"passed"}
    assert (out / "a" / "conversion.json").stat().st_ino == stood
    assert states(fleet(models, out, verify="none"))["a"] == "done before"


def test_what_is_not_ours_stays(models: Path) -> None:
    """A folder, a link and a file by the names of OUTs; an OUT that was made by hand is taken where it is the right one."""
    out = Path("out")
    (out / "a").mkdir(parents=True)
    (out / "a" / "conversion.json").write_text("{}")
    pt2tf(models / "b", out / "b")
    pt2tf(models / "a", out / "org--c", dtype="float16")
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    found = fleet(models, out)
    assert states(found) == {"a": "failed", "b": "done", "org--c": "failed"}
    assert found.tasks[1].error.startswith(
        "out/org--c: exists already, and was not made from this source; move it away"
    )
    assert {path: path.read_bytes() for path in before} == before
    assert states(fleet(models, out, retry="failed")) == {"a": "failed", "b": "done before", "org--c": "failed"}
    assert {path: path.read_bytes() for path in before} == before


def test_an_out_that_was_made_by_hand_and_changed_is_not_taken(models: Path) -> None:
    pt2tf(models / "a", "out/a")
    with Path("out/a/tf_model.h5").open("r+b") as file:
        file.seek(-8, os.SEEK_END)
        file.write(b"\xff" * 4)
    assert states(fleet(models, "out", verify="none"))["a"] == "failed"


@pytest.mark.parametrize("name", ["fleet.json", "fleet.html", "fleet-reports", LEDGER, holding.NAME])
def test_files_by_our_names_that_are_not_ours(models: Path, name: str) -> None:
    Path("out").mkdir()
    Path("out", name).write_text("mine\n")
    with pytest.raises((TargetError, SourceError), match="choose another folder"):
        fleet(models, "out")
    assert [path.name for path in Path("out").iterdir()] == [name]
    assert Path("out", name).read_text() == "mine\n"


def test_a_list_with_options(models: Path) -> None:
    Path("list.csv").write_text(f"source,name,dtype\nmodels/a,half,float16\n{models}/b,,\nmodels/none,,\n")
    found = fleet("list.csv", "out", to="pt", verify="none")
    assert states(found) == {"models--none": "failed", "b": "done", "half": "done"}
    assert inspect("out/half").dtypes == {"float16": inspect("out/b").tensors}
    with pytest.raises(SourceError, match="holds a fleet that was converted to pt; choose another folder for flax"):
        fleet("list.csv", "out", to="flax")


def test_stop_after_failures(models: Path) -> None:
    for name in ("a", "b", "org/c"):
        corrupt(models / name)
    found = fleet(models, "out", workers=1, stop_after_failures=2)
    assert found.counts == {"failed": 2, "left": 1}
    assert found.stopped.startswith("stopped after 2 failures")
    assert fleet_status("out").counts == {"failed": 2, "left": 1}
    assert fleet(models, "out", workers=1).counts == {"failed": 3}


def test_a_dry_run_writes_nothing(models: Path) -> None:
    corrupt(models / "b")
    found = fleet(models, "out", dry_run=True)
    assert states(found) == {"b": "failed", "a": "convertible", "org--c": "convertible"}
    assert found.tasks[1].nbytes == (FIXTURE / "model.safetensors").stat().st_size
    assert found.estimated_seconds is not None
    assert found.estimated_seconds > 0.05
    assert not Path("out").exists()


def test_no_path_of_this_machine_is_published(models: Path, tmp_path: Path) -> None:
    (models / "b" / "config.json").unlink()
    Path("list.txt").write_text(f"{models}/a\n{models}/b\n{tmp_path}/elsewhere/x\n")
    found = fleet(str(tmp_path / "list.txt"), tmp_path / "deep" / "out")
    assert sorted(states(found).values()) == ["done", "failed", "failed"]
    for path in (tmp_path / "deep" / "out").rglob("*"):
        if path.suffix in (".json", ".jsonl", ".html") and path.name != "config.json":
            assert str(tmp_path) not in path.read_text("utf-8"), path
    said = [task.error for task in found.tasks if task.error]
    assert any("b/config.json: not found" in one for one in said)


def test_progress(models: Path) -> None:
    told: list[FleetProgress] = []
    fleet(models, "out", workers=1, verify="none", progress=told.append)
    assert [far.ended for far in told if far.last is not None] == [1, 2, 3]
    assert any(len(far.running) == 1 for far in told)
    assert (told[-1].total, told[-1].failed, told[-1].seconds_left) == (3, 0, 0.0)
    assert told[-1].rate > 0


@pytest.mark.parametrize(
    ("given", "said"),
    [({"workers": 0}, "workers is 0; expected 1"), ({"workers": 999}, "workers is 999"), ({"deadline": 0.0}, "deadline"),
     ({"stop_after_failures": 0}, "stop_after_failures is 0"), ({"memory": "much"}, "memory is 'much'")],
)  # fmt: skip
def test_wrong_numbers(models: Path, given: dict[str, Any], said: str) -> None:
    with pytest.raises(OptionError, match=re.escape(said)):
        fleet(models, "out", **given)
    assert not Path("out").exists()


@pytest.mark.skipif(private_memory(os.getpid()) is None, reason="the system does not say what a process has")
def test_one_that_takes_too_much_memory(models: Path) -> None:
    """A config of 8 MB takes some 250 to read: its process ends, and that alone."""
    (models / "b" / "config.json").write_text("[" + "[]," * 2_700_000 + "[]]")
    found = fleet(models, "out", memory="150MB", verify="none", workers=1)
    assert states(found) == {"b": "failed", "a": "done", "org--c": "done"}
    assert found.tasks[0].error == "took more than 150,000,000 bytes of memory, so it was stopped; raise --memory"
    assert states(fleet(models, "out", verify="none"))["b"] == "failed before"


@pytest.mark.skipif(private_memory(os.getpid()) is None, reason="the system does not say what a process has")
def test_processes_below_one() -> None:
    """Those that it started, in a session of their own too, and theirs."""
    inner = "import sys; x = bytearray(b'1' * 50_000_000); print(flush=True); sys.stdin.read()"
    outer = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {inner!r}], start_new_session=True)"
    with subprocess.Popen([sys.executable, "-c", outer], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        below = those_below(process.pid)
        assert len(below) == 1
        assert (private_memory(below[0]) or 0) > 50_000_000
        assert set(below) < set(those_below(os.getpid()))
        process.communicate()
    assert those_below(process.pid) == ()


@pytest.mark.tf
@pytest.mark.torch
@pytest.mark.torture
def test_memory_of_frameworks_counts(models: Path) -> None:
    """It is theirs that a comparison of outputs takes; they end with the worker."""
    found = fleet(models, "out", memory="200MB", verify="outputs", workers=1)
    assert found.counts == {"failed": 3}
    assert found.tasks[0].error == "took more than 200,000,000 bytes of memory, so it was stopped; raise --memory"
    until(lambda: not any(b"parity.runners" in command_of(number) for number in those_below(os.getpid())))


# --- killed ------------------------------------------------------------------------------------------------------


def started(models: Path, *options: str, **environment: str) -> subprocess.Popen[bytes]:
    """A run in a process of its own."""
    command = [sys.executable, "-m", "converter", "fleet", str(models), "out", "--verify", "none", *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.002)


def children(process: int) -> list[int]:
    """Numbers of the workers that one has started."""
    return [number for number in started_by(process) if b"converter.fleets.worker" in command_of(number)]


def started_by(process: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{process}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += [int(word) for word in task.read_text().split()]
    return found


def command_of(process: int) -> bytes:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{process}/cmdline").read_bytes()
    return b""


@pytest.fixture
def many(models: Path) -> Path:
    """Seven checkpoints."""
    for number in range(4):
        shutil.copytree(FIXTURE, models / f"m{number}")
    return models


def reached(out: Path, point: str) -> Callable[[], bool]:
    """When a run has come to a point."""
    return {
        "the lock": lambda: (out / holding.NAME).exists(),
        "the first begins": lambda: any(
            path.name.startswith(".") and ".partial-" in path.name for path in out.glob(".*")
        ),
        "the first is there": lambda: any((path / "conversion.json").exists() for path in out.glob("[am]*")),
        "some are noted": lambda: (out / LEDGER).exists() and (out / LEDGER).read_bytes().count(b"\n") > 3,
    }[point]


@pytest.mark.parametrize(
    ("number", "point"),
    [
        (signal.SIGKILL, "the lock"),
        (signal.SIGKILL, "the first begins"),
        (signal.SIGKILL, "the first is there"),
        (signal.SIGKILL, "some are noted"),
        (signal.SIGTERM, "the first begins"),
    ],
)
def test_a_driver_that_is_killed(many: Path, number: int, point: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whenever it is: the next run begins at once, does nothing twice that was noted, and there is no half OUT.

    It also removes the temporary folder of the other's workers.
    """
    out = Path("out")
    sources = Path("t", f"{PREFIX}main")  # as somebody unpacks an archive of this project
    sources.mkdir(parents=True)
    monkeypatch.setattr(tempfile, "tempdir", str(Path("t").absolute()))
    with started(many, "--workers", "2", TMPDIR=str(Path("t").absolute())) as process:
        until(reached(out, point))
        workers = children(process.pid)
        process.send_signal(number)
    assert process.returncode == (-number if number == signal.SIGKILL else 128 + number)
    until(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers))
    noted = [] if read_history(out) is None else attempts(out)
    for path in out.glob("[!f.]*"):
        assert inspect(path).problem is None
    if number == signal.SIGTERM:
        assert not (out / holding.NAME).exists()
        assert not list(out.glob(".*.partial-*"))
    inodes = {path: path.stat().st_ino for path in out.glob("[!.]*/conversion.json")}
    found = fleet(many, out, verify="none", workers=2)
    assert found.counts == {"done": 7}
    assert {path: path.stat().st_ino for path in inodes} == inodes
    assert sorted(attempts(out)) == sorted(task.name for task in found.tasks)
    assert len(noted) == len(set(noted))
    assert not list(out.glob(".*"))
    assert list(Path("t").iterdir()) == [sources]


def test_a_worker_that_is_killed(models: Path) -> None:
    """By any process: its own task fails, with the next step."""
    killed: list[str] = []

    def kill(far: FleetProgress) -> None:
        if not killed and far.running:
            for number in children(os.getpid()):
                os.kill(number, signal.SIGKILL)
                killed.extend(far.running)

    found = fleet(models, "out", workers=1, verify="none", progress=kill)
    assert sorted(states(found).values()) == ["done", "done", "failed"]
    assert [task.name for task in found.tasks if task.state == "failed"] == killed
    assert found.tasks[0].error.startswith("its process ended with SIGKILL")
    assert fleet(models, "out", verify="none", retry="failed").counts == {"done": 3}
    assert not list(Path("out").glob(".*"))


def test_two_drivers(many: Path, convert: Convert) -> None:
    out = Path("out")
    with started(many, "--workers", "1") as process:
        until(reached(out, "the first begins"))
        status = convert("fleet", "status", "out", "--json")
        second = convert("fleet", many, "out", "--verify", "none")
        process.wait()
    assert process.returncode == 0
    assert validated(status.out, "fleet")["alive"]
    assert (status.status, sum(validated(status.out, "fleet")["counts"].values())) == (1, 7)
    assert second.status == 2
    assert re.match(r"convert: out: another run is converting into it \(process \d+ of this machine", second.err)
    assert fleet_status(out).counts == {"done": 7}
    assert len(attempts(out)) == 7


def test_a_run_whose_folder_was_taken_over(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It stops, and leaves the other's lock where it is."""
    monkeypatch.setattr(holding, "SECONDS_PER_BEAT", 0.01)
    lock = Path("out", holding.NAME)

    def take_over(far: FleetProgress) -> None:
        if far.last is None:
            lock.write_text('{"owner": "another"}')
            time.sleep(0.1)

    with pytest.raises(TargetError, match="another run has taken the folder over"):
        fleet(models, "out", verify="none", progress=take_over)
    assert lock.read_text() == '{"owner": "another"}'


# --- the command line --------------------------------------------------------------------------------------------


def test_the_command(models: Path, convert: Convert) -> None:
    corrupt(models / "b")
    run = convert("fleet", "models", "out", "--workers", "1")
    assert run.status == 1
    assert run.out.splitlines()[0] == "3 checkpoints to tf: 1 failed, 2 done"
    assert run.out.splitlines()[-1] == "next: convert fleet models out --to tf --verify weights --retry failed"
    assert run.err.splitlines()[0] == "convert: 1/3 a: done"
    assert convert("fleet", "status", "out").out.startswith("3 checkpoints to tf: 1 failed, 2 done\n")
    shutil.copy(FIXTURE / "model.safetensors", models / "b")
    assert convert("fleet", "models", "out", "-q") == (0, "", "")
    dry = convert("fleet", "models", "other", "--dry-run")
    assert (dry.status, dry.out.splitlines()[0]) == (0, "3 checkpoints to tf: 3 convertible")


def test_what_could_not_be_checked_is_three(models: Path, convert: Convert, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outputs, where no framework may be imported: converted, and not shown to be its source."""
    Path("hidden").mkdir()
    for name in ("torch", "keras", "tensorflow", "transformers"):
        Path("hidden", f"{name}.py").write_text("raise ImportError('hidden')\n")
    monkeypatch.setenv("PYTHONPATH", str(Path("hidden").absolute()))
    run = convert("fleet", "models", "out", "--verify", "outputs", "--workers", "1")
    assert run.status == 3
    assert run.out.startswith("3 checkpoints to tf: 3 not checked\n")
    assert "not checked: " in run.out


def test_an_answer_is_given_whatever_happens(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {"do": "convert", "source": str(models / "a"), "hub": False, "revision": None, "out": "out", "to": "tf",
             "options": {}, "verify": "none", "report": "", "report_name": "", "known": None, "again": False}  # fmt: skip
    for raised, said in (
        (MemoryError(), "memory ran out; "),
        (ZeroDivisionError("ours"), "a bug: ZeroDivisionError: ours; "),
    ):

        def refuse(*_: Any, raised: BaseException = raised, **__: Any) -> None:
            raise raised

        monkeypatch.setattr(carrying_out, "convert", refuse)
        found = carrying_out.carry_out(asked)
        assert (found["state"], found["error"].startswith(said)) == ("failed", True)


@pytest.mark.tf
@pytest.mark.torch
def test_outputs_in_processes_that_are_kept(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of each framework for all of them, which go with the worker."""
    shutil.rmtree(models / "b")
    seen: set[int] = set()

    def look(_: FleetProgress) -> None:
        for worker in children(os.getpid()):
            seen.update(number for number in started_by(worker) if b"parity.runners" in command_of(number))

    found = fleet(models, "out", verify="outputs", workers=1, progress=look)
    assert {task.name: task.verdict for task in found.tasks} == {"a": "passed", "org--c": "passed"}
    assert len(seen) == 2
    assert "layer output" in Path("out", found.tasks[0].report).read_text()
    until(lambda: not any(b"parity.runners" in command_of(number) for number in seen))
    assert states(fleet(models, "out", verify="weights"))["a"] == "done before"


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Nothing of a run outlives it."""
    before = set(children(os.getpid()))
    yield
    assert not set(children(os.getpid())) - before

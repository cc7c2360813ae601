"""Fleets whose OUTDIR is in a bucket: the ledger of immutable objects, the lock, and a run killed between any two writes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from converter import Fleet, fleet, fleet_status, inspect, pt2tf, verify
from converter.buckets.stores import Store
from converter.errors import BucketError, SourceError, TargetError
from converter.fleets import bucket_ledger, bucket_lock, carrying_out, holding, homes
from converter.fleets.attempts import Attempt
from converter.fleets.bucket_ledger import BucketLedger, read_history_in
from converter.fleets.bucket_lock import HeldBucket, holder_in
from converter.fleets.carrying_out import carry_out
from converter.fleets.ended import Ended
from converter.fleets.holding import SECONDS_TO_EXPIRE, Holder
from converter.fleets.on_node import carry_out_on_node
from converter.fleets.running import Run
from converter.folder.addresses import Address
from converter.folder.manifest import VERSION
from tests.buckets.conftest import Bucket
from tests.buckets.test_targets import Killed, dies_before
from tests.cli.conftest import Convert
from tests.cli.schemas import validated
from tests.tiny import FIXTURE

pytest.importorskip("fsspec", reason="fsspec is not installed (extra `cloud`)")
MEMORY = pytest.mark.parametrize("bucket", ["memory"], indirect=True)
S3 = pytest.mark.parametrize("bucket", ["s3"], indirect=True)
FILES = {path.name for path in FIXTURE.iterdir()} - {"model.safetensors"} | {"tf_model.h5", "conversion.json"}


class Here:
    """Workers of this process, who see its memory."""

    def __init__(self) -> None:
        self._ended: deque[Ended] = deque()

    def __enter__(self) -> Here:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    @property
    def running(self) -> tuple[Any, ...]:
        return tuple(ended.task for ended in self._ended)

    @property
    def is_full(self) -> bool:
        return bool(self._ended)

    def start(self, task: Any, question: Mapping[str, Any], need: Any) -> None:
        answer = carry_out(json.loads(json.dumps({"worker": 1, **question})))
        self._ended.append(Ended(task, 1, json.loads(json.dumps(answer)), "", 0.1))

    def wait(self) -> Ended | None:
        return self._ended.popleft()


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Run, "_workers", lambda _: Here())
    monkeypatch.setattr(homes._Bucket, "make", lambda _: None)


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Temporary folders of the test's own, of which none is left at its end."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield
    assert list(folder.iterdir()) == []


@pytest.fixture
def listed(bucket: Address, held: Bucket, tmp_path: Path) -> Path:
    """Two sources in the bucket, and one that is none."""
    for name in ("a", "b"):
        held.put_folder(f"models/{name}", FIXTURE)
    held.put_folder("models/bad", FIXTURE)
    held.put("models/bad/model.safetensors", b"x" * 100)
    path = tmp_path / "list.csv"
    path.write_text("source,name\n" + "".join(f"{bucket}/models/{name},{name}\n" for name in ("a", "b", "bad")))
    return path


def states(found: Fleet) -> dict[str, str]:
    return {task.name: task.state + (" before" if task.unchanged else "") for task in found.tasks}


def noted(held: Bucket, key: str = "out") -> dict[str, dict[str, Any]]:
    """The objects of the ledger, each as its schema has it."""
    found = held.files(f"{key}/{bucket_ledger.FOLDER}")
    return {name: validated(text.decode(), "ledger") for name, text in found.items()}


@pytest.mark.usefixtures("here")
def test_a_fleet_and_the_next_runs(bucket: Address, held: Bucket, listed: Path) -> None:
    out = f"{bucket}/out"
    found = fleet(listed, out)
    assert states(found) == {"bad": "failed", "a": "done", "b": "done"}
    assert found.tasks[0].error.endswith("download or save it again") and str(found.out) == out
    there = held.files("out")
    assert set(there) == {
        "fleet.html", "fleet.json", "fleet-lock/00000001.json", "fleet-reports/a.html", "fleet-reports/b.html",
        *(f"fleet-ledger/00000001/{name}.json" for name in ("fleet-run", "a", "b", "bad")),
        *(f"{name}/{file}" for name in "ab" for file in FILES),
    }  # fmt: skip
    assert json.loads(there["fleet.json"]) == json.loads(json.dumps(found.to_json()))
    assert noted(held)["00000001/a.json"]["verdict"] == "passed"
    assert set(noted(held)["00000001/a.json"]["hashes"]) == FILES - {"conversion.json"}
    assert verify(f"{out}/a", weights_only=True).passed

    again = fleet(listed, out)
    assert states(again) == {"bad": "failed before", "a": "done before", "b": "done before"}
    new = held.files("out")
    assert set(new) - set(there) == {"fleet-ledger/00000002/fleet-run.json", "fleet-lock/00000002.json"}
    assert {name: text for name, text in new.items() if name in there and not name.startswith("fleet.")} == {
        name: text for name, text in there.items() if not name.startswith(("fleet.", "fleet-lock"))
    }

    held.put("models/bad/model.safetensors", (FIXTURE / "model.safetensors").read_bytes())  # tried again: it changed
    held.put("models/a/tokenizer_config.json", b"{}")
    third = fleet(listed, out)
    assert states(third) == {"a": "done", "b": "done before", "bad": "done"}
    assert {task.name: task.attempt for task in third.tasks} == {"a": 2, "b": 1, "bad": 2}
    assert held.files("out")["a/tokenizer_config.json"] == b"{}"
    with pytest.raises(SourceError, match="holds a fleet that was converted to tf; choose another folder for flax"):
        fleet(listed, out, to="flax")
    assert states(fleet_status(out)) == {"a": "done", "b": "done", "bad": "done"}


@MEMORY
@pytest.mark.usefixtures("here")
def test_retry_failed_and_dry_run(bucket: Address, held: Bucket, listed: Path) -> None:
    dry = fleet(listed, f"{bucket}/out", dry_run=True)
    assert states(dry) == {"bad": "failed", "a": "convertible", "b": "convertible"} and held.files("out") == {}
    fleet(listed, f"{bucket}/out", verify="none")
    again = fleet(listed, f"{bucket}/out", verify="none", retry="failed")
    assert states(again) == {"bad": "failed", "a": "done before", "b": "done before"}
    assert again.tasks[0].attempt == 2
    more = fleet(listed, f"{bucket}/out", verify="weights")  # what is there is verified, and not converted again
    assert {task.verdict for task in more.tasks if task.state == "done"} == {"passed"}
    assert json.loads(held.files("out")["fleet.json"])["counts"] == {"failed": 1, "done": 2}


@S3
def test_by_processes(bucket: Address, held: Bucket, listed: Path, convert: Convert) -> None:
    run = convert("fleet", listed, f"{bucket}/out", "--workers", "2")
    assert run.status == 1 and run.out.startswith("3 checkpoints to tf: 1 failed, 2 done\n")
    assert f"next: convert fleet {listed} {bucket}/out --to tf --verify weights --retry failed" in run.out
    assert "secret" not in run.out + run.err
    assert {record["worker"] for record in noted(held).values() if record["kind"] == "attempt"} <= {1, 2}
    status = convert("fleet", "status", f"{bucket}/out", "--json")
    assert status.status == 1 and validated(status.out, "fleet")["counts"] == {"failed": 1, "done": 2}
    nothing = convert("fleet", "status", f"{bucket}/models")
    assert nothing.err == f"convert: {bucket}/models: holds no fleet-ledger; name the OUTDIR of a fleet\n"


def test_the_memory_of_another_process(memory_bucket: Address, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text(f"{FIXTURE}\n")
    with pytest.raises(TargetError, match="lies in the memory of this process, and the workers of a fleet are others"):
        fleet(tmp_path / "list.txt", str(memory_bucket / "out"))


@MEMORY
@pytest.mark.usefixtures("here")
def test_what_is_not_ours_stays(bucket: Address, held: Bucket, listed: Path) -> None:
    """An OUT made by hand is taken where it is the right one, and no other is replaced."""
    pt2tf(f"{bucket}/models/a", f"{bucket}/out/a")
    pt2tf(f"{bucket}/models/a", f"{bucket}/out/b", dtype="float16")
    before = held.files("out")
    found = fleet(listed, f"{bucket}/out")
    assert states(found) == {"a": "done", "b": "failed", "bad": "failed"}
    assert found.tasks[0].error.startswith(f"{bucket}/out/b: exists already, and was not made from this source")
    assert held.files("out") == held.files("out") | before
    changed = bytearray(before["a/tf_model.h5"])
    changed[-8] ^= 1
    held.put("other/a/conversion.json", before["a/conversion.json"])
    for name in FILES - {"conversion.json"}:
        held.put(f"other/a/{name}", bytes(changed) if name == "tf_model.h5" else before[f"a/{name}"])
    assert states(fleet(listed, f"{bucket}/other"))["a"] == "failed"
    held.put("third/fleet.html", b"mine")
    with pytest.raises(TargetError, match=r"third/fleet.html: exists, and there is no ledger of a fleet"):
        fleet(listed, f"{bucket}/third")


# --- killed -----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("here")
def test_killed_between_any_two_writes(
    bucket: Address, held: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next run takes the lock over, ends with the same, and does nothing again that was noted."""
    held.put_folder("models/a", FIXTURE)
    (tmp_path / "list.txt").write_text(f"{bucket}/models/a\n")
    converted: list[object] = []
    real = carrying_out.convert

    def counting(*arguments: Any, **options: Any) -> Any:
        converted.append(arguments)
        return real(*arguments, **options)

    monkeypatch.setattr(carrying_out, "convert", counting)
    for number in range(60) if bucket.scheme == "memory" else (1, 9, 60):
        out = f"{bucket}/out-{number}"
        with pytest.MonkeyPatch.context() as patch:
            done = dies_before(patch, number)
            try:
                fleet(tmp_path / "list.txt", out)
                break
            except Killed:
                pass
        was_noted = any(name.startswith("fleet-ledger/") and not name.endswith("fleet-run.json") for name in done)
        converted.clear()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(holding, "SECONDS_TO_EXPIRE", -60.0)  # a minute later, for this process still lives
            found = fleet(tmp_path / "list.txt", out)
        (task,) = found.tasks
        assert (task.state, task.verdict, task.unchanged) == ("done", "passed", was_noted)
        was_whole = "conversion.json" in done
        assert len(converted) == (0 if was_whole else 1)
        there = held.files(f"out-{number}")
        assert {name for name in there if not name.startswith("fleet")} == {f"{task.name}/{name}" for name in FILES}
        assert verify(f"{out}/{task.name}", weights_only=True).passed
        attempts = [name for name in noted(held, f"out-{number}") if not name.endswith("fleet-run.json")]
        assert len(attempts) == 1
        assert {"fleet.html", "fleet.json", f"fleet-reports/{task.name}.html"} < set(there)
    else:
        pytest.fail("it never ended")
    assert number > 8 + len(FILES), "it died nowhere"


@S3
@pytest.mark.torture
@pytest.mark.parametrize(
    "point", ["fleet-lock/", "/.conversion-upload.json", "/conversion.json", "fleet-ledger/00000001/m"]
)
def test_a_driver_that_is_killed(bucket: Address, held: Bucket, point: str) -> None:
    """With its workers, when objects of a kind are there first: nothing that was noted is done again, and none is half."""
    for number in range(6):
        held.put_folder(f"models/m{number}", FIXTURE)
    command = [sys.executable, "-m", "converter", "fleet", f"{bucket}/models", f"{bucket}/out", "--workers", "2"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as first:
        wait_for(lambda: any(point in name for name in held.system.find(f"{held.root}/out")))
        first.kill()
    before = {name: held.system.info(f"{held.root}/out/{name[9:-5]}/conversion.json")["ETag"] for name in done_in(held)}
    again = subprocess.run([*command, "--json"], env=environment, capture_output=True, text=True, check=False)
    found = validated(again.stdout, "fleet")
    assert found["counts"] == {"done": 6}, again.stderr
    after = {name: held.system.info(f"{held.root}/out/{name[9:-5]}/conversion.json")["ETag"] for name in before}
    assert after == before
    assert sum(task["unchanged"] for task in found["tasks"]) >= len(before)
    assert len(done_in(held)) == 6
    there = held.files("out")
    assert {name.partition("/")[2] for name in there if name.startswith("m")} == FILES
    assert sum(name.startswith("m") for name in there) == 6 * len(FILES)


def done_in(held: Bucket) -> list[str]:
    """Names of the attempts in the ledger that are done."""
    return [name for name, said in noted(held).items() if said.get("state") == "done"]


@MEMORY
def test_a_worker_is_lost_once_it_has_noted(bucket: Address, held: Bucket) -> None:
    """Ray starts it again elsewhere; or the driver hears that its process has ended. Neither does it again."""
    held.put_folder("models/a", FIXTURE)
    ledger = BucketLedger(bucket / "out", 3)
    ledger.begin("tf", "none", 1, "us", "now")
    own = {"name": "a", "key": "0f" * 16, "source": "x", "attempt": 4}
    asked = {
        "do": "convert", "source": f"{bucket}/models/a", "hub": None, "revision": None, "out": f"{bucket}/out/a", "to": "tf",
        "options": {}, "verify": "none", "report": "", "report_name": "", "known": None, "again": False, "worker": 7,
        "noting": {"out": f"{bucket}/out", "run": 3, **own},
    }  # fmt: skip
    first = carry_out(asked)
    assert (first["state"], first["noted"]["worker"], first["noted"]["attempt"]) == ("done", 7, 4)
    before = held.files("out")
    again = carry_out({**asked, "worker": 8})
    assert again["noted"] == first["noted"] and held.files("out") == before
    kept = ledger.append(Attempt("a", "0f" * 16, "x", "failed", 4, 7, error="its process ended with SIGKILL"))
    assert kept.to_json() == first["noted"] and held.files("out") == before
    other = ledger.append(Attempt("b", "0e" * 16, "x", "failed", 1, 7, error="its process ended with SIGKILL"))
    history = read_history_in(bucket / "out")
    assert history is not None and history.attempts == {"a": kept, "b": other}


@MEMORY
@pytest.mark.usefixtures("here")
def test_a_worker_that_cannot_note(
    bucket: Address, held: Bucket, listed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The driver has its answer, and tries again."""
    put_new = Store.put_new
    refused: list[str] = []

    def away(self: Any, name: str, data: bytes) -> bool:
        if name.endswith(("/a.json", "/bad.json")) and refused.count(name) == 0:
            refused.append(name)
            raise BucketError("the network is away")
        return put_new(self, name, data)

    monkeypatch.setattr(Store, "put_new", away)
    found = fleet(listed, f"{bucket}/out", verify="none")
    assert states(found) == {"bad": "failed", "a": "done", "b": "done"}
    assert set(noted(held)) == {f"00000001/{name}.json" for name in ("fleet-run", "a", "b", "bad")}
    assert len(refused) == 2


@S3
def test_a_node_that_cannot_read_the_bucket(bucket: Address, held: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes no task; unless the bucket answers when it is asked again."""
    held.put_folder("models/a", FIXTURE)
    asked = {
        "do": "convert", "source": f"{bucket}/models/a", "hub": None, "revision": None, "out": f"{bucket}/out/a", "to": "tf",
        "options": {}, "verify": "none", "report": "", "report_name": "", "known": None, "again": False,
    }  # fmt: skip
    from converter.fleets import on_node

    monkeypatch.setattr(on_node, "_PAUSES", (0.0,))
    away: list[BucketError] = []

    def holder(out: Address) -> Holder | None:
        if away:
            raise away.pop()
        return holder_in(out)

    monkeypatch.setattr(homes, "holder_in", holder)
    with HeldBucket(bucket / "out") as lock:
        asked["noting"] = {
            "out": f"{bucket}/out", "run": lock.number, "name": "a", "key": "0f" * 16, "source": "x", "attempt": 1,
        }  # fmt: skip
        for said, errors in (("another run has it", 0), ("s3: away", 2)):
            away[:] = [BucketError("s3: away")] * errors
            assert carry_out_on_node(asked, 60, 8 * 10**9, "another", VERSION) == {
                "refused": f"{bucket}/out: a node of the Ray cluster cannot use this bucket ({said}); set its library's "
                "credentials on all nodes, or run this again"
            }
        assert "a/conversion.json" not in held.files("out")
        away.append(BucketError("s3: away"))
        found = carry_out_on_node(asked, 60, 8 * 10**9, lock.owner, VERSION)
    on_node._kept(60, 8 * 10**9).close()
    on_node._kept.cache_clear()
    assert found["answer"]["noted"]["state"] == "done" and found["answer"]["noted"]["worker"] > 1
    assert inspect(f"{bucket}/out/a").problem is None


# --- the lock ---------------------------------------------------------------------------------------------------------


def locks(held: Bucket) -> dict[str, Any]:
    return {name: json.loads(text) for name, text in held.files("out/fleet-lock").items()}


def test_held_and_given_back(bucket: Address, held: Bucket) -> None:
    with HeldBucket(bucket / "out", lambda: ("a", "b")) as lock:
        holder = holder_in(bucket / "out")
        assert holder is not None and (holder.owner, holder.running) == (lock.owner, ("a", "b"))
        assert not holder.has_expired and lock.number == 1
        with pytest.raises(
            TargetError, match=r"another run is converting into it \(process \d+ of this machine, alive"
        ):
            HeldBucket(bucket / "out").__enter__()
    assert holder_in(bucket / "out") is None
    assert {name: said["ended"] for name, said in locks(held).items()} == {"00000001.json": True}
    with HeldBucket(bucket / "out") as lock:
        assert lock.number == 2
    assert {name: said["ended"] for name, said in locks(held).items()} == {"00000002.json": True}


@MEMORY
@pytest.mark.parametrize(
    ("age", "said", "expired"),
    [
        (0, {}, False),
        (SECONDS_TO_EXPIRE + 9, {}, True),
        (SECONDS_TO_EXPIRE - 9, {"machine": "another"}, False),
        (SECONDS_TO_EXPIRE + 9, {"machine": "another"}, True),
        (0, {"since": "another process of that number"}, True),
        (0, {"process": 2**70}, False),
    ],
)
def test_when_it_has_expired(
    bucket: Address, held: Bucket, monkeypatch: pytest.MonkeyPatch, age: float, said: dict[str, Any], expired: bool
) -> None:
    usual = holding.lock_said("x", ["a"]) | {"time": 0, "ended": False}
    held.put("out/fleet-lock/00000004.json", json.dumps(usual | said).encode())
    modified = Store.modified
    monkeypatch.setattr(
        Store, "modified", lambda self, name: modified(self, name) - (age if name.endswith("4.json") else 0)
    )
    if not expired:
        with pytest.raises(TargetError, match="another run is converting"):
            HeldBucket(bucket / "out").__enter__()
        assert list(locks(held)) == ["00000004.json"]
        return
    with HeldBucket(bucket / "out") as lock:
        assert lock.number == 5 and list(locks(held)) == ["00000005.json"]


@MEMORY
def test_a_clock_that_is_wrong_here(bucket: Address, held: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    """An hour ahead: the store's own clock counts."""
    held.put("out/fleet-lock/00000001.json", json.dumps(holding.lock_said("x", ["a"]) | {"machine": "other"}).encode())
    monkeypatch.setattr(bucket_lock.time, "time", lambda now=bucket_lock.time.time: now() + 3600)
    with pytest.raises(TargetError, match="another machine, alive 0 s ago"):
        HeldBucket(bucket / "out").__enter__()


@MEMORY
def test_a_store_without_times_or_conditions(
    bucket: Address, held: Bucket, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It goes by what the lock says, and looks a second time whether it is its own."""
    monkeypatch.setattr(Store, "modified", lambda *_: None)
    monkeypatch.setattr(Store, "has_conditions", False)
    monkeypatch.setattr(bucket_lock, "_SECONDS_TO_SETTLE", 0.0)
    with HeldBucket(bucket / "out"):
        assert "its library has no conditional writes; do not start two runs within 0 s" in caplog.text
        with pytest.raises(TargetError, match="another run is converting"):
            HeldBucket(bucket / "out").__enter__()
    put_new = Store.put_new

    def late(self: Any, name: str, data: bytes) -> bool:
        put_new(self, name, data)
        held.put(f"out/{name}", json.dumps(holding.lock_said("another", ())).encode())
        return True

    monkeypatch.setattr(Store, "put_new", late)
    with pytest.raises(TargetError, match="another run has just begun; wait until it ends"):
        HeldBucket(bucket / "out").__enter__()
    assert locks(held)["00000002.json"]["owner"] == "another"


def test_two_that_begin_at_once(bucket: Address) -> None:
    """Both have seen that it is free; the store lets one of them write."""
    gate = threading.Barrier(2)
    ends: list[str] = []

    def run() -> None:
        put_new = Store.put_new
        lock = HeldBucket(bucket / "out")
        lock._store.put_new = lambda *what: (gate.wait(20), put_new(lock._store, *what))[1]  # type: ignore[method-assign]
        try:
            with lock:
                gate.wait(20)
                ends.append("had it")
        except TargetError as error:
            ends.append(str(error))
            gate.wait(20)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(ends) == ["had it", f"{bucket}/out: another run has just begun; wait until it ends"]


@MEMORY
def test_the_heart_beats_until_another_has_taken_over(
    bucket: Address, held: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket_lock, "SECONDS_PER_BEAT", 0.005)
    told: list[str] = ["a"]
    with HeldBucket(bucket / "out", lambda: tuple(told)) as lock:
        told.append("b")
        wait_for(lambda: locks(held)["00000001.json"]["running"] == ["a", "b"])
        held.put("out/fleet-lock/00000002.json", b'{"owner": "another"}')
        wait_for(lambda: lock.is_lost)
    assert locks(held)["00000001.json"]["ended"] is False  # a lock that is another's is left alone
    with pytest.raises(TargetError, match="another run is converting"):
        HeldBucket(bucket / "out").__enter__()


@MEMORY
@pytest.mark.usefixtures("here")
def test_a_run_whose_folder_was_taken_over(
    bucket: Address, held: Bucket, listed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket_lock, "SECONDS_PER_BEAT", 0.005)
    start = Here.start

    def slow(self: Here, *what: Any) -> None:
        start(self, *what)
        held.put("out/fleet-lock/00000002.json", json.dumps(holding.lock_said("another", ())).encode())
        wait_for(lambda: all(not thread.name.endswith("(_beat)") for thread in threading.enumerate()))

    monkeypatch.setattr(Here, "start", slow)
    with pytest.raises(TargetError, match="another run has taken the folder over; look at its ledger"):
        fleet(listed, f"{bucket}/out")


def wait_for(holds: Callable[[], bool]) -> None:
    for _ in range(4000):
        if holds():
            return
        threading.Event().wait(0.005)
    raise AssertionError("it never came")


@MEMORY
@pytest.mark.parametrize("text", [b"", b"my notes", b"[]", b"{}", b'{"owner": 7}', b"[" * 60_000])
def test_an_object_that_is_no_lock(bucket: Address, held: Bucket, text: bytes) -> None:
    held.put("out/fleet-lock/00000007.json", text)
    for look in (lambda: holder_in(bucket / "out"), lambda: HeldBucket(bucket / "out").__enter__()):
        with pytest.raises(
            TargetError, match=r"fleet-lock/00000007.json: not the lock of a fleet; choose another folder"
        ):
            look()
    assert held.files("out") == {"fleet-lock/00000007.json": text}


@MEMORY
def test_locks_of_a_stranger(bucket: Address, held: Bucket) -> None:
    held.put("out/fleet-lock/00000007.json", b'{"owner": "x"}' + b" " * holding.MAX_LOCK_BYTES)
    with pytest.raises(BucketError, match="too many for such an object"):
        HeldBucket(bucket / "out").__enter__()
    held.put("out/fleet-lock/99999999.json", b'{"owner": "x", "ended": true}')
    with pytest.raises(TargetError, match="more than 99,999,999 runs had this folder"):
        HeldBucket(bucket / "out").__enter__()


@MEMORY
def test_the_status_of_one_that_runs(bucket: Address) -> None:
    """What was noted since the last heartbeat is not running; what an earlier run noted may be."""
    BucketLedger(bucket / "out", 1).append(Attempt("b", "0e" * 16, "models/b", "failed"))
    with HeldBucket(bucket / "out", lambda: ("a", "b")):
        ledger = BucketLedger(bucket / "out", 2)
        ledger.begin("tf", "weights", 3, "us", "now")
        ledger.append(DONE)
        found = fleet_status(f"{bucket}/out")
    assert (states(found), found.alive) == ({"a": "done", "b": "running", "": "left"}, True)


# --- the ledger of a stranger -----------------------------------------------------------------------------------------

DONE = Attempt("a", "0f" * 16, "models/a", "done", 2, 1, 0.5, 7, "weights", "passed", report="fleet-reports/a.html")


@pytest.fixture
def book(bucket: Address) -> BucketLedger:
    ledger = BucketLedger(bucket / "out", 1)
    ledger.begin("tf", "weights", 3, "us", "now")
    ledger.append(DONE)
    return ledger


@MEMORY
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("00000002/a.json", b"no JSON"),
        ("00000002/a.json", b"[" * 100_000),
        ("00000002/a.json", json.dumps(DONE.to_json() | {"name": "b", "report": ""}).encode()),
        ("00000002/a.json", json.dumps(DONE.to_json() | {"state": "fine"}).encode()),
        ("00000002/a.json", json.dumps(DONE.to_json() | {"report": "../../x.html"}).encode()),
        ("00000002/a.json", json.dumps(DONE.to_json() | {"error": "x" * 2**20}).encode()),
        ("00000002/fleet-x.json", json.dumps(DONE.to_json() | {"name": "fleet-x"}).encode()),
        ("00000002/b/c.json", json.dumps(DONE.to_json()).encode()),
        ("x/a.json", json.dumps(DONE.to_json()).encode()),
        ("00000002/fleet-run.json", b'{"kind": "run", "to": "../x"}'),
    ],
    ids=["no JSON", "deep", "another name", "a state", "a link", "a megabyte", "our name", "deeper", "no run", "a run"],
)
def test_hostile_objects_say_nothing(bucket: Address, held: Bucket, book: BucketLedger, name: str, text: bytes) -> None:
    held.put(f"out/fleet-ledger/{name}", text)
    found = read_history_in(bucket / "out")
    assert found is not None
    assert (found.to, found.tasks, found.attempts, found.ignored) == ("tf", 3, {"a": DONE}, 1)
    assert found.names == {DONE.key: "a"}


@MEMORY
def test_what_is_not_a_ledger(
    bucket: Address, held: Bucket, book: BucketLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert read_history_in(bucket / "none") is None
    held.put("notes/fleet-ledger/notes.txt", b"mine")
    with pytest.raises(SourceError, match="notes/fleet-ledger: not the ledger of a fleet; choose another folder"):
        read_history_in(bucket / "notes")
    held.put("later/fleet-ledger/00000001/fleet-run.json", b'{"format": 2, "kind": "run"}')
    with pytest.raises(SourceError, match="its ledger is of another version"):
        read_history_in(bucket / "later")
    monkeypatch.setattr(bucket_ledger, "MAX_LEDGER_OBJECTS", 1)
    with pytest.raises(BucketError, match=r"out/fleet-ledger: holds more than 1 objects"):
        read_history_in(bucket / "out")


@MEMORY
def test_a_listing_that_leads_elsewhere(
    bucket: Address, held: Bucket, book: BucketLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = type(held.system).find

    def lying(self: Any, path: str, **options: Any) -> Any:
        found = real(self, path, **options)
        return {
            name: {**entry, "name": re.sub(r"/a\.json$", "/../x.json", entry["name"])} for name, entry in found.items()
        }

    monkeypatch.setattr(type(held.system), "find", lying)
    with pytest.raises(BucketError, match="which is not a plain name in it; rename or remove that object"):
        read_history_in(bucket / "out")


@MEMORY
def test_an_out_of_very_many_files(bucket: Address, book: BucketLedger) -> None:
    many = {f"{number:09}": "ab" * 32 for number in range(15_000)}
    book.append(Attempt("b", "0e" * 16, "models/b", "done", hashes=many))
    found = read_history_in(bucket / "out")
    assert found is not None and found.attempts["b"].hashes == {}

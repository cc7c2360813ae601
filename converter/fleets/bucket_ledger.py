"""The ledger of an OUTDIR in a bucket, which cannot append: one immutable object per attempt.

``fleet-ledger/00000007/fleet-run.json`` says that run 7 began, ``fleet-ledger/00000007/NAME.json`` what its attempt at one
checkpoint came to. The process that made the attempt writes that at once, so that neither its own end nor the driver's
loses it. For a process that was ended the driver writes it. The second of the two finds an object there, and takes that.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from typing import Any

from converter.buckets.stores import Store, Stored
from converter.errors import BucketError, ConverterError, SourceError
from converter.fleets.attempts import (
    Attempt,
    History,
    attempt_of,
    is_of_another_version,
    is_run,
    object_of,
    run_record,
    utc_now,
)
from converter.fleets.bucket_lock import number_of_run
from converter.fleets.ledger import MAX_LEDGER_LINE_BYTES
from converter.fleets.out_names import is_out_name
from converter.folder.addresses import Address
from converter.specs import Framework

FOLDER = "fleet-ledger"
RUN = "fleet-run"
MAX_LEDGER_OBJECTS = 1_000_000
_READ_AT_A_TIME = 16
_NAME = re.compile(r"([0-9]{8})/([^/]+)\.json")


def read_history_in(out: Address) -> History | None:
    """Reads the ledger of an OUTDIR, or returns None: of each checkpoint the last attempt, and the last run.

    Raises:
        SourceError: it is not ours.
        BucketError: the bucket refuses, or cannot be reached.
    """
    store = Store(out)
    objects = store.find(FOLDER, MAX_LEDGER_OBJECTS)
    runs: dict[str, dict[str, Stored]] = {}
    for name, held in objects.items():
        found = _NAME.fullmatch(name)
        if found is not None and (found[2] == RUN or is_out_name(found[2])):
            runs.setdefault(found[1], {})[found[2]] = held
    if objects and not runs:
        raise SourceError(f"{out}/{FOLDER}: not the ledger of a fleet; choose another folder, or move it away")
    if not objects:
        return None
    run: dict[str, Any] = {}
    attempts: dict[str, Attempt] = {}
    ignored = len(objects) - sum(map(len, runs.values()))
    for number in sorted(runs, reverse=True):
        wanted = {
            name: held for name, held in runs[number].items() if name not in attempts and (name != RUN or not run)
        }
        for name, said in _read(store, number, wanted):
            if name == RUN and said is not None and is_run(said):
                run = said
            elif said is not None and (attempt := attempt_of(said)) is not None and attempt.name == name:
                attempts[name] = attempt
            else:
                ignored += 1
    ended = frozenset(runs[max(runs)].keys() & attempts.keys())
    names = {attempt.key: attempt.name for attempt in attempts.values()}
    return History(run.get("to"), str(run.get("verify", "")), int(run.get("tasks", 0)), attempts, names, ignored, ended)


def _read(store: Store, number: str, objects: Mapping[str, Stored]) -> Iterable[tuple[str, dict[str, Any] | None]]:
    """What objects of a run say; None of what says nothing."""

    def read(item: tuple[str, Stored]) -> tuple[str, dict[str, Any] | None]:
        name, held = item
        if held.size > MAX_LEDGER_LINE_BYTES:
            return name, None
        said = object_of(store.read(f"{FOLDER}/{number}/{name}.json", 0, held.size))
        if said is not None and is_of_another_version(said):
            raise SourceError(
                f"{store.address}: its ledger is of another version; continue with that one, or choose another folder"
            )
        return name, said

    with ThreadPoolExecutor(_READ_AT_A_TIME) as pool:
        yield from pool.map(read, objects.items())


class BucketLedger:
    """The part of a ledger that one run writes."""

    def __init__(self, out: Address, number: int) -> None:
        """Takes OUTDIR, and the number of the run, which no other has."""
        self._store = Store(out)
        self._folder = f"{FOLDER}/{number_of_run(number)}"

    def begin(self, to: Framework, verify: str, tasks: int, made_by: str, now: str) -> None:
        """Notes that a run begins."""
        record = run_record(to, verify, tasks, made_by, now)
        self._store.put_new(f"{self._folder}/{RUN}.json", json.dumps(record).encode())

    def append(self, attempt: Attempt) -> Attempt:
        """Notes an attempt unless that was done, and gives what stands there."""
        found = attempt.to_json()
        if len(json.dumps(found)) >= MAX_LEDGER_LINE_BYTES:
            found["hashes"] = {}
        name = f"{self._folder}/{attempt.name}.json"
        if self._store.put_new(name, json.dumps(found).encode()):
            return attempt
        return self.noted(attempt.name) or attempt

    def noted(self, name: str) -> Attempt | None:
        """The attempt of this run at a checkpoint, if it was noted."""
        text = self._store.small(f"{self._folder}/{name}.json", MAX_LEDGER_LINE_BYTES)
        said = None if text is None else object_of(text)
        found = None if said is None else attempt_of(said)
        return found if found is not None and found.name == name else None

    def close(self) -> None:
        """Nothing is open."""


@dataclass(frozen=True)
class Noting:
    """What a worker is told so that it can note an attempt by itself."""

    out: str
    run: int
    name: str
    key: str
    source: str
    attempt: int


def noted_before(asked: Mapping[str, Any]) -> dict[str, Any] | None:
    """The answer to a task that was noted by a worker which was lost before it could give it; None as a rule."""
    if (noting := asked.get("noting")) is None:
        return None
    with contextlib.suppress(ConverterError):
        found = BucketLedger(Address(noting["out"]), noting["run"]).noted(noting["name"])
        return None if found is None else _answer(found)
    return None


def note(asked: Mapping[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
    """Notes what a task came to, if its ledger is in a bucket; where that fails, the driver has the answer and tries again."""
    if asked.get("noting") is None or "unchanged" in answer or "noted" in answer:
        return answer
    noting = Noting(**asked["noting"])
    known = {one.name for one in fields(Attempt)}
    said = {name: value for name, value in answer.items() if name in known}
    own = {"name": noting.name, "key": noting.key, "source": noting.source, "attempt": noting.attempt}
    attempt = Attempt(**{**said, **own, "worker": asked.get("worker", 0), "time": utc_now()})
    with contextlib.suppress(BucketError):
        return answer | _answer(BucketLedger(Address(noting.out), noting.run).append(attempt))
    return answer


def _answer(attempt: Attempt) -> dict[str, Any]:
    said = attempt.to_json()
    return {"state": attempt.state, "nbytes": attempt.nbytes, "seconds": attempt.seconds, "noted": said}


def of_answer(answer: Mapping[str, Any]) -> Attempt | None:
    """The attempt that a worker has noted by itself, from its answer; None if it has noted none."""
    said = answer.get("noted")
    return attempt_of(said) if isinstance(said, dict) else None

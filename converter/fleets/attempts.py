"""What a ledger says of one attempt at one checkpoint, and what a later run believes of that."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from typing import Any, Literal, get_args

from converter.fleets.out_names import is_out_name
from converter.specs import FRAMEWORKS, Framework

FORMAT = 1
State = Literal["done", "failed", "not checked"]
VERIFY = ("none", "weights", "outputs")
STATES: tuple[str, ...] = get_args(State)
MAX_ATTEMPTS = 2**31
_SUM = re.compile(r"[0-9a-f]{64}")
_KEY = re.compile(r"[0-9a-f]{32}")
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Attempt:
    """The result of one attempt at one checkpoint.

    Attributes:
        name: of its OUT.
        key: of the task, the same in every run.
        source: what the list calls it.
        state: ``"done"``, ``"failed"``, or ``"not checked"``: converted, and not shown to be its source.
        attempt: number of the attempt.
        worker: which one carried it out, counted from 1.
        seconds: how long it took.
        nbytes: size of the weights in OUT.
        verify: what was verified; empty if it did not get that far.
        verdict: of the verification; empty if there was none.
        commit: of a source on the Hub.
        identity: of a source on this machine: a sum of its files' names, sizes and times.
        manifest: BLAKE3 of OUT's conversion.json, or empty.
        hashes: BLAKE3 of every file of OUT.
        error: why it is not done, with the next step.
        next: the next step.
        report: of the verification, from OUTDIR.
        time: when it ended, in UTC.
    """

    name: str
    key: str
    source: str
    state: State
    attempt: int = 1
    worker: int = 0
    seconds: float = 0.0
    nbytes: int = 0
    verify: str = ""
    verdict: str = ""
    commit: str = ""
    identity: str = ""
    manifest: str = ""
    hashes: Mapping[str, str] = field(default_factory=dict)
    error: str = ""
    next: str = ""
    report: str = ""
    time: str = ""

    def to_json(self) -> dict[str, Any]:
        """The form in the ledger."""
        return {"format": FORMAT, "kind": "attempt"} | asdict(self)


@dataclass(frozen=True)
class History:
    """What a ledger holds.

    Attributes:
        to: the framework that its runs convert to; None of an empty one.
        verify: what the last run verified.
        tasks: how many checkpoints the last run's list had.
        attempts: the last one at each checkpoint, by name.
        names: of OUTs by key.
        ignored: how many lines say nothing: torn, or not a ledger's.
        ended: names of the checkpoints that the last run has noted.
    """

    to: Framework | None = None
    verify: str = ""
    tasks: int = 0
    attempts: Mapping[str, Attempt] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    ignored: int = 0
    ended: frozenset[str] = frozenset()


def run_record(to: Framework, verify: str, tasks: int, made_by: str, now: str) -> dict[str, Any]:
    """What a ledger says of a run that begins."""
    return {
        "format": FORMAT, "kind": "run", "to": to, "verify": verify, "tasks": tasks, "made_by": made_by, "time": now,
    }  # fmt: skip


def is_run(found: Mapping[str, Any]) -> bool:
    """Whether an object is what ``run_record`` made."""
    tasks = found.get("tasks")
    plain = isinstance(tasks, int) and 0 <= tasks < MAX_ATTEMPTS and isinstance(found.get("verify"), str)
    return found.get("kind") == "run" and found.get("to") in FRAMEWORKS and plain


def is_of_another_version(found: Mapping[str, Any]) -> bool:
    """Whether an object is a ledger's, and of a version that this one cannot read."""
    return found.get("format") != FORMAT and isinstance(found.get("format"), int)


def object_of(text: bytes) -> dict[str, Any] | None:
    """The JSON object in a line or a file; None if there is none."""
    with contextlib.suppress(ValueError, RecursionError):
        found = json.loads(text)
        return found if isinstance(found, dict) else None
    return None


_KINDS = {"int": int, "str": str, "State": str, "Mapping[str, str]": dict}


def attempt_of(found: Mapping[str, Any]) -> Attempt | None:
    """The attempt in a line; None if a value has another type, or a name leads elsewhere."""
    if found.get("kind") != "attempt":
        return None
    given = {one.name: found[one.name] for one in fields(Attempt) if one.name in found}
    for one in fields(Attempt):
        value = given.get(one.name)
        if one.name == "seconds":
            sound = isinstance(value, int | float) and 0 <= value < MAX_ATTEMPTS
        else:
            sound = type(value) is _KINDS[str(one.type)]
        if not sound or (type(value) is int and not 0 <= value < 2**63):
            return None
    hashes = given["hashes"]
    sums = [given["identity"], given["manifest"], *hashes.values()]
    sound = (
        is_out_name(given["name"])
        and bool(_KEY.fullmatch(given["key"]))
        and given["state"] in STATES
        and given["verify"] in ("", *VERIFY)
        and given["attempt"] < MAX_ATTEMPTS
        and all(isinstance(one, str) and (not one or _SUM.fullmatch(one)) for one in sums)
        and (not given["commit"] or bool(_COMMIT.fullmatch(given["commit"])))
        and given["report"] in ("", report_of(given["name"]))
    )
    return Attempt(**given) if sound else None


def report_of(name: str) -> str:
    """The path of a verification's report, from OUTDIR."""
    return f"fleet-reports/{name}.html"


def utc_now() -> str:
    """The time in UTC, as the ledger has it."""
    return datetime.now(UTC).isoformat(timespec="seconds")

"""What a fleet came to: every checkpoint, and the verdict over all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from converter.fleets.attempts import Attempt
from converter.specs import JSON_FORMAT, Framework

FleetState = Literal["failed", "not checked", "left", "running", "convertible", "done"]
FleetStatus = Literal["done", "failed", "not checked"]
# What a person looks at first.
ORDER: tuple[str, ...] = ("failed", "not checked", "left", "running", "convertible", "done")
# Of a checkpoint that the ledger says nothing of: bytes a second and worker, and seconds for each.
ASSUMED_RATE = 300e6
ASSUMED_SECONDS = 0.05
_MEASURED_BYTES = 2**20


@dataclass(frozen=True)
class FleetTask:
    """The result of one checkpoint.

    Attributes:
        name: of its OUT, a folder in OUTDIR.
        source: its name in the list; for an absolute path, the last part.
        state: ``"done"``, ``"failed"``, ``"not checked"`` (converted, and not compared with its source), ``"left"`` (to a
            later run), ``"running"``, or, of a dry run, ``"convertible"``.
        attempt: number of attempts.
        worker: which worker made the last attempt, counted from 1.
        seconds: how long it took.
        nbytes: size of the weights in OUT; for a dry run, of those of the source.
        verdict: of the verification: ``"passed"``, ``"failed"`` or ``"not checked"``; empty if there was none.
        commit: of a source on the Hub.
        hashes: BLAKE3 of every file in OUT.
        error: why it is not done.
        next: what to do about it.
        report: of the verification, from OUTDIR.
        unchanged: whether an earlier run had already done it.
        estimated_seconds: for a dry run.
    """

    name: str
    source: str
    state: FleetState
    attempt: int = 0
    worker: int = 0
    seconds: float = 0.0
    nbytes: int = 0
    verdict: str = ""
    commit: str = ""
    hashes: Mapping[str, str] = field(default_factory=dict, repr=False)
    error: str = ""
    next: str = ""
    report: str = ""
    unchanged: bool = False
    estimated_seconds: float | None = None


@dataclass(frozen=True)
class Fleet:
    """The result of a fleet.

    Attributes:
        out: OUTDIR.
        to: the framework that it converts to.
        verify: ``"weights"``, ``"outputs"`` or ``"none"``.
        tasks: every checkpoint, failures first.
        seconds: length of this run.
        stopped: why it ended before the list did, or empty.
        dry_run: whether nothing was converted.
        alive: whether a run is active in OUTDIR now (``fleet_status``).
    """

    out: Path
    to: Framework
    verify: str
    tasks: tuple[FleetTask, ...]
    seconds: float = 0.0
    stopped: str = ""
    dry_run: bool = False
    alive: bool = False

    @property
    def counts(self) -> Mapping[str, int]:
        """Number of checkpoints in each state."""
        found = Counter(task.state for task in self.tasks)
        return {state: found[state] for state in ORDER if found[state]}  # type: ignore[index]

    @property
    def status(self) -> FleetStatus:
        """``"failed"`` if a checkpoint failed or is left; ``"not checked"`` if one was not checked; else ``"done"``."""
        if {"failed", "left", "running"} & set(self.counts):
            return "failed"
        return "not checked" if "not checked" in self.counts else "done"

    @property
    def estimated_seconds(self) -> float | None:
        """For a dry run, the estimated time of one worker."""
        found = [task.estimated_seconds for task in self.tasks if task.estimated_seconds is not None]
        return sum(found) if self.dry_run else None

    def to_json(self) -> dict[str, Any]:
        """Ready for ``json.dumps``: ``docs/fleet.schema.json`` describes it. It contains no folder of this machine."""
        return {
            "format": JSON_FORMAT,
            "kind": "fleet",
            "to": self.to,
            "verify": self.verify,
            "status": self.status,
            "counts": dict(self.counts),
            "seconds": self.seconds,
            "stopped": self.stopped,
            "dry_run": self.dry_run,
            "alive": self.alive,
            "estimated_seconds": self.estimated_seconds,
            "tasks": [asdict(task) for task in self.tasks],
        }


def in_order(tasks: list[FleetTask]) -> tuple[FleetTask, ...]:
    """Failures first, then by name."""
    return tuple(sorted(tasks, key=lambda task: (ORDER.index(task.state), task.name)))


def of_attempt(attempt: Attempt, unchanged: bool = False) -> FleetTask:
    """The ledger's fields for a checkpoint."""
    shared = {name: value for name, value in vars(attempt).items() if name in FleetTask.__dataclass_fields__}
    return FleetTask(**shared, unchanged=unchanged)


def estimated(nbytes: int, attempts: Mapping[str, Attempt]) -> float:
    """Estimated seconds of a conversion, from others of known size, if there are any."""
    large = [one for one in attempts.values() if one.state == "done" and one.nbytes >= _MEASURED_BYTES and one.seconds]
    rate = sum(one.nbytes for one in large) / sum(one.seconds for one in large) if large else ASSUMED_RATE
    return ASSUMED_SECONDS + nbytes / rate

"""What a fleet came to: every checkpoint, and the verdict over all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from converter.fleets.ledger import Attempt
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
    """What became of one checkpoint.

    Attributes:
        name: of its OUT, a folder in OUTDIR.
        source: as the list calls it; of an absolute path the name.
        state: ``"done"``, ``"failed"``, ``"not checked"`` (converted, and not shown to be its source), ``"left"`` (to a
            later run), ``"running"``, or, of a dry run, ``"convertible"``.
        attempt: how many there were.
        worker: which carried the last one out, counted from 1.
        seconds: that it took.
        nbytes: size of the weights in OUT; of a dry run those of the source.
        verdict: of the verification: ``"passed"``, ``"failed"`` or ``"not checked"``; empty where there was none.
        commit: of a source on the Hub.
        hashes: BLAKE3 of every file in OUT.
        error: why it is not done.
        next: what to do about it.
        report: of the verification, from OUTDIR.
        unchanged: whether an earlier run had done it.
        estimated_seconds: of a dry run.
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
    """What a fleet came to.

    Attributes:
        out: OUTDIR.
        to: the framework that it converts to.
        verify: ``"weights"``, ``"outputs"`` or ``"none"``.
        tasks: every checkpoint, failures first.
        seconds: that this run took.
        stopped: why it ended before the list did; empty where it did not.
        dry_run: whether nothing was converted.
        alive: whether a run has OUTDIR now; of ``fleet_status``.
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
        """How many checkpoints are in each state."""
        found = Counter(task.state for task in self.tasks)
        return {state: found[state] for state in ORDER if found[state]}  # type: ignore[index]

    @property
    def status(self) -> FleetStatus:
        """``"failed"`` where a checkpoint failed or is left; ``"not checked"`` where one was not; else ``"done"``."""
        if {"failed", "left", "running"} & set(self.counts):
            return "failed"
        return "not checked" if "not checked" in self.counts else "done"

    @property
    def estimated_seconds(self) -> float | None:
        """Of a dry run, how long one worker would take."""
        found = [task.estimated_seconds for task in self.tasks if task.estimated_seconds is not None]
        return sum(found) if self.dry_run else None

    def to_json(self) -> dict[str, Any]:
        """Ready for ``json.dumps``: ``docs/fleet.schema.json`` describes it. No folder of this machine is in it."""
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
    """What the ledger says of a checkpoint."""
    shared = {name: value for name, value in vars(attempt).items() if name in FleetTask.__dataclass_fields__}
    return FleetTask(**shared, unchanged=unchanged)


def estimated(nbytes: int, attempts: Mapping[str, Attempt]) -> float:
    """Seconds that a conversion will take, by what others took, where there are any of some size."""
    large = [one for one in attempts.values() if one.state == "done" and one.nbytes >= _MEASURED_BYTES and one.seconds]
    rate = sum(one.nbytes for one in large) / sum(one.seconds for one in large) if large else ASSUMED_RATE
    return ASSUMED_SECONDS + nbytes / rate

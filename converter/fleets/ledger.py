"""``fleet.jsonl``: the result of each checkpoint, one line per attempt, append-only. Later runs continue from it.

``docs/ledger.schema.json`` describes a line. A line is one ``write``. A killed run leaves it whole, or torn at the end
of the file, where it does not count. A line's "done" counts only while OUT has the manifest of that attempt.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

from converter.errors import SourceError, TargetError, printable, unreadable
from converter.fleets.out_names import is_out_name
from converter.specs import FRAMEWORKS, Framework

NAME = "fleet.jsonl"
FORMAT = 1
State = Literal["done", "failed", "not checked"]
VERIFY = ("none", "weights", "outputs")
STATES: tuple[str, ...] = get_args(State)
MAX_LEDGER_BYTES = 4 * 2**30
MAX_LEDGER_LINE_BYTES = 2**20
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
    """

    to: Framework | None = None
    verify: str = ""
    tasks: int = 0
    attempts: Mapping[str, Attempt] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    ignored: int = 0


def read_history(folder: Path) -> History | None:
    """Reads the ledger of a folder, or returns None.

    Raises:
        SourceError: it is not ours, or cannot be read.
    """
    path = folder / NAME
    try:
        descriptor = os.open(path, os.O_RDONLY | _not_followed())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unusable(path, error) from None
    with os.fdopen(descriptor, "rb") as file:
        held = os.fstat(descriptor)
        if not stat.S_ISREG(held.st_mode) or held.st_size > MAX_LEDGER_BYTES:
            raise SourceError(f"{path}: not a ledger, or larger than {MAX_LEDGER_BYTES:,} bytes; choose another folder")
        return _read(path, file)


def _read(path: Path, file: Any) -> History:
    run: dict[str, Any] = {}
    attempts: dict[str, Attempt] = {}
    names: dict[str, str] = {}
    ignored = 0
    first = True
    while line := file.readline(MAX_LEDGER_LINE_BYTES + 1):
        found = _object(line)
        if found is not None and found.get("format") != FORMAT and isinstance(found.get("format"), int):
            raise SourceError(f"{path}: written by another version; continue with that one, or choose another folder")
        if first and (found is None or not _is_run(found)) and line.endswith(b"\n"):
            raise SourceError(f"{path}: not the ledger of a fleet; choose another folder, or move that file away")
        first = False
        if not line.strip():
            continue
        if found is not None and _is_run(found):
            run = found
        elif found is not None and (attempt := _attempt(found)) is not None:
            attempts[attempt.name] = attempt
            names[attempt.key] = attempt.name
        else:
            ignored += 1
    to = run.get("to")
    return History(to, str(run.get("verify", "")), int(run.get("tasks", 0)), attempts, names, ignored)


def _object(line: bytes) -> dict[str, Any] | None:
    if len(line) > MAX_LEDGER_LINE_BYTES:
        return None
    with contextlib.suppress(ValueError, RecursionError):
        found = json.loads(line)
        return found if isinstance(found, dict) else None
    return None


def _is_run(found: Mapping[str, Any]) -> bool:
    tasks = found.get("tasks")
    plain = isinstance(tasks, int) and 0 <= tasks < MAX_ATTEMPTS and isinstance(found.get("verify"), str)
    return found.get("kind") == "run" and found.get("to") in FRAMEWORKS and plain


_KINDS = {"int": int, "str": str, "State": str, "Mapping[str, str]": dict}


def _attempt(found: Mapping[str, Any]) -> Attempt | None:
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


class Ledger:
    """A ledger that is written to. One process does, which holds the lock of the folder."""

    def __init__(self, folder: Path) -> None:
        """Opens or makes it.

        Raises:
            TargetError: it cannot be written.
        """
        self._path = folder / NAME
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | _not_followed() | getattr(os, "O_BINARY", 0)
            self._descriptor = os.open(self._path, flags, 0o666)
            size = os.fstat(self._descriptor).st_size
            if size:  # a line that was torn ends here, and no other is joined to it
                with self._path.open("rb") as file:
                    file.seek(size - 1)
                    if file.read(1) != b"\n":
                        os.write(self._descriptor, b"\n")
        except OSError as error:
            raise TargetError(f"{self._path}: cannot be written: {error.strerror}; choose another folder") from None

    def begin(self, to: Framework, verify: str, tasks: int, made_by: str, now: str) -> None:
        """Notes that a run begins."""
        self._append(
            {
                "format": FORMAT, "kind": "run", "to": to, "verify": verify, "tasks": tasks, "made_by": made_by, "time": now,
            }
        )  # fmt: skip

    def append(self, attempt: Attempt) -> None:
        """Notes an attempt; of an OUT of very many files without their sums, which its manifest has."""
        found = attempt.to_json()
        if len(json.dumps(found)) >= MAX_LEDGER_LINE_BYTES:
            found["hashes"] = {}
        self._append(found)

    def close(self) -> None:
        """Closes the file."""
        os.close(self._descriptor)

    def _append(self, found: Mapping[str, Any]) -> None:
        line = json.dumps(found).encode() + b"\n"
        try:
            written = os.write(self._descriptor, line)
            if written != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise TargetError(
                f"{self._path}: cannot be written: {error.strerror}; free some space and run this again"
            ) from None


def _not_followed() -> int:
    return getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)  # neither a link nor a pipe


def _unusable(path: Path, error: OSError) -> SourceError:
    if error.errno == errno.ELOOP:
        return SourceError(f"{path}: a link, which is not followed; name the folder that it leads to")
    return SourceError(printable(unreadable(path, error), 500))

"""``fleet.jsonl``: the result of each checkpoint, one line per attempt, append-only. Later runs continue from it.

``docs/ledger.schema.json`` describes a line. A line is one ``write``. A killed run leaves it whole, or torn at the end
of the file, where it does not count. A line's "done" counts only while OUT has the manifest of that attempt.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from converter.errors import SourceError, TargetError, printable, unreadable
from converter.fleets.attempts import Attempt, History, attempt_of, is_of_another_version, is_run, object_of, run_record
from converter.specs import Framework

NAME = "fleet.jsonl"
MAX_LEDGER_BYTES = 4 * 2**30
MAX_LEDGER_LINE_BYTES = 2**20


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
    ended: set[str] = set()
    ignored = 0
    first = True
    while line := file.readline(MAX_LEDGER_LINE_BYTES + 1):
        found = None if len(line) > MAX_LEDGER_LINE_BYTES else object_of(line)
        if found is not None and is_of_another_version(found):
            raise SourceError(f"{path}: written by another version; continue with that one, or choose another folder")
        if first and (found is None or not is_run(found)) and line.endswith(b"\n"):
            raise SourceError(f"{path}: not the ledger of a fleet; choose another folder, or move that file away")
        first = False
        if not line.strip():
            continue
        if found is not None and is_run(found):
            run = found
            ended.clear()
        elif found is not None and (attempt := attempt_of(found)) is not None:
            attempts[attempt.name] = attempt
            names[attempt.key] = attempt.name
            ended.add(attempt.name)
        else:
            ignored += 1
    to = run.get("to")
    return History(to, str(run.get("verify", "")), int(run.get("tasks", 0)), attempts, names, ignored, frozenset(ended))


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
        self._append(run_record(to, verify, tasks, made_by, now))

    def append(self, attempt: Attempt) -> Attempt:
        """Notes an attempt, and gives it back; of an OUT of very many files without their sums, which its manifest has."""
        found = attempt.to_json()
        if len(json.dumps(found)) >= MAX_LEDGER_LINE_BYTES:
            found["hashes"] = {}
        self._append(found)
        return attempt

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

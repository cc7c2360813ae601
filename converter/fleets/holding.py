"""One run at a time has OUTDIR: a file with its owner and a heartbeat, which any machine that sees the folder can judge.

Another run takes the lock over if its process has certainly ended. It also does so after ``SECONDS_TO_EXPIRE`` without a
heartbeat, by the clock of the file system, which is the same for all. ``flock`` on the folder, for a moment, keeps two from
judging at once.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from converter.errors import TargetError
from converter.system.locks import FolderLock
from converter.system.others import began, is_gone, this_machine

NAME = "fleet.lock"
SECONDS_TO_EXPIRE = 60.0
SECONDS_PER_BEAT = 2.0
MAX_LOCK_BYTES = 64 * 2**10
_MOST_RUNNING = 256
_OURS = re.compile(rf"\.{re.escape(NAME)}-[0-9a-f]{{12}}")


@dataclass(frozen=True)
class Holder:
    """Who has a folder.

    Attributes:
        owner: a word that only it knows.
        machine: a sum that identifies its machine.
        process: its number there.
        since: when the process began.
        age: seconds since its heart beat.
        running: names of the OUTs that are being made.
    """

    owner: str
    machine: str
    process: int
    since: str | None
    age: float
    running: tuple[str, ...] = ()

    @property
    def has_expired(self) -> bool:
        """Whether another run may have the folder."""
        ended = self.machine == this_machine() and is_gone(self.process, self.since)
        return ended or self.age > SECONDS_TO_EXPIRE


def holder_of(folder: Path) -> Holder | None:
    """The owner of a folder, or None.

    Raises:
        TargetError: there is a file by that name which is no lock.
    """
    path = folder / NAME
    try:
        if not os.path.lexists(path):
            return None
        said = _read(path) if path.is_file() and not path.is_symlink() else None
        age = _now(folder) - path.lstat().st_mtime
    except FileNotFoundError:
        return None
    except OSError as error:
        raise TargetError(f"{path}: cannot be read: {error.strerror}; check its permissions") from None
    if said is None:
        raise TargetError(f"{path}: not the lock of a fleet; choose another folder, or move that file away")
    return holder_said(said, age)


def lock_said(owner: str, running: Sequence[str]) -> dict[str, Any]:
    """The content of a lock."""
    return {
        "format": 1,
        "owner": owner,
        "machine": this_machine(),
        "process": os.getpid(),
        "since": began(os.getpid()),
        "running": list(running)[:_MOST_RUNNING],
    }


def lock_in(text: bytes) -> dict[str, Any] | None:
    """The content of a lock from its bytes; None if it is none."""
    with contextlib.suppress(ValueError, RecursionError):
        said = json.loads(text) if len(text) <= MAX_LOCK_BYTES else None
        if isinstance(said, dict) and isinstance(said.get("owner"), str) and said["owner"]:
            return said
    return None


def holder_said(said: Mapping[str, Any], age: float) -> Holder:
    """The owner of a lock, from its content and the seconds since its heart beat."""
    number, running = said.get("process"), said.get("running")
    process = number if isinstance(number, int) and 0 < number < 2**31 else 0
    return Holder(
        owner=said["owner"],
        machine=str(said.get("machine", "")) if process else "",
        process=process,
        since=said["since"] if isinstance(said.get("since"), str) else None,
        age=age,
        running=tuple(map(str, running[:_MOST_RUNNING])) if isinstance(running, list) else (),
    )


def _read(path: Path) -> dict[str, Any] | None:
    with path.open("rb") as file:
        return lock_in(file.read(MAX_LOCK_BYTES + 1))


def _now(folder: Path) -> float:
    """The time by the clock of the file system, which may be another machine's; this one's if that cannot be read."""
    probe = folder / f".{NAME}-{secrets.token_hex(6)}"
    try:
        probe.touch()
        return probe.stat().st_mtime
    except OSError:
        return time.time()
    finally:
        with contextlib.suppress(OSError):
            probe.unlink()


class Lock:
    """A lock with a heartbeat, for as long as the context lasts: what is the same on a disk and in a bucket."""

    # What a write raises while the place is out of reach for a moment: the next beat tells.
    _away: tuple[type[Exception], ...] = (OSError, TargetError)

    def __init__(self, running: Callable[[], Sequence[str]]) -> None:
        """Takes what is needed.

        Args:
            running: gives the names of the OUTs in progress.
        """
        self._running = running
        self._owner = secrets.token_hex(16)
        self._ended = threading.Event()
        self._heart = threading.Thread(target=self._beat, daemon=True)
        self.is_lost = False

    @property
    def owner(self) -> str:
        """The word in the lock that tells others who has OUTDIR."""
        return self._owner

    def __enter__(self) -> Self:
        try:
            self._take()
            self._heart.start()
        except BaseException:  # also of a signal that comes in between
            self._give_back()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._give_back()

    def _give_back(self) -> None:
        self._ended.set()
        if self._heart.ident is not None:
            self._heart.join()
        with contextlib.suppress(*self._away):
            self._end()

    def _beat(self) -> None:
        while not self._ended.wait(self._pause()):
            try:
                if self._is_taken_over():
                    self.is_lost = True
                    return
                self._write()
            except self._away:
                continue

    def _pause(self) -> float:
        """Seconds between two beats."""
        raise NotImplementedError

    def _take(self) -> None:
        """Writes the lock, or raises a TargetError."""
        raise NotImplementedError

    def _is_taken_over(self) -> bool:
        raise NotImplementedError

    def _write(self) -> None:
        """Writes the lock again, as a beat."""
        raise NotImplementedError

    def _end(self) -> None:
        """Gives the lock back, if it is still ours."""
        raise NotImplementedError


class Held(Lock):
    """The lock of a folder, for as long as the context lasts."""

    def __init__(self, folder: Path, running: Callable[[], Sequence[str]] = tuple) -> None:
        """Takes what is needed.

        Args:
            folder: OUTDIR, which exists.
            running: gives the names of the OUTs in progress.
        """
        super().__init__(running)
        self._folder, self._path = folder, folder / NAME

    def _pause(self) -> float:
        return SECONDS_PER_BEAT

    def _take(self) -> None:
        lock = FolderLock()
        try:
            lock.take(self._folder, wait=True)
            try:
                held = holder_of(self._folder)
                if held is not None and not held.has_expired:
                    raise TargetError(refusal(self._folder, held))
                self._sweep()
                self._write()
            finally:
                lock.give_back()
        except OSError as error:
            raise TargetError(f"{self._folder}: cannot be locked: {error.strerror}; choose another folder") from None

    def _is_taken_over(self) -> bool:
        held = holder_of(self._folder)
        return held is None or held.owner != self._owner

    def _end(self) -> None:
        if not self._is_taken_over():
            self._path.unlink()

    def _sweep(self) -> None:
        """Removes what runs that were killed in the middle of a heartbeat have left."""
        for path in self._folder.glob(f".{NAME}-*"):
            if _OURS.fullmatch(path.name):
                path.unlink(missing_ok=True)

    def _write(self) -> None:
        said = lock_said(self._owner, self._running())
        fresh = self._path.with_name(f".{NAME}-{secrets.token_hex(6)}")
        try:
            fresh.write_text(json.dumps(said), "utf-8")
            fresh.replace(self._path)
        finally:
            with contextlib.suppress(OSError):
                fresh.unlink()


def refusal(folder: Path, held: Holder) -> str:
    """Why a second run does not begin."""
    where = f"process {held.process} of this machine" if held.machine == this_machine() else "another machine"
    left = max(1, round(SECONDS_TO_EXPIRE - held.age))
    return (
        f"{folder}: another run is converting into it ({where}, alive {max(0, round(held.age))} s ago); wait until it "
        f"ends, or {left} s if it has died"
    )

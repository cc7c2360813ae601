"""One run at a time has an OUTDIR in a bucket: each run takes the next number, by an object that only one can create.

``fleet-lock/00000007.json`` says who has OUTDIR since run 7 began, and its owner writes it again as a heartbeat. To take a
lock over is to create the next number. So the store needs one condition alone, that an object does not exist yet, which
is ``If-None-Match`` on S3. The highest number stays there at the end, marked as ended: a run that wakes up after another
has taken over finds a higher number, whenever that is. A store without conditions is read again after a moment.
"""

from __future__ import annotations

import json
import logging
import re
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from converter.buckets.stores import Store
from converter.errors import BucketError, TargetError
from converter.fleets import holding
from converter.fleets.holding import MAX_LOCK_BYTES, Holder, Lock, holder_said, lock_in, lock_said, refusal
from converter.folder.addresses import Address

FOLDER = "fleet-lock"
MAX_RUNS = 99_999_999
# Of a bucket each request is paid for, so that the heart beats less often than on a disk.
SECONDS_PER_BEAT = 10.0
_SECONDS_TO_SETTLE = 2.0
_NAME = re.compile(r"([0-9]{8})\.json")
_log = logging.getLogger(__name__)


def holder_in(out: Address) -> Holder | None:
    """The owner of an OUTDIR by this machine's clock, or None.

    Raises:
        TargetError: there is an object by that name which is no lock.
        BucketError: the bucket refuses, or cannot be reached.
    """
    store = Store(out)
    if (number := _last(store)) is None or (said := _read(store, number)) is None or said.get("ended") is True:
        return None
    return _holder(store, number, said, time.time())


def number_of_run(number: int) -> str:
    """A run's number as it stands in the names of objects."""
    return f"{number:08}"


def _object(number: int) -> str:
    return f"{FOLDER}/{number_of_run(number)}.json"


def _last(store: Store) -> int | None:
    """The number of the last run; None before the first."""
    names = [_NAME.fullmatch(name) for name in store.list(FOLDER)[0]]
    return max((int(found[1]) for found in names if found is not None), default=None)


def _read(store: Store, number: int) -> dict[str, Any] | None:
    """A lock's content; None if it has gone meanwhile."""
    text = store.small(_object(number), MAX_LOCK_BYTES)
    if text is None:
        return None
    said = lock_in(text)
    if not said:
        raise TargetError(
            f"{store.address}/{_object(number)}: not the lock of a fleet; choose another folder, or move that object away"
        )
    return said


def _holder(store: Store, number: int, said: Mapping[str, Any], now: float) -> Holder:
    beat = store.modified(_object(number))
    if beat is None:  # a store that does not tell: by the clock of its owner
        told = said.get("time")
        beat = float(told) if isinstance(told, int | float) and 0 <= told < 2**40 else now
    return holder_said(said, now - beat)


def _now(store: Store) -> float:
    """The time by the clock of the store, which is the same for all; this machine's if the store does not tell."""
    probe = f"{FOLDER}/.now-{secrets.token_hex(6)}"
    store.put(probe, b"")
    try:
        return store.modified(probe) or time.time()
    finally:
        store.remove(probe)


class HeldBucket(Lock):
    """The lock of an OUTDIR in a bucket, for as long as the context lasts."""

    _away = (BucketError, TargetError)

    def __init__(self, out: Address, running: Callable[[], Sequence[str]] = tuple) -> None:
        """Takes what is needed.

        Args:
            out: OUTDIR.
            running: gives the names of the OUTs in progress.
        """
        super().__init__(running)
        self._store = Store(out)
        self.number = 0

    def _pause(self) -> float:
        return SECONDS_PER_BEAT

    def _take(self) -> None:
        store, last = self._store, _last(self._store)
        said = None if last is None else _read(store, last)
        if last is not None and said is not None and said.get("ended") is not True:
            held = _holder(store, last, said, time.time())
            if (
                not held.has_expired or held.age > holding.SECONDS_TO_EXPIRE
            ):  # for which no clock but the store's is good
                held = _holder(store, last, said, _now(store))
            if not held.has_expired:
                raise TargetError(refusal(store.address, held))
        number = (last or 0) + 1
        if number > MAX_RUNS:
            raise TargetError(f"{store.address}: more than {MAX_RUNS:,} runs had this folder; choose another folder")
        if not store.put_new(_object(number), self._said()):
            raise TargetError(f"{store.address}: another run has just begun; wait until it ends")
        self.number = number
        if not store.has_conditions:
            self._settle()
        for name in store.list(FOLDER)[0]:
            found = _NAME.fullmatch(name)
            if (found is not None and int(found[1]) < number) or name.startswith(".now-"):
                store.remove(f"{FOLDER}/{name}")

    def _settle(self) -> None:
        """Waits for another run that wrote the same object, where the store would not have refused that."""
        _log.warning(
            "%s: its library has no conditional writes; do not start two runs within %g s",
            self._store.address,
            _SECONDS_TO_SETTLE,
        )
        time.sleep(_SECONDS_TO_SETTLE)
        said = _read(self._store, self.number)
        if said is None or said["owner"] != self._owner:
            self.number = 0
            raise TargetError(f"{self._store.address}: another run has just begun; wait until it ends")

    def _write(self) -> None:
        self._store.put(_object(self.number), self._said())

    def _end(self) -> None:
        if self.number and not self._is_taken_over():
            self._store.put(_object(self.number), self._said(ended=True))

    def _is_taken_over(self) -> bool:
        return _last(self._store) != self.number

    def _said(self, ended: bool = False) -> bytes:
        said = {**lock_said(self._owner, () if ended else self._running()), "time": time.time(), "ended": ended}
        return json.dumps(said).encode()

"""OUTDIR on a disk or in a bucket: its lock, its ledger, its pages, and the disk that tasks fill."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from converter.buckets.scratch import Scratch
from converter.buckets.stores import Store
from converter.errors import TargetError
from converter.fleets import bucket_ledger, ledger
from converter.fleets.attempts import Attempt, History
from converter.fleets.bucket_ledger import BucketLedger, read_history_in
from converter.fleets.bucket_lock import HeldBucket, holder_in
from converter.fleets.fitting import Room
from converter.fleets.holding import Held, Holder, holder_of
from converter.fleets.ledger import Ledger, read_history
from converter.fleets.publishing import JSON_NAME, PAGE_NAME, REPORTS, check_free, write_pages
from converter.fleets.results import Fleet
from converter.folder.addresses import Address
from converter.folder.files import expanded
from converter.folder.staging import sweep
from converter.specs import Framework
from converter.system.processes import free_memory


class Lock(Protocol):
    """OUTDIR is this run's for as long as the context lasts."""

    is_lost: bool

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    @property
    def owner(self) -> str:
        """The word in the lock that tells others who has OUTDIR."""


class Book(Protocol):
    """A ledger that is written to."""

    def begin(self, to: Framework, verify: str, tasks: int, made_by: str, now: str) -> None:
        """Notes that a run begins."""

    def append(self, attempt: Attempt) -> Attempt:
        """Notes an attempt, and gives what stands there."""

    def close(self) -> None:
        """Ends the writing."""


class Home(Protocol):
    """OUTDIR.

    Attributes:
        ledger_name: what messages call the ledger.
        disk: what they call the disk that tasks fill.
    """

    ledger_name: str
    disk: str

    @property
    def out(self) -> Path:
        """Its path or address."""

    def make(self) -> None:
        """Makes it if it does not exist."""

    def history(self) -> History | None:
        """What its ledger holds; None if it has none."""

    def check_free(self) -> None:
        """Refuses an OUTDIR without a ledger that has something by the names of a fleet's own files."""

    def lock(self, running: Callable[[], Sequence[str]]) -> Any:
        """Its lock, not taken yet."""

    def holder(self) -> Holder | None:
        """Who has it."""

    def ledger(self, lock: Any) -> Book:
        """Its ledger, for the run that has the lock."""

    def noting(self, lock: Any) -> dict[str, Any] | None:
        """What a worker needs to note an attempt by itself; None where only the driver does."""

    def write_pages(self, found: Fleet) -> None:
        """Writes ``fleet.json`` and ``fleet.html``."""

    def sweep(self, names: Iterable[str]) -> None:
        """Removes what processes that were ended have left of OUTs."""

    def room(self, on_ray: bool) -> Room:
        """Where tasks need disk and memory."""


def home_of(out: str | os.PathLike[str]) -> Home:
    """OUTDIR by its path or address."""
    place = expanded(out)
    return _Bucket(place) if isinstance(place, Address) else _Disk(Path(place))


class _Disk:
    """An OUTDIR on a disk."""

    ledger_name = ledger.NAME

    def __init__(self, out: Path) -> None:
        self.out = out
        self.disk = f"the disk of {out.name}"

    def make(self) -> None:
        try:
            self.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TargetError(f"{self.out}: cannot be made: {error.strerror}; choose another folder") from None

    def history(self) -> History | None:
        return read_history(self.out)

    def check_free(self) -> None:
        check_free(self.out)

    def lock(self, running: Callable[[], Sequence[str]]) -> Held:
        return Held(self.out, running)

    def holder(self) -> Holder | None:
        return holder_of(self.out)

    def ledger(self, lock: Any) -> Ledger:  # noqa: ARG002
        return Ledger(self.out)

    def noting(self, lock: Any) -> None:  # noqa: ARG002
        return None

    def write_pages(self, found: Fleet) -> None:
        write_pages(found, self.out)

    def sweep(self, names: Iterable[str]) -> None:
        for name in names:
            sweep(self.out / name)

    def room(self, on_ray: bool) -> Room:
        return Room(self.out, None if on_ray else free_memory())


class _Bucket:
    """An OUTDIR in a bucket."""

    ledger_name = bucket_ledger.FOLDER
    disk = "the disk of temporary files (TMPDIR)"

    def __init__(self, out: Address) -> None:
        self.out = out

    def make(self) -> None:
        """Refuses a bucket that other processes do not see; a folder of one need not be made."""
        if self.out.scheme == "memory":
            raise TargetError(
                f"{self.out}: lies in the memory of this process, and the workers of a fleet are others; choose a bucket"
            )

    def history(self) -> History | None:
        return read_history_in(self.out)

    def check_free(self) -> None:
        store = Store(self.out)
        held = [name for name in (JSON_NAME, PAGE_NAME) if store.info(name) is not None]
        for name in (*held, *([REPORTS] if any(store.list(REPORTS)) else [])):
            raise TargetError(
                f"{self.out}/{name}: exists, and there is no ledger of a fleet; choose another folder, or move it away"
            )

    def lock(self, running: Callable[[], Sequence[str]]) -> HeldBucket:
        return HeldBucket(self.out, running)

    def holder(self) -> Holder | None:
        return holder_in(self.out)

    def ledger(self, lock: Any) -> BucketLedger:
        return BucketLedger(self.out, lock.number)

    def noting(self, lock: Any) -> dict[str, Any] | None:
        return None if lock is None else {"out": str(self.out), "run": lock.number}

    def write_pages(self, found: Fleet) -> None:
        """Puts both, from files, whose kind the libraries tell the bucket."""
        store = Store(self.out)
        with contextlib.closing(Scratch()) as scratch:
            write_pages(found, scratch.path)
            for name in (JSON_NAME, PAGE_NAME):
                store.put(name, scratch.path / name)

    def sweep(self, names: Iterable[str]) -> None:
        """Leaves that to the next upload, which may be another run's already."""

    def room(self, on_ray: bool) -> Room:
        """The disk that has temporary files, unless that is another machine's."""
        return Room(None if on_ray else Path(tempfile.gettempdir()), None if on_ray else free_memory())

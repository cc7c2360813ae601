"""One run over a list: gives tasks to workers, records their results, and reports progress."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from converter.errors import ConverterError, TargetError
from converter.fleets.attempts import Attempt, History, report_of, utc_now
from converter.fleets.bucket_ledger import of_answer
from converter.fleets.ended import Ended, Workers
from converter.fleets.fitting import Need, need_of
from converter.fleets.homes import Book, Home, Lock
from converter.fleets.pool import Pool
from converter.fleets.ray_pool import RayPool
from converter.fleets.results import Fleet, FleetTask, estimated, in_order, of_attempt
from converter.fleets.tasks import Task
from converter.folder.addresses import Address
from converter.folder.files import expanded
from converter.specs import Framework

Said = Callable[["FleetProgress"], None]
# How many waiting tasks may overtake one that is too large right now.
_LOOKED_AT = 64


@dataclass(frozen=True)
class FleetProgress:
    """The progress of a run.

    Attributes:
        total: checkpoints of the list.
        ended: those with an outcome, of this run or an earlier one.
        failed: those of them that failed.
        running: names of those in progress.
        nbytes: size of the weights that this run has written.
        seconds: time since it began.
        last: the last one that ended; None at the beginning.
    """

    total: int
    ended: int
    failed: int
    running: tuple[str, ...]
    nbytes: int
    seconds: float
    last: FleetTask | None

    @property
    def rate(self) -> float:
        """Bytes per second."""
        return self.nbytes / self.seconds if self.seconds else 0.0

    @property
    def seconds_left(self) -> float | None:
        """Estimated time for the rest at this rate; None if unknown."""
        return self.seconds / self.ended * (self.total - self.ended) if self.ended else None


@dataclass(frozen=True)
class Bounds:
    """The limits of a run, and of each task in it; ``ray`` is the address of a cluster, None for this machine."""

    workers: int | None
    deadline: float
    memory: int
    failures: int | None
    again: bool
    ray: str | None = None


class Run:
    """One run: its tasks, and their results so far."""

    def __init__(
        self,
        home: Home,
        to: Framework,
        verify: str,
        tasks: tuple[Task, ...],
        history: History,
        bounds: Bounds,
        progress: Said | None,
        held: Lock | None = None,
        under_way: list[str] | None = None,
    ) -> None:
        self._home, self._out, self._to, self._verify, self._tasks = home, home.out, to, verify, tasks
        self._history, self._bounds, self._progress, self._held = history, bounds, progress, held
        self._under_way = [] if under_way is None else under_way
        self._found: dict[str, FleetTask] = {}
        self._needs: dict[str, Need] = {}
        self._room = home.room(bounds.ray is not None)
        self._noting = home.noting(held)
        self._began = time.perf_counter()
        self._failures = self._failed = self._nbytes = 0

    def carry_out(self, do: str, ledger: Book | None) -> Fleet:
        """Runs all tasks, and records them in the ledger if there is one."""
        unfinished: list[str] = []
        try:
            with self._workers() as pool:
                try:
                    stopped = self._go_over(pool, do, ledger)
                finally:
                    unfinished += [task.name for task in pool.running]
        finally:
            if do == "convert":
                self._home.sweep(unfinished)
        for task in self._tasks:
            self._found.setdefault(task.name, FleetTask(task.name, task.label, "left"))
        seconds = time.perf_counter() - self._began
        tasks = in_order(list(self._found.values()))
        return Fleet(self._out, self._to, self._verify, tasks, seconds, stopped, do == "inspect")

    def _workers(self) -> Workers:
        bounds = self._bounds
        if bounds.ray is None:
            return Pool(bounds.workers or 1, bounds.deadline, bounds.memory)
        owner = "" if self._held is None else self._held.owner
        return RayPool(bounds.ray, bounds.workers, bounds.deadline, bounds.memory, owner)

    def _go_over(self, pool: Workers, do: str, ledger: Book | None) -> str:
        """Starts one task after the other; returns why it did not reach the end, or empty."""
        waiting, stopped = deque(self._tasks), ""
        self._tell(None)
        while waiting or pool.running:
            if self._held is not None and self._held.is_lost:
                raise TargetError(f"{self._out}: another run has taken the folder over; look at its ledger")
            stopped = stopped or (self._reason_to_stop() if waiting else "")
            while waiting and not stopped and not pool.is_full:
                task = self._next(waiting, pool, do)
                if task is None:
                    break
                self._start(pool, task, do)
            if waiting and not stopped and not pool.running:
                stopped = self._full(waiting[0])
            if stopped:
                waiting.clear()
            ended = pool.wait() if pool.running else None
            self._under_way[:] = [task.name for task in pool.running]
            self._tell(None if ended is None else self._note(ended, ledger))
        return stopped

    def _next(self, waiting: deque[Task], pool: Workers, do: str) -> Task | None:
        """Takes the first task that fits beside the running ones: among the next ones, or among all if nothing runs; or None."""
        running = [self._needs[task.name] for task in pool.running]
        for place in range(min(len(waiting), _LOOKED_AT) if running else len(waiting)):
            task = waiting[place]
            if self._room.fits(self._need(task, do), running):
                del waiting[place]
                return task
        return None

    def _need(self, task: Task, do: str) -> Need:
        if task.name not in self._needs:
            last = self._history.attempts.get(task.name)
            is_done = do == "inspect" or (last is not None and last.state == "done" and last.key == task.key)
            verify = self._verify if do == "convert" else "none"
            is_put = isinstance(self._out, Address)
            self._needs[task.name] = need_of(task, verify, 0 if last is None else last.nbytes, is_done, is_put)
        return self._needs[task.name]

    def _full(self, task: Task) -> str:
        need = self._needs[task.name].disk
        return (
            f"stopped: {self._home.disk} is too full: {task.name} needs {need:,} bytes, and "
            f"{self._room.disk:,} are free; free some space and run this again for the rest"
        )

    def _start(self, pool: Workers, task: Task, do: str) -> None:
        last = self._history.attempts.get(task.name)
        known = None if last is None else {name: value for name, value in asdict(last).items() if name != "hashes"}
        if last is not None and last.key != task.key:  # another source had this name: its OUT may be replaced
            known = {"state": "", "identity": "", "commit": "", "verdict": "", "verify": "", "manifest": last.manifest}
        report = report_of(task.name)
        out, source = self._out, task.source
        if self._bounds.ray is not None:  # it runs with another current folder
            out, local = out if isinstance(out, Address) else out.absolute(), Path(expanded(source))
            source = str(local.absolute()) if task.hub is not True and local.exists() else source
        question = {
            "do": do,
            "source": source,
            "hub": task.hub,
            "revision": task.revision,
            "options": dict(task.options),
            "out": str(out / task.name),
            "to": self._to,
            "verify": self._verify,
            "report": str(out / report),
            "report_name": report,
            "known": known,
            "again": self._bounds.again,
        }
        if self._noting is not None:
            own = {"name": task.name, "key": task.key, "source": task.label, "attempt": _next_attempt(last)}
            question["noting"] = self._noting | own
        pool.start(task, question, self._needs[task.name])

    def _note(self, ended: Ended, ledger: Book | None) -> FleetTask:
        """Takes down what a task came to: in the ledger first, for the run may end between the two."""
        task: Task = ended.task
        last = self._history.attempts.get(task.name)
        if ended.answer is None and ledger is not None:
            self._home.sweep([task.name])
        if ended.answer is not None and ended.answer.get("unchanged") and last is not None:
            found = of_attempt(last, unchanged=True)
        elif ledger is None:
            found = self._looked_at(ended)
        else:
            attempt = of_answer(ended.answer or {}) or ledger.append(_attempt(ended, _next_attempt(last)))
            found = of_attempt(attempt)
            self._nbytes += attempt.nbytes
        self._failed += found.state == "failed"
        self._failures += found.state == "failed" and not found.unchanged
        self._found[task.name] = found
        return found

    def _looked_at(self, ended: Ended) -> FleetTask:
        answer, task = ended.answer or {"state": "failed", **_error(ended.reason)}, ended.task
        said = {
            name: answer[name] for name in ("state", "seconds", "nbytes", "commit", "error", "next") if name in answer
        }
        found = FleetTask(task.name, task.label, **said)
        if found.state != "convertible":
            return found
        return FleetTask(
            task.name, task.label, **said, estimated_seconds=estimated(found.nbytes, self._history.attempts)
        )

    def _reason_to_stop(self) -> str:
        most = self._bounds.failures
        if most is None or self._failures < most:
            return ""
        return f"stopped after {self._failures:,} failures (--stop-after-failures); run this again for the rest"

    def _tell(self, last: FleetTask | None) -> None:
        if self._progress is not None:
            seconds = time.perf_counter() - self._began
            running = tuple(self._under_way)
            said = FleetProgress(len(self._tasks), len(self._found), self._failed, running, self._nbytes, seconds, last)
            self._progress(said)


def _attempt(ended: Ended, number: int) -> Attempt:
    """The ledger's fields for a task that has ended."""
    answer = ended.answer or {"state": "failed", "seconds": ended.seconds, **_error(ended.reason)}
    known = {one.name for one in fields(Attempt)}
    said = {name: value for name, value in answer.items() if name in known}
    task: Task = ended.task
    own = {"name": task.name, "key": task.key, "source": task.label, "attempt": number, "worker": ended.worker}
    return Attempt(**{**said, **own, "time": utc_now()})


def _next_attempt(last: Attempt | None) -> int:
    return 1 if last is None else last.attempt + 1


def _error(reason: str) -> Mapping[str, str]:
    return {"error": reason, "next": ConverterError(reason).next_step}

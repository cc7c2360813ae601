"""Tasks on a Ray cluster. Decides what a task asks of it, how many are handed over, and what Ray's errors mean.

Scheduling, the loss of nodes and metrics are Ray's own. No tensor passes through it: questions and answers are small dicts,
which go with its messages and not through its object store.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import time
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, Self

from converter.errors import OptionError, WorkerError, printable
from converter.fleets.ended import Ended
from converter.fleets.fitting import Need
from converter.fleets.on_node import carry_out_on_node
from converter.folder.manifest import VERSION

# Ray starts a task again when its node or its process is lost, so often.
MAX_LOSSES = 5
MAX_RAY_WORKERS = 10_000
# The least that Ray takes is 75 MiB.
OBJECT_STORE_BYTES = 100 * 2**20
_GB = 10**9
_POLL = 0.05
_SECONDS_BETWEEN_COUNTS = 5.0
_SECONDS_TO_CANCEL = 15.0
_RETRY = "retry it with --retry failed"


class RayPool:
    """The workers of a cluster. A context manager: leaving it cancels what is under way."""

    def __init__(self, address: str, workers: int | None, deadline: float, memory: int, owner: str) -> None:
        """Takes what bounds tasks.

        Args:
            address: as ``ray.init`` takes it: ``"auto"``, ``"local"`` or ``HOST:PORT``.
            workers: how many run at the same time; None for as many as the cluster has processors for.
            deadline: seconds that a task may take.
            memory: bytes that its process may have for itself.
            owner: of the lock of OUTDIR; empty of a dry run.
        """
        self._address, self._workers, self._owner = address, workers, owner
        self._bounds = (deadline, memory)
        self._tasks: dict[Any, tuple[Any, float]] = {}
        self._processes: dict[str, int] = {}
        self._cpus = 1
        self._counted = (-math.inf, 1)
        self._ours = False

    def __enter__(self) -> Self:
        self._ray = _ray()
        if not self._ray.is_initialized():
            with _own_signals():
                self._connect()
            self._ours = True
        self._carry_out = self._ray.remote(carry_out_on_node)
        self._metrics = _Metrics()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        left = list(self._tasks)
        with contextlib.suppress(Exception):  # of a cluster that has gone
            for one in left:
                self._ray.cancel(one)  # which interrupts it, and it ends its process
            if left:
                self._ray.wait(left, num_returns=len(left), timeout=_SECONDS_TO_CANCEL)
        if self._ours:
            self._ray.shutdown()

    @property
    def running(self) -> tuple[Any, ...]:
        """The tasks that Ray has, some of which may wait for a node."""
        return tuple(task for task, _ in self._tasks.values())

    @property
    def is_full(self) -> bool:
        """Whether Ray has as many as run at a time, and some that follow at once."""
        return len(self._tasks) >= (self._workers or self._most())

    def start(self, task: Any, question: Mapping[str, Any], need: Need) -> None:
        """Hands a task to Ray."""
        resources = self._resources(need)
        self._cpus = resources["num_cpus"]
        options = self._carry_out.options(
            name=f"{question['do']} {task.name}",
            max_retries=MAX_LOSSES,
            scheduling_strategy="SPREAD",
            **resources,
        )
        reference = options.remote(dict(question), *self._bounds, self._owner, VERSION)
        self._tasks[reference] = (task, time.monotonic())

    def wait(self) -> Ended | None:
        """Waits a moment for a task to end, one way or another; None where none did.

        Raises:
            WorkerError: the cluster cannot work for the run, or has gone.
        """
        ended, _ = self._ray.wait(list(self._tasks), timeout=_POLL, fetch_local=False)
        if not ended:
            return None
        task, since = self._tasks.pop(ended[0])
        seconds = time.monotonic() - since
        errors = self._ray.exceptions
        try:
            said = self._ray.get(ended[0])
        except errors.RayTaskError as error:  # no exception leaves ours: it could not be imported
            last = str(error).strip().splitlines()[-1]
            raise WorkerError(
                f"a node of the Ray cluster cannot run this package ({printable(last, 200)}); install it on all nodes"
            ) from None
        except errors.OutOfMemoryError:
            reason = (
                f"memory of its node ran out {MAX_LOSSES + 1} times; use nodes with more memory, or a lower --memory, "
                "and --retry failed"
            )
            return self._metrics.counted(Ended(task, 0, None, reason, seconds))
        except (errors.WorkerCrashedError, errors.NodeDiedError, errors.ObjectLostError) as error:
            reason = f"its node or its worker was lost {MAX_LOSSES + 1} times ({type(error).__name__}); {_RETRY}"
            return self._metrics.counted(Ended(task, 0, None, reason, seconds))
        except errors.RayError as error:
            raise _gone(error) from None
        if "refused" in said:
            raise WorkerError(str(said["refused"]))
        worker = self._processes.setdefault(said["process"], len(self._processes) + 1)
        return self._metrics.counted(Ended(task, worker, said["answer"], said["reason"], said["seconds"]))

    def _connect(self) -> None:
        """Connects to a cluster, or starts one of this machine alone."""
        alone = {"object_store_memory": OBJECT_STORE_BYTES} if self._address == "local" else {}
        try:
            self._ray.init(address=self._address, log_to_driver=False, logging_level="ERROR", **alone)
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            last = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise WorkerError(
                f"{printable(self._address, 60)}: no Ray cluster there ({printable(last, 200)}); start one with `ray "
                "start --head`, or give --ray local"
            ) from None

    def _most(self) -> int:
        """How many tasks the cluster has processors for now, and a quarter more: nodes come and go."""
        when, found = self._counted
        if time.monotonic() - when > _SECONDS_BETWEEN_COUNTS:
            at_once = int(self._ray.cluster_resources().get("CPU", 1.0) // self._cpus)
            found = max(1, at_once + math.ceil(at_once / 4))
            self._counted = (time.monotonic(), found)
        return found

    def _resources(self, need: Need) -> dict[str, Any]:
        """A task's request, in steps of 1 GB: Ray plans by shape. Of no node more than the largest has, for it would wait.

        ``disk`` (in GB) and ``network`` (in tasks) are requested if the nodes were started with such resources.
        """
        most: dict[str, float] = {}
        for node in self._ray.nodes():
            for name, amount in node["Resources"].items() if node["Alive"] else ():
                most[name] = max(most.get(name, 0.0), amount)
        memory = need.memory if need.memory < _GB else math.ceil(need.memory / _GB) * _GB
        asked = {"disk": float(math.ceil(need.disk / _GB)), "network": float(need.network)}
        own = {name: min(amount, most[name]) for name, amount in asked.items() if amount and most.get(name)}
        return {
            "num_cpus": max(1, min(need.cpus, int(most.get("CPU", 0)))),
            "memory": int(min(memory, most.get("memory", memory))),
            "resources": own,
        }


def check_address(address: str) -> None:
    """Refuses an address that cannot be one, or a Python without Ray, before anything is made.

    Raises:
        OptionError: it cannot be one.
        WorkerError: Ray is not installed.
    """
    if "://" in address or not address:
        raise OptionError(
            f"ray is {printable(repr(address), 60)}; give auto, local or HOST:PORT. From outside a cluster, start the run "
            "there: `ray job submit -- convert fleet ... --ray auto`"
        )
    _ray()


class _Metrics:
    """Counters that Ray exports for Prometheus, on the node of the run."""

    def __init__(self) -> None:
        from ray.util.metrics import Counter

        self._ended = Counter("fleet_checkpoints", "Checkpoints that ended, by state.", tag_keys=("state",))
        self._bytes = Counter("fleet_bytes", "Bytes of weights that were written.")
        self._seconds = Counter("fleet_seconds", "Seconds of workers.")

    def counted(self, ended: Ended) -> Ended:
        """Counts what ended, and gives it back."""
        answer = ended.answer or {"state": "failed"}
        self._ended.inc(1, {"state": "unchanged" if answer.get("unchanged") else str(answer.get("state"))})
        if nbytes := int(answer.get("nbytes", 0)):
            self._bytes.inc(nbytes)
        if ended.seconds > 0:
            self._seconds.inc(ended.seconds)
        return ended


def _ray() -> Any:
    # Ray would start without end a task whose node has no memory left. It reads this when it is imported.
    os.environ.setdefault("RAY_task_oom_retries", str(MAX_LOSSES))
    try:
        import ray
        import ray.exceptions
    except ImportError:
        raise WorkerError("--ray needs Ray; install it with `pip install 'dual-encoder-converter[fleet]'`") from None
    return ray


def _gone(error: Exception) -> WorkerError:
    said = printable(str(error).strip().partition("\n")[0], 200)
    return WorkerError(f"the Ray cluster is gone ({type(error).__name__}: {said}); start it and run this again")


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """Keeps what answers SIGTERM: ``ray.init`` puts its own in that place."""
    try:
        before = signal.getsignal(signal.SIGTERM)
        yield
        signal.signal(signal.SIGTERM, before)
    except ValueError:  # not in the main thread, where Ray does nothing of the kind either
        return

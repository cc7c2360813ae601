"""Processes that run tasks, one at a time each. Decides how a task ends that does not end.

Why not ``concurrent.futures`` or ``multiprocessing.Pool``? A worker that dies breaks the former's whole executor, with
all running tasks. Neither can cancel a running task, and a task that hangs keeps its place forever. They also start
children by fork, in which threads' locks stay taken, or by importing the caller's main module. So each worker is a
plain process of this package with two pipes. Only that process is killed when its task is late or takes too much
memory; a new one takes its place. It ends by itself, at once, when its driver does, however that ends: its standard
input does.

Memory is limited by watching the private memory of the process and of the frameworks that it has started (Linux; no other
system reports it). ``RLIMIT_AS`` would count mapped weights as well, which take no memory.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self, cast

from converter.buckets.scratch import Scratch
from converter.errors import WorkerError, printable
from converter.fleets.ended import Ended
from converter.fleets.fitting import Need
from converter.system.others import private_memory, those_below
from converter.system.starting import LOAD

MAX_ANSWER_BYTES = 4 * 2**20
MAX_WORKERS = 256
_POLL = 0.05
_LOG_LINES = 3
_ENVIRONMENT = {"PYTHONSAFEPATH": "1", "PYTHONFAULTHANDLER": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
_START = 'import runpy\nrunpy.run_module("converter.fleets.worker", run_name="__main__", alter_sys=True)\n'


class _Process:
    """One worker's process, and the thread that listens to it."""

    def __init__(self, number: int, folder: Path, heard: queue.SimpleQueue[tuple[_Process, bytes]]) -> None:
        self.number, self._heard = number, heard
        self.log = folder / f"worker{number}.txt"
        self.task: Any = None
        self.since = 0.0
        self.ended_for = ""
        scratch = {"TMPDIR": str(folder), "TEMP": str(folder)}  # what a killed one leaves there goes with the folder
        try:
            with self.log.open("wb") as output:
                self.popen = subprocess.Popen(  # noqa: S603 - this interpreter
                    [sys.executable, "-c", LOAD + _START, str(folder)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=output,
                    env={**os.environ, **_ENVIRONMENT, **scratch},
                    start_new_session=True,  # what a terminal sends to the program is the driver's to answer
                )
        except OSError as error:
            raise WorkerError(f"cannot start a process: {error.strerror}; use fewer workers") from None
        self._answers = cast("IO[bytes]", self.popen.stdout)
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def ask(self, task: Any, question: Mapping[str, Any]) -> None:
        """Hands it a task."""
        self.task, self.since = task, time.monotonic()
        with contextlib.suppress(OSError):  # it has ended already: its listener says so
            pipe = cast("IO[bytes]", self.popen.stdin)
            pipe.write(json.dumps({"worker": self.number, **question}).encode() + b"\n")
            pipe.flush()

    def kill(self, reason: str = "") -> None:
        """Ends it and what it started, at once."""
        self.ended_for = self.ended_for or reason
        below = those_below(self.popen.pid) if self.popen.poll() is None else ()
        try:
            os.killpg(self.popen.pid, signal.SIGKILL)
        except (AttributeError, ProcessLookupError, PermissionError):
            self.popen.kill()
        for number in below:  # frameworks have groups of their own
            with contextlib.suppress(OSError):
                os.kill(number, signal.SIGKILL)

    @property
    def memory(self) -> int:
        """Private bytes of it and of what it started; 0 if the system does not report them."""
        own = private_memory(self.popen.pid)
        return 0 if own is None else own + sum(private_memory(one) or 0 for one in those_below(self.popen.pid))

    def close(self) -> None:
        """Ends it, and waits until it has."""
        self.kill()
        self.popen.wait()
        self._listener.join()
        for pipe in (self.popen.stdin, self.popen.stdout):
            with contextlib.suppress(OSError):
                cast("IO[bytes]", pipe).close()

    def how_it_ended(self) -> str:
        """Why there is no answer, with the next step."""
        status = self.popen.wait()
        if self.ended_for:
            return self.ended_for
        how = f"exit status {status}"
        if status < 0:
            with contextlib.suppress(ValueError):
                how = signal.Signals(-status).name
        said = [
            line for line in self.log.read_bytes()[-20_000:].decode("utf-8", "replace").splitlines() if line.strip()
        ]
        tail = f" ({printable(' | '.join(said[-_LOG_LINES:]), 300)})" if said else ""
        return f"its process ended with {how}{tail}; retry it with --retry failed, and report it if this happens again"

    def _listen(self) -> None:
        while True:
            line = self._answers.readline(MAX_ANSWER_BYTES + 1)
            self._heard.put((self, line))
            if not line.endswith(b"\n"):
                return


class Pool:
    """Workers, started when they are first needed. A context manager: leaving it ends them all."""

    def __init__(self, workers: int, deadline: float, memory: int) -> None:
        """Takes what bounds them.

        Args:
            workers: how many run at the same time.
            deadline: seconds that a task may take.
            memory: bytes that its processes may have for themselves.

        Raises:
            TargetError: there can be no temporary folder for them.
        """
        self._most, self._deadline, self._memory = workers, deadline, memory
        self._heard: queue.SimpleQueue[tuple[_Process, bytes]] = queue.SimpleQueue()
        self._processes: list[_Process] = []
        self._folder = Scratch()  # which a later run removes if this one is killed

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends all workers, and waits until they have."""
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.close()
        self._folder.close()

    @property
    def running(self) -> tuple[Any, ...]:
        """The tasks under way."""
        return tuple(process.task for process in tuple(self._processes) if process.task is not None)

    @property
    def is_full(self) -> bool:
        """Whether every worker has a task."""
        return len(self.running) >= self._most

    def start(self, task: Any, question: Mapping[str, Any], need: Need | None = None) -> None:  # noqa: ARG002
        """Hands a task to a worker; there must be one that has none. The run has provided what it needs."""
        idle = (process for process in self._processes if process.task is None and not process.ended_for)
        free = next(idle, None)
        if free is None:
            taken = {process.number for process in self._processes}
            number = next(number for number in range(1, 2 * self._most + 1) if number not in taken)
            free = _Process(number, self._folder.path, self._heard)
            self._processes.append(free)
        free.ask(task, question)

    def wait(self) -> Ended | None:
        """Waits a moment for a task to end, one way or another; None where none did."""
        try:
            process, line = self._heard.get(timeout=_POLL)
        except queue.Empty:
            self._watch()
            return None
        self._watch()
        task, process.task = process.task, None
        seconds = time.monotonic() - process.since
        if line.endswith(b"\n"):
            answer = _answer(line)
            if answer is not None:
                return None if task is None else Ended(task, process.number, answer, "", seconds)
            process.kill("its process sent an invalid answer; report it")
        elif line:
            process.kill(f"its process sent more than {MAX_ANSWER_BYTES:,} bytes; report it")
        if process not in self._processes:  # it had been given up
            return None
        self._processes.remove(process)
        reason = process.how_it_ended()
        process.close()
        return None if task is None else Ended(task, process.number, None, reason, seconds)

    def _watch(self) -> None:
        """Ends the processes that are late, and those that take too much."""
        now = time.monotonic()
        for process in self._processes:
            if process.task is None or process.ended_for:
                continue
            if now - process.since > self._deadline:
                process.kill(f"not done within {self._deadline:g} s, so it was stopped; raise --deadline")
            elif process.memory > self._memory:
                process.kill(f"took more than {self._memory:,} bytes of memory, so it was stopped; raise --memory")


def _answer(line: bytes) -> dict[str, Any] | None:
    with contextlib.suppress(ValueError, RecursionError):
        found = json.loads(line)
        return found if isinstance(found, dict) else None
    return None

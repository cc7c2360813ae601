"""Starts a worker in its own process and waits for its answers. Distinguishes crashes and hangs.

PyTorch and TensorFlow do not share a process well (importing TensorFlow before triton crashes), and a model that takes
the process down with it must not take the comparison down.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self, cast

from converter.errors import MissingPackage, OptionError, ParityError, WorkerCrash, WorkerError, printable
from converter.system.starting import LOAD

LOG_LINES = 20
_FATAL = "Fatal Python error"
_POLL = 0.02
_KILLED = 9  # SIGKILL, which Windows does not name
_START = """
import os, runpy, threading, time
caller = os.getppid()
def end_with_caller():
    while os.getppid() == caller:
        time.sleep(1)
    os._exit(1)
threading.Thread(target=end_with_caller, daemon=True).start()
runpy.run_module({module!r}, run_name="__main__", alter_sys=True)
"""


class Worker:
    """A process that answers requests one after the other.

    Use it as a context manager: leaving it ends the process. Imports are the expensive part of a run, so many models go
    through one worker.
    """

    def __init__(
        self,
        name: str,
        module: str,
        environment: Mapping[str, str],
        python: Path | None = None,
        log: Path | None = None,
    ) -> None:
        """Starts the process; it imports its framework while the caller continues.

        Args:
            name: what messages call it, for example ``"PyTorch reference"``.
            module: its entry point, a module of this package.
            environment: variables set on top of the caller's.
            python: interpreter of another environment; by default the one that runs this.
            log: where its output is kept; by default in a temporary file that goes with it.

        Raises:
            OptionError: the interpreter that was named cannot be started.
            WorkerError: no process can be started.
        """
        self.name = name
        self._folder = tempfile.TemporaryDirectory(prefix="parity-")
        self.log = log if log is not None else Path(self._folder.name, "log.txt")
        self._sent = 0
        self._sent_at = 0.0
        self._waiting: Path | None = None
        self._ended_for = ""
        program = LOAD + _START.format(module=module)
        # As it is from here: the process starts in another folder. A bare name may be on the PATH.
        interpreter = str(python.absolute() if python is not None and python.exists() else python or sys.executable)
        try:
            with self.log.open("wb") as output:
                self._process = subprocess.Popen(  # noqa: S603 -- the interpreter is the caller's choice
                    [interpreter, "-c", program],
                    stdin=subprocess.PIPE,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    cwd=self._folder.name,
                    env={**os.environ, **environment, "PYTHONSAFEPATH": "1", "PYTHONFAULTHANDLER": "1"},
                    start_new_session=True,
                )
        except OSError as error:
            self._folder.cleanup()
            kind = WorkerError if python is None else OptionError
            raise kind(
                f"{name}: cannot start {printable(interpreter)}: {error.strerror}; expected a Python interpreter"
            ) from None
        self._requests = cast("IO[bytes]", self._process.stdin)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def is_alive(self) -> bool:
        """Whether it is ready for a request: it runs, and none is in progress."""
        return self._process.poll() is None and self._waiting is None

    def ask(self, request: Mapping[str, Any], seconds: float) -> dict[str, Any]:
        """Sends a request and waits for its answer, as ``send`` and ``receive`` do."""
        self.send(request)
        return self.receive(seconds)

    def send(self, request: Mapping[str, Any]) -> None:
        """Sends a request, a JSON object, without waiting; its answer has to be received before the next one."""
        if self._waiting is not None:
            raise RuntimeError(f"{self.name}: a request is under way; receive its answer first")
        self._waiting = Path(self._folder.name, f"reply{self._sent}.json")
        self._sent += 1
        self._sent_at = time.monotonic()
        line = json.dumps({**request, "reply": str(self._waiting)}) + "\n"
        try:
            self._requests.write(line.encode())
            self._requests.flush()
        except OSError:
            pass  # it has ended already: receive says how

    def receive(self, seconds: float) -> dict[str, Any]:
        """Waits for the answer to the request that was sent.

        Args:
            seconds: how long since the request was sent, the start of the process included where it is the first.

        Returns:
            What the worker's module answers, with ``seconds`` and ``peak_memory`` (bytes).

        Raises:
            ParityError: it refused.
            MissingPackage: a package that it needs is not installed.
            WorkerError: it failed, ran out of memory or did not answer in time (then it is ended); WorkerCrash: it crashed.
        """
        reply, self._waiting = self._waiting, None
        if reply is None:
            raise RuntimeError(f"{self.name}: no request was sent")
        deadline = self._sent_at + seconds
        while not reply.exists():
            status = self._process.poll()
            if status is not None and not reply.exists():
                crashed = status < 0 and status != -_KILLED and not self._ended_for
                kind = WorkerCrash if crashed else WorkerError
                raise kind(f"{self.name}: {self._ended_for or _how_it_ended(status)}{self._log_tail()}")
            if time.monotonic() > deadline:
                self.end()
                self._ended_for = (
                    f"no answer within {seconds:g} s, so it was stopped; raise --seconds if the model "
                    "is large or the machine slow"
                )
                raise WorkerError(f"{self.name}: {self._ended_for}{self._log_tail()}")
            time.sleep(_POLL)
        outcome = json.loads(reply.read_bytes())
        reply.unlink()
        if "refused" in outcome:
            raise ParityError(f"{self.name}: {outcome['refused']}")
        if "missing" in outcome:
            raise MissingPackage(f"{self.name}: {outcome['missing']}")
        if "unable" in outcome:
            raise WorkerError(f"{self.name}: {outcome['unable']}")
        if "memory" in outcome:
            raise WorkerError(
                f"{self.name}: ran out of memory: {printable(outcome['memory'], 500)}; choose another device or a "
                f"machine with more memory{self._log_tail()}"
            )
        if "failed" in outcome:
            raise WorkerError(f"{self.name}: failed with {printable(outcome['failed'], 500)}{self._log_tail()}")
        answer: dict[str, Any] = outcome["answer"]
        return answer

    def end(self) -> None:
        """Ends the process and its children, at once."""
        self.dismiss()
        self._process.wait()

    def dismiss(self) -> None:
        """Ends the process as ``end`` does, and does not wait until the system has taken its memory back."""
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except (AttributeError, ProcessLookupError, PermissionError):
            self._process.kill()

    def close(self) -> None:
        """Ends the process and removes its files."""
        self.end()
        with contextlib.suppress(OSError):
            self._requests.close()
        self._folder.cleanup()

    def _log_tail(self) -> str:
        lines = self.log.read_bytes()[-100_000:].decode("utf-8", "replace").splitlines()
        lines = [printable(line.rstrip()) for line in lines if line.strip()]
        if not lines:
            return "; its log is empty"
        shown, said = lines[-LOG_LINES:], "its log ends with"
        # Python's stack is long, and the reason for a library's abort comes before it.
        fatal = next((number for number, line in enumerate(lines) if line.startswith(_FATAL)), len(lines))
        if fatal < len(lines) - LOG_LINES:
            start = max(0, fatal - LOG_LINES // 2)
            shown, said = lines[start : start + LOG_LINES], "its log has, where it crashed"
        return f"\n  {said}:\n" + "\n".join(f"  | {line}" for line in shown)


def _how_it_ended(status: int) -> str:
    if status >= 0:
        return f"ended with exit status {status} before it answered"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    if name == "SIGKILL":
        return "was killed (SIGKILL), probably because memory ran out; use a machine with more memory"
    return f"crashed with {name}"

"""Workers of both sides that are kept from one checkpoint to the next: to import a framework takes longer than to use it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from converter.parity.runners.candidate import start_candidate
from converter.parity.runners.isolation import Worker
from converter.parity.runners.options import CandidateOptions
from converter.parity.runners.reference import start_reference


class Models:
    """Starts a worker at its first use, and another one after it has ended."""

    def __init__(self) -> None:
        self._workers: dict[object, Worker] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def reference(self, python: Path | None, flax: bool) -> Worker:
        """A worker as ``start_reference`` gives it."""
        return self._kept((python, flax), lambda: start_reference(python, flax=flax))

    def candidate(self, options: CandidateOptions) -> Worker:
        """A worker as ``start_candidate`` gives it."""
        return self._kept(options, lambda: start_candidate(options))

    def _kept(self, what: object, start: Callable[[], Worker]) -> Worker:
        if what not in self._workers or not self._workers[what].is_alive:
            self._workers[what] = self._stack.enter_context(start())
        return self._workers[what]

"""How a task ends, and what runs tasks: processes of this machine (``pool``) or a Ray cluster (``ray_pool``)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, Self

from converter.fleets.fitting import Need


@dataclass(frozen=True)
class Ended:
    """How a task ended.

    Attributes:
        task: what was started.
        worker: that had it, counted from 1.
        answer: what it answered; None where its process ended first.
        reason: why that ended, with the next step.
        seconds: since it was started.
    """

    task: Any
    worker: int
    answer: dict[str, Any] | None
    reason: str
    seconds: float


class Workers(Protocol):
    """What runs tasks. A context manager: leaving it ends all that are under way."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    @property
    def running(self) -> tuple[Any, ...]:
        """The tasks under way."""

    @property
    def is_full(self) -> bool:
        """Whether no further task may be started now."""

    def start(self, task: Any, question: Mapping[str, Any], need: Need) -> None:
        """Hands out a task."""

    def wait(self) -> Ended | None:
        """Waits a moment for a task to end, one way or another; None where none did."""

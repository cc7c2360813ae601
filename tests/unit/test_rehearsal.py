"""What a child is tried with comes to nothing else than a refusal: it crashes, loops, or asks for all the memory."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from converter.checkpoints import rehearsal
from converter.checkpoints.rehearsal import MAX_BYTES, rehearse
from converter.errors import CorruptCheckpoint, UnsupportedContainer

PATH = Path("x.h5")


def refusal(read: Callable[[], object]) -> str:
    with pytest.raises(CorruptCheckpoint) as caught:
        rehearse(PATH, read)
    return str(caught.value)


def endless() -> NoReturn:
    while True:
        pass


def test_too_much_memory() -> None:
    assert refusal(lambda: bytearray(2 * MAX_BYTES)) == (
        "x.h5: not a sound file: reading its header takes too much memory; download or save it again"
    )
    rehearse(PATH, lambda: bytearray(MAX_BYTES // 4))


def test_too_much_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rehearsal, "MAX_SECONDS", 1)
    assert refusal(endless) == (
        "x.h5: not a sound file: the library that reads it takes more than 1 s; download or save it again"
    )


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS])
def test_a_crash(number: signal.Signals) -> None:
    assert refusal(lambda: os.kill(os.getpid(), number)) == (
        f"x.h5: not a sound file: the library that reads it crashes ({number.name}); download or save it again"
    )


def test_a_refusal_is_passed_on() -> None:
    def refuse() -> NoReturn:
        raise UnsupportedContainer("x.h5: \x1b of another kind")

    with pytest.raises(UnsupportedContainer, match="^x.h5: \x1b of another kind$"):
        rehearse(PATH, refuse)


def test_a_bug_is_left_for_the_caller_to_meet() -> None:
    rehearse(PATH, lambda: 1 // 0)


def test_no_child_stays_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    real, made = os.fork, []

    def fork() -> int:
        made.append(real())
        return made[-1]

    monkeypatch.setattr(os, "fork", fork)
    rehearse(PATH, lambda: None)
    with pytest.raises(ChildProcessError):
        os.waitpid(made[0], os.WNOHANG)

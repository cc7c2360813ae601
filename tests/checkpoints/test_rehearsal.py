"""What a child is tried with comes to nothing else than a refusal; it holds no lock of its parent's, and answers no signal.

A child crashes, loops, or asks for all the memory; signals are the parent's to answer.
"""

from __future__ import annotations

import os
import signal
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from converter.checkpoints import rehearsal
from converter.checkpoints.rehearsal import MAX_BYTES, rehearse
from converter.errors import CorruptCheckpoint, UnsupportedContainer
from converter.folder.staging import staged

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
        "x.h5: not a valid file: reading its header takes too much memory; download or save it again"
    )
    rehearse(PATH, lambda: bytearray(MAX_BYTES // 4))


def test_too_much_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rehearsal, "MAX_SECONDS", 1)
    assert refusal(endless) == (
        "x.h5: not a valid file: the library that reads it takes more than 1 s; download or save it again"
    )


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS])
def test_a_crash(number: signal.Signals) -> None:
    assert refusal(lambda: os.kill(os.getpid(), number)) == (
        f"x.h5: not a valid file: the library that reads it crashes ({number.name}); download or save it again"
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


def open_folders() -> list[str]:
    found = []
    for path in Path("/proc/self/fd").iterdir():
        try:
            held = os.fstat(int(path.name))
        except OSError:  # the listing's own
            continue
        found += [str(path.readlink())] if stat.S_ISDIR(held.st_mode) else []
    return found


def test_it_holds_no_lock_of_a_folder(tmp_path: Path) -> None:
    """Or a run that was killed would look alive to the next one for as long as its child still reads."""

    def tell() -> None:
        raise CorruptCheckpoint(f"open: {open_folders()}")

    with pytest.raises(CorruptCheckpoint, match=r"open: \[\]"), staged(tmp_path / "out", False) as staging:
        assert str(staging) in open_folders()
        rehearse(tmp_path, tell)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_it_is_not_taken_for_a_damaged_file(tmp_path: Path, number: signal.Signals) -> None:
    """A terminal sends it to both: the parent answers."""
    done = tmp_path / "done"

    def read() -> None:
        os.kill(os.getpid(), number)
        done.touch()

    rehearse(tmp_path, read)
    assert done.exists()


def test_interrupted_while_it_reads(tmp_path: Path) -> None:
    """The child is ended, and nothing waits for it; the mask of signals is as it was."""
    parent = os.getpid()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())

    def read() -> None:
        (tmp_path / "child").write_text(str(os.getpid()))
        os.kill(parent, signal.SIGINT)
        time.sleep(60)

    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        rehearse(tmp_path, read)
    assert time.monotonic() - started < 10
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "child").read_text()), 0)

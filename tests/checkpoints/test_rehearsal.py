"""What a child is tried with comes to nothing else than a refusal; it holds no lock of its parent's, and answers no signal.

A child crashes, loops, or asks for all the memory; signals are the parent's to answer.
"""

from __future__ import annotations

import os
import signal
import stat
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from converter.checkpoints import hdf5, rehearsal
from converter.checkpoints.rehearsal import MAX_BYTES, rehearse
from converter.errors import CorruptCheckpoint, UnsupportedContainer
from converter.folder.staging import staged

PATH = Path("x.h5")


def refusal(read: Callable[[Path], object]) -> str:
    with pytest.raises(CorruptCheckpoint) as caught:
        rehearse(PATH, read)
    return str(caught.value)


def endless(_: Path) -> NoReturn:
    while True:
        pass


def test_too_much_memory() -> None:
    assert refusal(lambda _: bytearray(2 * MAX_BYTES)) == (
        "x.h5: not a valid file: reading its header takes too much memory; download or save it again"
    )
    rehearse(PATH, lambda _: bytearray(MAX_BYTES // 4))


def test_too_much_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rehearsal, "MAX_SECONDS", 1)
    assert refusal(endless) == (
        "x.h5: not a valid file: the library that reads it takes more than 1 s; download or save it again"
    )


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS])
def test_a_crash(number: signal.Signals) -> None:
    assert refusal(lambda _: os.kill(os.getpid(), number)) == (
        f"x.h5: not a valid file: the library that reads it crashes ({number.name}); download or save it again"
    )


def test_a_refusal_is_passed_on() -> None:
    def refuse(_: Path) -> NoReturn:
        raise UnsupportedContainer("x.h5: \x1b of another kind")

    with pytest.raises(UnsupportedContainer, match="^x.h5: \x1b of another kind$"):
        rehearse(PATH, refuse)


def test_a_bug_is_left_for_the_caller_to_meet() -> None:
    rehearse(PATH, lambda _: 1 // 0)


def test_no_child_stays_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    real, made = os.fork, []

    def fork() -> int:
        made.append(real())
        return made[-1]

    monkeypatch.setattr(os, "fork", fork)
    rehearse(PATH, lambda _: None)
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

    def tell(_: Path) -> None:
        raise CorruptCheckpoint(f"open: {open_folders()}")

    with pytest.raises(CorruptCheckpoint, match=r"open: \[\]"), staged(tmp_path / "out", False) as staging:
        assert str(staging) in open_folders()
        rehearse(tmp_path, tell)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_it_is_not_taken_for_a_damaged_file(tmp_path: Path, number: signal.Signals) -> None:
    """A terminal sends it to both: the parent answers."""
    done = tmp_path / "done"

    def read(_: Path) -> None:
        os.kill(os.getpid(), number)
        done.touch()

    rehearse(tmp_path, read)
    assert done.exists()


def test_interrupted_while_it_reads(tmp_path: Path) -> None:
    """The child is ended, and nothing waits for it; the mask of signals is as it was."""
    parent = os.getpid()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())

    def read(_: Path) -> None:
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


DAMAGED = Path(__file__).resolve().parents[1] / "fuzz" / "regressions" / "hdf5"


def said_of(path: Path) -> str:
    with pytest.raises(CorruptCheckpoint) as caught:
        hdf5.read_header(path)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("heap-object-of-no-size", "takes more than 1 s"),
        ("text-of-4-gigabytes", "memory allocation failed"),
        ("group-not-named-in-utf-8", "not a valid tf_model.h5"),
    ],
)
def test_a_child_that_is_started_finds_what_one_that_is_forked_does(
    monkeypatch: pytest.MonkeyPatch, name: str, fault: str
) -> None:
    monkeypatch.setattr(rehearsal, "MAX_SECONDS", 1)
    forked = said_of(DAMAGED / name)
    monkeypatch.setattr(rehearsal, "CAN_FORK", False)
    assert said_of(DAMAGED / name) == forked
    assert fault in forked


def test_where_no_child_can_be_started_it_is_told_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tiny_expected: Path
) -> None:
    """The interpreter is not there, or is not one: what is read is read all the same."""
    monkeypatch.setattr(rehearsal, "CAN_FORK", False)
    rehearsal._say_once.cache_clear()
    for program in ("/nowhere/python", sys.executable, "/bin/true"):
        monkeypatch.setattr(sys, "executable", program)
        assert len(hdf5.read_header(tiny_expected / "tf_model.h5").tensors) == 97
    assert [record.getMessage() for record in caplog.records] == [
        "cannot start a process to test HDF5 files first: a damaged file can crash this one (see SECURITY.md)"
    ]

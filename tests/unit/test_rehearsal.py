"""The child that reads what may end it: it holds no lock of its parent's, and signals are the parent's to answer."""

from __future__ import annotations

import os
import signal
import stat
import time
from pathlib import Path

import pytest

from converter.checkpoints.rehearsal import rehearse
from converter.errors import CorruptCheckpoint
from converter.folders import staged


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

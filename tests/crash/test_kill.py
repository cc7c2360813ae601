"""Killed at any moment: OUT is absent, or the old one, or complete; what is left is recognisable and the next run sweeps it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from converter import verify
from converter.folder.replacing import NAME as JOURNAL
from converter.folder.replacing import settle
from tests.crash import children
from tests.crash.preparing import killed_at_a_rename, signalled_on_the_threshold, signalled_within_hdf5, without_kernel
from tests.crash.sources import CASES, FOREIGN, Case, content, foreign, put_foreign
from tests.torture import FULL, rounds

ROUNDS = rounds(sample=1, full=100)
LEFTOVER = re.compile(r"\.out\.partial-[0-9a-f]{12}")
INTERRUPTED = "convert: interrupted; nothing half-made was left behind\n"
# What an earlier conversion left, of either framework, whole and in shards: all of it is replaced.
OLD = (
    "config.json",
    "conversion.json",
    "parity.json",
    "model.safetensors",
    "tf_model.h5",
    "pytorch_model.bin.index.json",
)
ENDS = {
    signal.SIGINT: (130, INTERRUPTED),
    signal.SIGTERM: (143, ""),
    signal.SIGKILL: (-9, ""),
}


IN_FULL = [(name, number) for name in CASES for number in ENDS]
# Of the signals that can be handled one or the other.
SAMPLE = [pair for place, pair in enumerate(IN_FULL) if pair[1] == signal.SIGKILL or place % 2]


@pytest.mark.parametrize(
    ("name", "number"), IN_FULL if FULL else SAMPLE, ids=lambda value: getattr(value, "name", value)
)
def test_killed(sources: Path, tmp_path: Path, name: str, number: signal.Signals) -> None:
    Killing(sources, tmp_path, CASES[name], number).often(overwrite_first=list(CASES).index(name) % 2 == 1)


@pytest.mark.parametrize("number", ENDS if FULL else [signal.SIGKILL, signal.SIGTERM], ids=lambda number: number.name)
@pytest.mark.parametrize("overwrite_first", [False, True])
def test_killed_without_help_of_the_kernel(
    sources: Path, tmp_path: Path, overwrite_first: bool, number: signal.Signals
) -> None:
    Killing(sources, tmp_path, CASES["safetensors to h5"], number, without_kernel).often(overwrite_first)


@pytest.mark.parametrize("fate", ["SystemError", "RuntimeError", "lost"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_signal_within_hdf5_is_not_lost(
    small: Path, tmp_path: Path, talk: Path, number: signal.Signals, fate: str
) -> None:
    out = tmp_path / "place" / "out"
    ended = children.run(
        ["tf2pt", str(small / "tf"), str(out), "--quiet"], talk, prepare=partial(signalled_within_hdf5, number, fate)
    )
    assert (ended.status, ended.out, ended.err) == (ENDS[number][0], "", ENDS[number][1])
    if fate == "lost":
        assert verify(out, weights_only=True).passed
    else:
        assert not out.parent.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
@pytest.mark.parametrize("event", ["return", "call"])
def test_a_signal_on_the_threshold(small: Path, tmp_path: Path, talk: Path, number: signal.Signals, event: str) -> None:
    """No code of ours runs there that could clean up, neither of a folder nor of a file."""
    place = tmp_path / "place"
    place.mkdir()
    words = {
        "staged": ["pt2tf", str(small / "pt"), str(place / "out"), "--quiet"],
        "staged_file": ["verify", str(small / "tf"), "--weights-only", "--report", str(place / "report.md")],
    }
    for name, line in words.items():
        prepare = partial(signalled_on_the_threshold, number, event, name)
        ended = children.run(line, talk, prepare=prepare)
        assert (ended.status, ended.err) == ENDS[number], ended
        assert list(place.iterdir()) == []


@pytest.mark.parametrize("handler", [signal.default_int_handler, signal.SIG_IGN], ids=["heard", "ignored"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP], ids=lambda number: number.name)
def test_stopped_as_a_program(
    sources: Path, tmp_path: Path, number: signal.Signals, handler: Callable[..., object]
) -> None:
    """``python -m converter`` from its start; a shell has SIGINT ignored by what it runs in the background, nohup SIGHUP."""
    out = tmp_path / "place" / "out"
    out.parent.mkdir()
    heard = handler is not signal.SIG_IGN
    started = as_a_program(
        ["pt2tf", str(sources / "pt"), str(out), "--quiet"],
        partial(signal.signal, number, signal.SIG_DFL if heard and number == signal.SIGHUP else handler),
    )
    while not any(out.parent.iterdir()):
        assert started.poll() is None
        time.sleep(0.001)
    started.send_signal(number)
    said = started.communicate(timeout=60)
    if heard:
        assert (started.returncode, said) == (128 + number, ("", INTERRUPTED if number == signal.SIGINT else ""))
        assert list(out.parent.iterdir()) == []
    else:
        assert (started.returncode, said) == (0, ("", ""))
        assert verify(out, weights_only=True).passed


def test_interrupted_while_it_is_imported() -> None:
    """From the first line that is ours on, as later; before that the interpreter has its own way."""
    imports = int(interrupted_at(10**6).stdout)
    assert imports > 20
    turns = rounds(sample=4, full=100)
    for turn in range(turns):
        ended = interrupted_at(imports * turn // turns)
        assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", INTERRUPTED)


def interrupted_at(number: int) -> subprocess.CompletedProcess[str]:
    """Runs the program and interrupts it at one of the imports of its command line; prints how many there are."""
    command = [sys.executable, "-c", _INTERRUPT, str(number)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


# An audit hook sees every import.
_INTERRUPT = """
import sys
from converter.__main__ import main
seen = 0
def hook(event, arguments):
    global seen
    if event == "import":
        seen += 1
        if seen == number + 1:
            raise KeyboardInterrupt
number = int(sys.argv.pop())
sys.addaudithook(hook)
if number == 10**6:
    import converter.cli
    print(seen)
else:
    main()
"""


def as_a_program(words: list[str], prepare: Callable[[], object]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "converter", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=prepare,
    )


class Killing:
    """One conversion, killed again and again by one signal; into a folder that is there it leaves the files of others alone."""

    def __init__(
        self,
        sources: Path,
        tmp_path: Path,
        case: Case,
        number: signal.Signals,
        prepare: Callable[[], None] | None = None,
    ) -> None:
        self.talk, self.out = tmp_path / "talk", tmp_path / "place" / "out"
        self.talk.mkdir()
        self.out.parent.mkdir()
        self.sources, self.case, self.number, self.prepare = sources, case, number, prepare
        self.arguments = case.words(sources, self.out)
        self.seen: Counter[str] = Counter()

    def often(self, overwrite_first: bool) -> None:
        """Kills in ``ROUNDS`` random moments, every other time over an output that is there."""
        whole = children.run(self.arguments, self.talk, prepare=self.prepare)
        assert (whole.status, whole.err) == (0, "")
        assert not self.case.proved or verify(self.out, weights_only=True).passed
        new = content(self.out)
        noise = random.Random(f"{self.case} {self.number}")
        for turn in range(ROUNDS):
            # Files are replaced in the last few milliseconds, which few moments of all would fall into.
            moment = noise.uniform(0, 1.1) if turn % 4 < 2 else noise.uniform(0.9, 1.05)
            self.once(overwrite_first != bool(turn % 2), moment * whole.seconds, new)
        print(f"{self.case.source} {self.case.options} {self.number.name}: {dict(self.seen)}")  # noqa: T201

    def once(self, overwrite: bool, after: float, new: dict[str, str]) -> None:
        """Kills once and looks at what is there; then runs it to the end."""
        shutil.rmtree(self.out, ignore_errors=True)
        old = {}
        if overwrite:
            self.out.mkdir()
            for name in OLD:
                (self.out / name).write_text("old")
            put_foreign(self.out)
            old = content(self.out)
            new = new | {name: what for name, what in old.items() if name not in OLD}
        others = foreign(self.out) if overwrite else {}
        arguments = [*self.arguments, *(["--overwrite"] if overwrite else [])]
        ended = children.run(arguments, self.talk, self.number, after, self.prepare)
        if overwrite:
            self.settled(others)
        found = content(self.out) if self.out.exists() else {}
        left = sorted(path.name for path in self.out.parent.iterdir() if path != self.out)
        assert all(LEFTOVER.fullmatch(name) for name in left), left
        assert not left or self.number == signal.SIGKILL, left
        assert found in (old, new)
        assert (ended.status, ended.err) in (ENDS[self.number], (0, "")), ended
        assert ended.status != 0 or found == new
        self.seen["complete" if found == new else "old" if found else "absent"] += 1
        self.seen["with leftovers"] += bool(left)
        free(left, self.out.parent)
        self.case.convert(self.sources, self.out, overwrite=overwrite or found == new)  # sweeps what the first one left
        assert [path.name for path in self.out.parent.iterdir()] == ["out"]
        assert content(self.out) == new
        assert not overwrite or foreign(self.out) == others

    def settled(self, others: dict[str, tuple[int, int, int, str]]) -> None:
        """Lets the next command restore what was interrupted."""
        assert foreign(self.out) == others
        if (self.out / JOURNAL).exists():
            assert self.number == signal.SIGKILL
            free([JOURNAL], self.out)
            settle(self.out)
        free([self.out.name], self.out.parent)


@pytest.mark.parametrize("name", ["safetensors to h5", "shards to h5 shards", "h5 to bin"])
def test_killed_at_every_rename(small: Path, tmp_path: Path, talk: Path, name: str) -> None:
    """Of those that replace files in a folder that is there; verify, inspect and the next conversion come after it."""
    case, out = CASES[name], tmp_path / "place" / "out"
    first = CASES["safetensors to shards"].words(small, out)
    line = [*case.words(small, out), "--overwrite"]
    ends = set()
    for number in range(1, 100):
        shutil.rmtree(out, ignore_errors=True)
        assert children.run(first, talk).status == 0
        put_foreign(out)
        before, old = foreign(out), content(out)
        ended = children.run(line, talk, prepare=partial(killed_at_a_rename, number))
        assert foreign(out) == before
        if ended.status == 0:
            break
        assert (ended.status, ended.err) == (-9, "")
        if interrupted := (out / JOURNAL).exists():
            free([JOURNAL], out)
        command = [["verify", str(out), "--weights-only"], ["inspect", str(out)]][number % 2]
        asked = children.run(command, talk)
        assert asked.status == 0, asked
        assert (": interrupted while its files were being replaced; " in asked.err) == interrupted
        found = content(out)
        ends.add("old" if found == old else "new")
        assert verify(out, weights_only=True).passed
        assert foreign(out) == before
        free(["out"], out.parent)
        assert children.run(line, talk).status == 0
        assert foreign(out) == before
        assert set(content(out)) >= set(FOREIGN)
        assert [path.name for path in out.parent.iterdir()] == ["out"]
    assert number > 8
    assert ends == {"old", "new"}


def free(left: list[str], place: Path) -> None:
    """Waits for locks to go: a child that was forked a moment ago to read HDF5 first may have them a moment longer."""
    for name in left:
        if (place / name).is_dir():
            lock = os.open(place / name, os.O_RDONLY)
            deadline = time.monotonic() + 1
            while time.monotonic() < deadline:
                with contextlib.suppress(BlockingIOError):
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                time.sleep(0.001)
            os.close(lock)

"""The command line run within the test's process: status, what went to stdout, what went to stderr."""

from __future__ import annotations

import re
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from converter.cli import main

EXPECTED_TEXT = Path(__file__).with_name("expected")


class Run(NamedTuple):
    """What a command gave."""

    status: int
    out: str
    err: str


Convert = Callable[..., Run]


@pytest.fixture
def convert(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Convert]:
    """Runs ``convert`` with the given arguments; seconds in its output are 0.00."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # or --quiet sets it, for the tests that follow too

    def run(*arguments: str | Path) -> Run:
        monkeypatch.setattr(sys, "argv", ["convert", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            main()
        said = capsys.readouterr()
        return Run(int(caught.value.code or 0), re.sub(r"in \d+\.\d\d s", "in 0.00 s", said.out), said.err)

    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def here(tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder that holds the fixture as ``src``, so that outputs hold no paths of the machine."""
    shutil.copytree(tiny, tmp_path / "src")
    monkeypatch.chdir(tmp_path)
    return tmp_path

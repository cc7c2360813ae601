"""Runs the command line on something hostile and sees to it that it is refused: in one line, soon, nothing written."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from pathlib import Path

from click.testing import CliRunner

from converter.cli import cli

ROOT = Path(__file__).resolve().parents[2]
MOST_SECONDS = 5  # of the processor, so that a busy machine fails no test
MOST_BYTES = 300 * 10**6
MORE_BYTES = 200 * 10**6  # than this process needed before


def refusal(source: Path, out: Path, command: str = "pt2tf", alone: bool = False) -> str:
    """Converts ``source``, which must be refused: exit status 1, one printable line on stderr, nothing written.

    Args:
        source: something hostile.
        out: where nothing must appear; nor may anything else in its folder.
        command: of the command line.
        alone: in a process of its own, whose memory is measured; costs half a second.

    Returns:
        The complaint, without ``convert: ``.
    """
    before = sorted(out.parent.iterdir())
    run = run_alone if alone else _run_here
    status, said, complained = run([command, str(source), str(out)])
    assert (status, said) == (1, ""), complained
    assert complained.startswith("convert: ")
    assert complained.endswith("\n")
    assert complained[:-1].isprintable()
    assert sorted(out.parent.iterdir()) == before
    return complained.removeprefix("convert: ").removesuffix("\n")


def _run_here(arguments: list[str]) -> tuple[int, str, str]:
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    result = CliRunner(catch_exceptions=False).invoke(cli, arguments)
    assert time.process_time() - started < MOST_SECONDS
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < MORE_BYTES
    return result.exit_code, result.stdout, result.stderr


def run_alone(arguments: list[str]) -> tuple[int, str, str]:
    """Runs the command line in a process of its own; its status, stdout and stderr. It must need little time and memory."""
    command = [sys.executable, "-m", "converter", *arguments]
    answer = subprocess.run([sys.executable, "-c", _MEASURE, *command], cwd=ROOT, capture_output=True, check=True)
    status, said, complained, seconds, kilobytes = json.loads(answer.stdout)
    assert seconds < MOST_SECONDS
    assert kilobytes * 1024 < MOST_BYTES
    return status, said, complained


# In between stands a small process: a child's memory begins with that of the process that started it.
_MEASURE = """
import json, resource, subprocess, sys
done = subprocess.run(sys.argv[1:], capture_output=True, text=True)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps([done.returncode, done.stdout, done.stderr, used.ru_utime + used.ru_stime, used.ru_maxrss]))
"""

"""Runs the command line in processes that are forked ready to go, so that a signal lands within the conversion.

``python -m converter`` spends nine tenths of so short a life on imports.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

from converter import cli

_PRELOADED = [
    "converter.cli",
    "converter.conversion.combining",
    "converter.conversion.engine",
    "converter.checkpoints.torch_legacy",
    "tests.crash.children",
]
_PATIENCE = 60


@dataclass(frozen=True)
class Ended:
    """How a child ended: status (negative: by that signal), stdout, stderr, and how long it ran after it was ready."""

    status: int
    out: str
    err: str
    seconds: float


def context() -> ForkServerContext:
    """Where children are forked from; the first one imports the converter."""
    made = multiprocessing.get_context("forkserver")
    made.set_forkserver_preload(_PRELOADED)
    return made


def run(
    arguments: list[str],
    talk: Path,
    number: int | None = None,
    after: float = 0.0,
    prepare: Callable[[], None] | None = None,
) -> Ended:
    """Runs ``convert`` with some arguments in a child.

    Args:
        arguments: of the command line.
        talk: folder for what the child says.
        number: signal to send.
        after: seconds after the child said that it is ready; it is sent only to a child that still runs.
        prepare: called in the child first; a function of a module.
    """
    ready, said = context().Pipe(duplex=False)
    out, err = talk / "stdout", talk / "stderr"
    child = context().Process(target=_convert, args=(arguments, str(out), str(err), said, prepare))
    child.start()
    said.close()
    with ready:
        assert ready.poll(_PATIENCE)
        ready.recv()
        started = time.perf_counter()
        if number is not None:
            while time.perf_counter() - started < after and child.is_alive():
                time.sleep(min(0.001, after))
            assert child.pid is not None
            if child.is_alive():
                with contextlib.suppress(ProcessLookupError):  # it may end in between
                    os.kill(child.pid, number)
        child.join(_PATIENCE)
    seconds = time.perf_counter() - started
    assert child.exitcode is not None, "it hangs"
    status = child.exitcode
    child.close()
    return Ended(status, out.read_text(), err.read_text(), seconds)


def _convert(arguments: list[str], out: str, err: str, ready: Connection, prepare: Callable[[], None] | None) -> None:
    """The child: runs ``converter.cli.main`` with stdout and stderr in files; ready is it within its handlers."""
    for path, descriptor in ((out, 1), (err, 2)):
        opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        os.dup2(opened, descriptor)
        os.close(opened)
    sys.stdout, sys.stderr = (os.fdopen(descriptor, "w", 1, closefd=False) for descriptor in (1, 2))
    sys.argv = ["convert", *arguments]
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell in the background has it ignored
    real = cli.cli.main

    def announced(**options: Any) -> Any:
        ready.send(None)
        return real(**options)

    cli.cli.main = announced  # type: ignore[method-assign]
    status = 1
    try:
        if prepare is not None:
            prepare()
        cli.main()
    except SystemExit as stopped:
        status = int(stopped.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)

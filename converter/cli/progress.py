"""What is seen on stderr while a command runs: bars, stages and warnings, on a terminal only or not at all."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

# Read by huggingface_hub when it is imported, which is when a model on the Hub is named.
_NO_BARS = "HF_HUB_DISABLE_PROGRESS_BARS"


@contextmanager
def stages(first: str, silent: bool) -> Iterator[Callable[[str, int, int], None] | None]:
    """What is being verified, on stderr if that is a terminal; frameworks take seconds to start."""
    if silent or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console

    following = {"files": "weights", "weights": "outputs: both models start, run and are compared"}
    with Console(stderr=True).status(f"verifying {first}") as status:
        yield lambda part, _, __: status.update(f"verifying {following.get(part, part)}")


@contextmanager
def progress_bar(silent: bool) -> Iterator[Callable[[str, int, int], None] | None]:
    """A progress bar on stderr if that is a terminal; it begins after a download, which has bars of its own."""
    if silent:
        os.environ.setdefault(_NO_BARS, "1")
    if silent or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description:8}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=Console(stderr=True), transient=True)
    tasks: dict[str, Any] = {}

    def advance(stage: str, done: int, total: int) -> None:
        if not tasks:
            bar.start()
        if stage not in tasks:
            tasks[stage] = bar.add_task(stage, total=total)
        bar.update(tasks[stage], completed=done)

    try:
        yield advance
    finally:
        if tasks:
            bar.stop()


@contextmanager
def warnings_shown(shown: bool) -> Iterator[None]:
    """Warnings of this program and of huggingface_hub on stderr, or none."""
    import logging  # 3 ms, for which --help would wait

    loggers = [] if shown else [logging.getLogger(name) for name in ("converter", "huggingface_hub")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)

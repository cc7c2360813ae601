"""What stderr shows while a command runs: bars and stages, on a terminal only."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from converter.cli.voice import is_quiet, wants_json

# Read by huggingface_hub when it is imported, which is when a model on the Hub is named.
_NO_BARS = "HF_HUB_DISABLE_PROGRESS_BARS"


def _silent() -> bool:
    return is_quiet() or wants_json()


@contextmanager
def stages(first: str) -> Iterator[Callable[[str, int, int], None] | None]:
    """A bar on stderr of what is being verified, if that is a terminal; frameworks take seconds to start."""
    if _silent() or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    following = {"files": "weights", "weights": "outputs: both models start, run and are compared"}
    said = TextColumn("{task.description}", markup=False)
    columns = (SpinnerColumn(), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), said)
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(f"verifying {first}", total=None)

        def advance(part: str, done: int, total: int) -> None:
            bar.update(task, completed=done, total=total, description=f"verifying {following.get(part, part)}")

        yield advance


@contextmanager
def progress_bar() -> Iterator[Callable[[str, int, int], None] | None]:
    """A progress bar on stderr if that is a terminal; it begins after a download, which has its own bars."""
    if _silent():
        os.environ.setdefault(_NO_BARS, "1")
    if _silent() or not sys.stderr.isatty():
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

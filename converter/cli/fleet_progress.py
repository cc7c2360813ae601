"""What stderr shows while a fleet runs: a table on a terminal, a line per checkpoint elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from converter.cli.voice import LONG_LINE, is_quiet, wants_json
from converter.errors import printable

if TYPE_CHECKING:
    from converter.fleets.running import FleetProgress

_SHOWN = 8
_SECONDS_BETWEEN = 0.25


@contextmanager
def fleet_table() -> Iterator[Callable[[FleetProgress], None] | None]:
    """The callback for a fleet's progress; None if nobody would see it."""
    if is_quiet() or wants_json():
        yield None
    elif not sys.stderr.isatty():
        yield _say
    else:
        yield from _on_terminal()


def _on_terminal() -> Iterator[Callable[[FleetProgress], None]]:
    from rich.console import Console
    from rich.live import Live

    drawn = 0.0
    with Live(console=Console(stderr=True), auto_refresh=False, transient=True) as live:

        def draw(far: FleetProgress) -> None:
            nonlocal drawn
            if far.last is None and time.monotonic() - drawn < _SECONDS_BETWEEN:
                return
            drawn = time.monotonic()
            live.update(_table(far), refresh=True)

        yield draw


def _table(far: FleetProgress) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table("done", "running", "failed", "GB/s", "time left", box=None)
    left = "" if far.seconds_left is None else f"{far.seconds_left:,.0f} s"
    done = f"{far.ended - far.failed:,} of {far.total:,}"
    table.add_row(done, f"{len(far.running):,}", f"{far.failed:,}", f"{far.rate / 1e9:.2f}", left)
    for name in far.running[:_SHOWN]:
        table.add_row("", Text(printable(name, 40)))
    return table


def _say(far: FleetProgress) -> None:
    if far.last is not None and not far.last.unchanged:
        said = f"{far.ended:,}/{far.total:,} {far.last.name}: {far.last.error or far.last.state}"
        click.echo(printable(f"convert: {said}", LONG_LINE), err=True)

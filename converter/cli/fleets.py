"""The command that converts many checkpoints, and looks at how far that is: fleet."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from converter.cli.fleet_progress import fleet_table
from converter.cli.group import WRONG_USAGE, Command
from converter.cli.printing import show
from converter.cli.voice import is_verbose
from converter.errors import quoted

if TYPE_CHECKING:
    from converter.fleets.results import Fleet

_STATUSES = {"done": 0, "failed": 1, "not checked": 3}
_COLOURS = {"done": "green", "failed": "red", "not checked": "yellow"}
_SHOWN = 20


class Many(Command):
    """Status 1 is for single checkpoints, so an error of the list or of OUTDIR is another status."""

    refused = WRONG_USAGE


@click.command(
    cls=Many,
    short_help="Convert many checkpoints, resumable.",
    epilog="Example: convert fleet models.txt converted/ --to tf --workers 4",
)
@click.argument("sources", metavar="LIST")
@click.argument("out", metavar="OUTDIR", type=click.Path(readable=False))
@click.option(
    "--to", type=click.Choice(["tf", "pt", "flax"]), default="tf", show_default=True, help="Framework to convert to."
)
@click.option(
    "--verify",
    type=click.Choice(["weights", "outputs", "none"]),
    default="weights",
    show_default=True,
    help="Verify files and weights, every layer output too, or rely on the conversion's own check.",
)
@click.option("--workers", type=click.IntRange(1), metavar="N", help="Checkpoints at a time. Default: one per core.")
@click.option("--deadline", default=3600.0, show_default=True, metavar="SECONDS", help="Time limit per checkpoint.")
@click.option("--memory", default="8GB", show_default=True, metavar="SIZE", help="Memory limit per checkpoint (Linux).")
@click.option(
    "--ray", metavar="ADDRESS", help="Run on a Ray cluster: auto (its own node), HOST:PORT, or local (this machine)."
)
@click.option("--dry-run", is_flag=True, help="Read headers only, and show what would be converted.")
@click.option("--retry", type=click.Choice(["failed"]), help="Retry what failed in an earlier run.")
@click.option(
    "--stop-after-failures", type=click.IntRange(1), metavar="N", help="End after N failures; leave the rest for later."
)
def fleet(sources: str, out: str, **options: Any) -> None:
    """Convert all checkpoints of LIST, each into its own folder in OUTDIR.

    LIST is a file (a source per line, CSV, or JSON Lines), a folder of checkpoints, hub:AUTHOR, or - for standard
    input. LIST and OUTDIR may lie in a bucket (s3://models/converted). Run the same command again to continue.
    `convert fleet status OUTDIR` shows the progress of a fleet.

    Exit status: 0 all done, 1 some failed, 2 wrong usage, 3 some not checked.
    """
    if sources == "status":
        from converter.fleets.status import fleet_status

        found = fleet_status(out)
    else:
        from converter.fleets.driving import fleet as convert_all

        # Ray prints what its nodes report, such as the loss of one, to standard output.
        with fleet_table() as progress, contextlib.redirect_stdout(sys.stderr):
            found = convert_all(sources, out, progress=progress, **options)
    show(found, fleet_lines(found, "" if sources in ("-", "status") else sources), _COLOURS[found.status])
    sys.exit(_STATUSES[found.status])


def fleet_lines(found: Fleet, sources: str = "") -> Iterator[str]:
    """The result of a fleet: how many are in each state, then those that need attention; with the list, if it has a name."""
    counts = ", ".join(f"{count:,} {state}" for state, count in found.counts.items())
    yield f"{len(found.tasks):,} checkpoints to {found.to}: {counts}"
    if found.stopped:
        yield f"  {found.stopped}"
    if found.alive:
        yield "  a run is under way"
    if found.estimated_seconds is not None:
        total = sum(task.nbytes for task in found.tasks)
        yield f"  {total:,} bytes, some {found.estimated_seconds:,.0f} s of one worker"
    told = [task for task in found.tasks if task.state in ("failed", "not checked", "convertible") and task.name]
    shown = told if is_verbose() else told[:_SHOWN]
    width = max((len(task.name) for task in shown), default=0)
    for task in shown:
        figures = "" if task.estimated_seconds is None else f"{task.nbytes:,} bytes, {task.estimated_seconds:.1f} s"
        yield f"  {task.state:<11}  {task.name:<{width}}  {task.error or figures}".rstrip()
    if len(shown) < len(told):
        yield f"  and {len(told) - len(shown):,} more; --verbose shows all"
    if sources and not found.dry_run and any(task.state == "failed" for task in found.tasks):
        again = f"{quoted(sources)} {quoted(found.out)} --to {found.to} --verify {found.verify}"
        yield f"next: convert fleet {again} --retry failed"

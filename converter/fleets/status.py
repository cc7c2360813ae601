"""``fleet_status``: what the ledger of a folder says, from any machine that sees it."""

from __future__ import annotations

import os

from converter.arguments import checked
from converter.errors import SourceError
from converter.fleets.holding import holder_of
from converter.fleets.ledger import NAME, read_history
from converter.fleets.results import Fleet, FleetTask, in_order, of_attempt
from converter.folder.files import local


@checked()
def fleet_status(out: str | os.PathLike[str]) -> Fleet:
    """Reads the progress of a fleet.

    Args:
        out: its folder.

    Returns:
        The result of each checkpoint so far. Those that no run has reached have no name yet.

    Raises:
        SourceError: there is no ledger, or it cannot be read.
    """
    folder = local(out)
    history = read_history(folder)
    if history is None or history.to is None:
        raise SourceError(f"{folder}: holds no {NAME}; name the OUTDIR of a fleet")
    holder = holder_of(folder)
    alive = holder is not None and not holder.has_expired
    running = set(holder.running) if holder is not None and alive else set()
    found = [of_attempt(attempt) for name, attempt in history.attempts.items() if name not in running]
    found += [FleetTask(name, "", "running") for name in running]
    left = max(0, history.tasks - len(found))
    found += [FleetTask("", "", "left")] * left
    return Fleet(folder, history.to, history.verify, in_order(found), alive=alive)

"""``fleet_status``: what the ledger of a folder or a bucket says, from any machine that sees it."""

from __future__ import annotations

import os

from converter.arguments import checked
from converter.errors import SourceError
from converter.fleets.homes import home_of
from converter.fleets.results import Fleet, FleetTask, in_order, of_attempt


@checked()
def fleet_status(out: str | os.PathLike[str]) -> Fleet:
    """Reads the progress of a fleet.

    Args:
        out: its folder, or the address of one in a bucket.

    Returns:
        The result of each checkpoint so far. Those that no run has reached have no name yet.

    Raises:
        SourceError: there is no ledger, or it cannot be read.
    """
    home = home_of(out)
    history = home.history()
    if history is None or history.to is None:
        raise SourceError(f"{home.out}: holds no {home.ledger_name}; name the OUTDIR of a fleet")
    holder = home.holder()
    alive = holder is not None and not holder.has_expired
    # A heartbeat may be some seconds old: what has been noted since is no longer running.
    running = set(holder.running) - history.ended if holder is not None and alive else set()
    found = [of_attempt(attempt) for name, attempt in history.attempts.items() if name not in running]
    found += [FleetTask(name, "", "running") for name in running]
    left = max(0, history.tasks - len(found))
    found += [FleetTask("", "", "left")] * left
    return Fleet(home.out, history.to, history.verify, in_order(found), alive=alive)

"""``fleet``: reads the list and the ledger, and has one run go over what is left. It reads no checkpoint."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from converter.arguments import checked
from converter.checkpoints.shards import parse_size
from converter.conversion.formats import choose
from converter.errors import OptionError, SourceError, TargetError
from converter.fleets.attempts import History, utc_now
from converter.fleets.homes import Home, home_of
from converter.fleets.lists import read_tasks
from converter.fleets.out_names import named
from converter.fleets.pool import MAX_WORKERS
from converter.fleets.ray_pool import MAX_RAY_WORKERS, check_address
from converter.fleets.results import Fleet
from converter.fleets.running import Bounds, Run
from converter.folder.manifest import VERSION
from converter.names.frameworks import frameworks
from converter.specs import Framework
from converter.system.processes import processors


@checked()
def fleet(
    sources: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    to: Framework = "tf",
    verify: Literal["weights", "outputs", "none"] = "weights",
    workers: int | None = None,
    deadline: float = 3600.0,
    memory: str | int = "8GB",
    ray: str | None = None,
    retry: Literal["failed"] | None = None,
    stop_after_failures: int | None = None,
    dry_run: bool = False,
    progress: Callable[..., Any] | None = None,
) -> Fleet:
    """Converts many checkpoints, each in its own process, and continues where an earlier run ended.

    Args:
        sources: path of a list (text with a source per line, CSV with a header, or JSON Lines) or of a folder of
            checkpoints. Either may lie in a bucket. Or ``"hub:author"`` for all models of an author, or ``"-"`` for
            standard input.
        out: folder for all of them, with the ledger ``fleet.jsonl``; created if it does not exist. Other files in it
            stay. Or the address of a folder in a bucket, whose ledger has an object per attempt.
        to: ``"pt"``, ``"tf"`` or ``"flax"``.
        verify: ``"weights"`` for files and weights bit for bit, ``"outputs"`` for every layer's output as well,
            ``"none"`` for only the conversion's own check.
        workers: how many checkpoints at a time. None means one per core, or one per two cores for outputs. Fewer run if
            disk or memory have no room for more.
        deadline: time limit per checkpoint, in seconds.
        memory: limit on the private memory of its process, for example ``"8GB"``; beyond that it is ended (Linux).
        ray: address of a Ray cluster: ``"auto"`` on one of its nodes, ``HOST:PORT``, or ``"local"`` for one on this
            machine alone. All nodes must have ``out`` and the sources, or the credentials of their buckets. None means
            processes of this machine.
        retry: ``"failed"`` to retry what failed in an earlier run.
        stop_after_failures: end after this many failures, and leave the rest to another run.
        dry_run: look at headers only; nothing is written.
        progress: called with a ``FleetProgress`` whenever a checkpoint has ended, and several times a second.

    Returns:
        The result of each checkpoint. ``fleet.json`` and ``fleet.html`` in ``out`` hold the same.

    Raises:
        ConverterError: the list makes no sense, or ``out`` cannot be used. A fault of one checkpoint raises nothing:
            it is in the result.
    """
    choose("to", to, tuple(frameworks()))
    _check_numbers(workers, deadline, stop_after_failures, MAX_WORKERS if ray is None else MAX_RAY_WORKERS)
    if ray is not None:
        check_address(ray)
    most = workers
    if most is None and ray is None:
        most = min(MAX_WORKERS, max(1, processors() // (2 if verify == "outputs" else 1)))
    bounds = Bounds(most, deadline, _memory(memory), stop_after_failures, retry == "failed", ray)
    home = home_of(out)
    tasks = read_tasks(sources if isinstance(sources, str | Path) else Path(sources), to, home.out)
    if dry_run:
        history = _history(home, to)
        run = Run(home, to, verify, named(tasks, history.names), history, bounds, progress)
        return run.carry_out("inspect", None)
    home.make()
    under_way: list[str] = []
    with home.lock(lambda: tuple(under_way)) as held:
        history = _history(home, to)
        tasks = named(tasks, history.names)
        ledger = home.ledger(held)
        try:
            ledger.begin(to, verify, len(tasks), f"dual-encoder-converter {VERSION}", utc_now())
            run = Run(home, to, verify, tasks, history, bounds, progress, held, under_way)
            found = run.carry_out("convert", ledger)
            home.write_pages(found)
            return found
        finally:
            ledger.close()


def _history(home: Home, to: Framework) -> History:
    history = home.history()
    if history is None:
        home.check_free()
        return History()
    if history.to not in (None, to):
        raise SourceError(
            f"{home.out}: holds a fleet that was converted to {history.to}; choose another folder for {to}"
        )
    return history


def _check_numbers(workers: int | None, deadline: float, failures: int | None, most: int) -> None:
    for name, value in (("workers", workers), ("stop_after_failures", failures)):
        if value is not None and value < 1:
            raise OptionError(f"{name} is {value}; expected 1 or more")
    if workers is not None and workers > most:
        raise OptionError(f"workers is {workers}; expected {most} or fewer")
    if not 0 < deadline < 10**9:
        raise OptionError(f"deadline is {deadline}; give a number of seconds above 0")


def _memory(memory: str | int) -> int:
    try:
        return parse_size(memory) or 0
    except TargetError:
        raise OptionError(f"memory is {memory!r}; give a size such as 8GB or 500MB") from None

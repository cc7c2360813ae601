"""Ray's work on a node: one task, in a process that is kept for the next one.

That process has a ``Pool`` of one, so that a deadline, a memory limit or a crash fails one checkpoint there, as it does here.
Ray retries only the loss of its own process or node. Frameworks stay imported from one task to the next.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import time
from collections.abc import Mapping
from typing import Any

from converter.errors import ConverterError, printable
from converter.fleets.ended import Ended
from converter.fleets.homes import Home, home_of
from converter.fleets.outs import place
from converter.fleets.pool import Pool
from converter.folder.addresses import Address
from converter.folder.manifest import VERSION

# Seconds after which a bucket is asked again.
_PAUSES = (1.0, 3.0, 9.0)


def carry_out_on_node(
    question: Mapping[str, Any], deadline: float, memory: int, owner: str, version: str
) -> dict[str, Any]:
    """Carries out one task where Ray has put it.

    Args:
        question: as ``carrying_out.carry_out`` takes it; its paths are absolute.
        deadline: seconds that it may take.
        memory: bytes that its process may have for itself.
        owner: of the lock of OUTDIR, which this node must see; empty of a dry run.
        version: of this package, where the run was started.

    Returns:
        Only ``refused`` if this node cannot work for the run; else ``answer`` and ``reason`` as in ``Ended``,
        ``seconds``, and ``process``, which identifies the worker.
    """
    if refused := _refusal(home_of(place(question["out"]).parent), owner, version):
        return {"refused": refused}
    node = os.uname().nodename if hasattr(os, "uname") else ""
    process = f"{node}:{os.getpid()}"
    try:
        ended = _carried_out(_kept(deadline, memory), {**question, "worker": _number_of(process)})
    except ConverterError as error:  # no exception of ours leaves this: Ray would take it for a fault of the package
        return {"refused": f"node {printable(node, 60)} of the Ray cluster: {error}"}
    return {"answer": ended.answer, "reason": ended.reason, "seconds": ended.seconds, "process": process}


def _carried_out(pool: Pool, question: Mapping[str, Any]) -> Ended:
    try:
        pool.start(str(question["out"]), question)
        while (ended := pool.wait()) is None:
            pass
        return ended
    except BaseException:  # the run was stopped, and has Ray cancel this
        _kept.cache_clear()
        pool.close()
        raise


@functools.lru_cache(maxsize=1)
def _kept(deadline: float, memory: int) -> Pool:
    """The process of this worker of Ray's; it ends with it, for its standard input does."""
    return Pool(1, deadline, memory)


def _number_of(process: str) -> int:
    """What a ledger in a bucket calls a worker, which writes there before the driver could count it."""
    return int(hashlib.sha256(process.encode()).hexdigest()[:7], 16) + 1


def _refusal(home: Home, owner: str, version: str) -> str:
    if version != VERSION:
        return (
            f"a node of the Ray cluster has version {VERSION} of this package, the run {version}; install the same "
            "on all nodes"
        )
    if not owner:
        return ""
    if isinstance(home.out, Address):
        return _refusal_of_bucket(home, owner)
    with contextlib.suppress(ConverterError):
        if _has(home, owner):
            return ""
    return (
        f"{home.out}: a node of the Ray cluster does not see this folder; choose one on a file system that all nodes "
        "share, or in a bucket"
    )


def _refusal_of_bucket(home: Home, owner: str) -> str:
    """Asks again, for a bucket that does not answer once is no reason to end a run of hours."""
    said = "another run has it"
    for pause in (*_PAUSES, 0.0):
        try:
            if _has(home, owner):
                return ""
        except ConverterError as error:
            said = printable(str(error), 200)
        time.sleep(pause)
    return (
        f"{home.out}: a node of the Ray cluster cannot use this bucket ({said}); set its library's credentials on all "
        "nodes, or run this again"
    )


def _has(home: Home, owner: str) -> bool:
    holder = home.holder()
    return holder is not None and holder.owner == owner

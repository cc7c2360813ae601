"""The system's facts about another process: whether it still is the same one, and its memory."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
from pathlib import Path


def this_machine() -> str:
    """Where process numbers mean the same: a sum of this machine, since it was started, and of the container."""
    said = [platform.node()]
    with contextlib.suppress(OSError):
        said.append(Path("/proc/sys/kernel/random/boot_id").read_text("ascii"))
    with contextlib.suppress(OSError):
        said.append(str(Path("/proc/self/ns/pid").readlink()))
    return hashlib.sha256("\n".join(said).encode()).hexdigest()[:16]


def began(number: int) -> str | None:
    """When a process began, in the system's own count: numbers are given again. None if it does not say."""
    try:
        return Path(f"/proc/{number}/stat").read_text("ascii", "replace").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return None


def is_gone(number: int, since: str | None) -> bool:
    """Whether a process of this machine has certainly ended; False if nothing can tell.

    Args:
        number: of the process.
        since: the result of ``began`` for it.
    """
    if os.name != "posix":  # where os.kill would end it
        return False
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return since is not None and began(number) not in (None, since)


def those_below(number: int) -> tuple[int, ...]:
    """The processes that the main thread of one has started, and theirs; empty if the system does not report them."""
    found: list[int] = []
    waiting = [number]
    while waiting:
        one = waiting.pop()
        with contextlib.suppress(OSError, ValueError):
            waiting += map(int, Path(f"/proc/{one}/task/{one}/children").read_text("ascii").split())
        found.append(one)
    return tuple(found[1:])


def private_memory(number: int) -> int | None:
    """Bytes private to a process, without mapped files; None if the system does not report it."""
    try:
        lines = Path(f"/proc/{number}/status").read_text("ascii", "replace").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:"))
    except (OSError, ValueError, IndexError, StopIteration):
        return None

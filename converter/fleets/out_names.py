"""The name of each OUT: derived from its source, plain on every system, unique, the same in every run."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import PurePosixPath

from converter.checkpoints.detect import WEIGHTS
from converter.errors import OptionError, printable
from converter.fleets.tasks import Task

MAX_OUT_NAME_CHARACTERS = 120
# Ours in OUTDIR, and what Windows takes for devices.
_RESERVED = re.compile(r"fleet([.-].*)?|(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)
_PLAIN = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_-])?")
_USUAL = frozenset(name for names in WEIGHTS.values() for name in names)
_DIGEST = 8


def is_out_name(name: str) -> bool:
    """Whether a name is that of a folder in OUTDIR, on every system, and none of ours."""
    return len(name) <= MAX_OUT_NAME_CHARACTERS and bool(_PLAIN.fullmatch(name)) and not _RESERVED.fullmatch(name)


def derived_name(task: Task) -> str:
    """A name made from a source: its path from the list, or the last part of an absolute path, or both parts of an id."""
    text = f"{task.label}@{task.revision}" if task.revision else task.label
    parts = [part for part in PurePosixPath(text.replace("\\", "/")).parts if part.strip(". ~") and part != "/"]
    if len(parts) > 1 and parts[-1] in _USUAL:
        parts.pop()
    text = re.sub(r"[^A-Za-z0-9._-]+", "-", "--".join(parts)).lstrip("-.")
    text = text[: MAX_OUT_NAME_CHARACTERS - _DIGEST - 1].rstrip(".-") or "checkpoint"
    return f"checkpoint-{text}"[: MAX_OUT_NAME_CHARACTERS - _DIGEST - 1] if _RESERVED.fullmatch(text) else text


def named(tasks: Iterable[Task], known: Mapping[str, str]) -> tuple[Task, ...]:
    """Gives every task its name.

    Two sources with equal names, ignoring case, get a hash of their source as a suffix. A task keeps the name that it
    had in an earlier run, even if the list has grown.

    Args:
        tasks: in the order of the list.
        known: names of earlier runs by key.

    Raises:
        OptionError: two tasks are the same, or a name that the list gives is not available.
    """
    tasks = tuple(tasks)
    names: dict[str, str] = {}
    taken: dict[str, Task] = {}
    for task in tasks:
        if task.key in names:
            raise OptionError(f"{task.where}: repeats an earlier line, {printable(task.label)}; remove one of them")
        names[task.key] = ""
        if task.asked_name:
            _check_asked(task, taken)
            _take(task, task.asked_name, names, taken)
    for task in tasks:
        earlier = known.get(task.key, "")
        if not names[task.key] and is_out_name(earlier) and earlier.casefold() not in taken:
            _take(task, earlier, names, taken)
    rest = [task for task in tasks if not names[task.key]]
    wanted = Counter(derived_name(task).casefold() for task in rest)
    for task in rest:
        name = derived_name(task)
        if wanted[name.casefold()] > 1 or name.casefold() in taken:
            name = f"{name}-{task.key[:_DIGEST]}"
        if name.casefold() in taken:
            raise OptionError(f"{task.where}: its OUT would be called as another's, {name}; give it a name in the list")
        _take(task, name, names, taken)
    return tuple(replace(task, name=names[task.key]) for task in tasks)


def _take(task: Task, name: str, names: dict[str, str], taken: dict[str, Task]) -> None:
    names[task.key] = name
    taken[name.casefold()] = task


def _check_asked(task: Task, taken: Mapping[str, Task]) -> None:
    if not is_out_name(task.asked_name):
        raise OptionError(
            f"{task.where}: {printable(task.asked_name, 60)!r} cannot be the name of an OUT; use letters, digits, "
            f"'.', '_' and '-', {MAX_OUT_NAME_CHARACTERS} at most, none of fleet's own names"
        )
    if task.asked_name.casefold() in taken:
        raise OptionError(
            f"{task.where}: the name {task.asked_name} is that of {taken[task.asked_name.casefold()].where}; choose another"
        )

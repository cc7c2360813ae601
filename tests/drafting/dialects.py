"""Finds the regular expressions that turn canonical names into those of another writer."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Levels = list[str]


def dialect(runs: Sequence[Any], said: str) -> list[list[str]]:
    """Pairs of a regular expression and its replacement, each used once, in order; empty where all names are the same.

    Args:
        runs: every config and its names; ``run.said[said]`` has what the writer calls them.
        said: ``"saved"`` or ``"live"``.

    Raises:
        ValueError: no such expressions were found.
    """
    pairs = dict(itertools.chain.from_iterable(_pairs(run, said) for run in runs))
    if all(name == other for name, other in pairs.items()):
        return []
    if all(name.endswith(f".{other}") for name, other in pairs.items()):
        (before,) = {name.removesuffix(other) for name, other in pairs.items()}
        return [[f"^{re.escape(before)}", ""]]
    for after, before in itertools.product(range(3), repeat=2):
        found = _expressions(pairs, before, after)
        if all(_spelled(name, found) == other for name, other in pairs.items()):
            return found
    wrong = [name for name, other in pairs.items() if _spelled(name, found) != other]
    raise ValueError(f"no expressions turn {wrong[0]} into {pairs[wrong[0]]}")


def _pairs(run: Any, said: str) -> Iterator[tuple[str, str]]:
    """Canonical names, and what the writer calls them."""
    saved = dict(zip(run.said["saved"], canonical_of_saved(run), strict=True))
    if said == "saved":
        yield from ((name, other) for other, name in saved.items())
        return
    for live, whole in run.said["live"].items():
        if isinstance(whole, str):
            yield saved[whole], live


def canonical_of_saved(run: Any) -> list[str]:
    """The canonical name of each name in a file of transformers 5: the same, or one with a level more in front."""
    names = [name for name, (_, _, is_weight) in run.names.items() if is_weight]
    found = []
    for saved in run.said["saved"]:
        fitting = [saved] if saved in run.names else [name for name in names if name.endswith(f".{saved}")]
        if len(fitting) != 1:
            raise ValueError(f"{saved} in files of transformers 5 is none of the names of 4.x, or several")
        found.append(fitting[0])
    return found


def splits(runs: Sequence[Any], replace: Sequence[Sequence[str]] = ()) -> list[dict[str, Any]]:
    """Tensors that a live model keeps in parts, along the first axis; the whole as the dialect spells it."""
    found: dict[tuple[str, str], list[str]] = {}
    for run in runs:
        parted = ((whole, live) for live, whole in run.said["live"].items() if not isinstance(whole, str))
        for (whole, _), live in sorted(parted):
            pattern, part = _part(_spelled(whole, replace).split("."), live.split("."))
            parts = found.setdefault((pattern, whole), [])
            if part not in parts:
                parts.append(part)
    by_module: dict[str, list[str]] = {}
    for (pattern, _), parts in found.items():
        by_module.setdefault(pattern, parts)
    return [{"part_of": pattern, "parts": parts, "axis": 0} for pattern, parts in by_module.items()]


def _part(whole: Levels, live: Levels) -> tuple[str, str]:
    """What matches the levels of a whole tensor that differ in a part of it, and what stands there instead."""
    ours, theirs = _differing(whole, live)
    if not any(level.isdigit() for level in ours):
        return rf"\.{re.escape('.'.join(ours))}\.", f".{'.'.join(theirs)}."
    pattern = r"\.".join(r"(\d+)" if level.isdigit() else re.escape(level) for level in ours)
    count = itertools.count(1)
    part = ".".join(rf"\{next(count)}" if level.isdigit() else level for level in theirs)
    if whole[-1] != live[-1]:
        return rf"\b{pattern}$", part
    return rf"\b{pattern}\.", f"{part}."


def _expressions(pairs: Mapping[str, str], before: int, after: int) -> list[list[str]]:
    """The difference between two names, with this many levels before and after it; the longest first."""
    found: dict[str, str] = {}
    for name, other in pairs.items():
        for ours, theirs in zip(_segments(name), _segments(other), strict=False):
            if ours != theirs:
                pattern, replacement = _expression(ours, theirs, before, after)
                found.setdefault(pattern, replacement)
    return [[pattern, found[pattern]] for pattern in sorted(found, key=len, reverse=True)]


def _segments(name: str) -> list[Levels]:
    """What stands between the numbers in a name; the levels at its ends are marked."""
    parts = re.split(r"\.\d+\.", f"^.{name}.$")
    return [part.split(".") for part in parts]


def _expression(ours: Levels, theirs: Levels, before: int, after: int) -> tuple[str, str]:
    head = tail = 0
    while head < min(len(ours), len(theirs)) and ours[head] == theirs[head]:
        head += 1
    while tail < min(len(ours), len(theirs)) - head and ours[-1 - tail] == theirs[-1 - tail]:
        tail += 1
    head, tail = max(head - before, 0), max(tail - after, 0)
    begins = ours[: head + 1][-2:] if head else ours[:1]
    starts, ends = "^" in begins, "$" in ours[len(ours) - tail - (tail == 0) :][:1]
    mine, other = ([x for x in levels[head : len(levels) - tail] if x not in "^$"] for levels in (ours, theirs))
    pattern = ("^" if starts else r"\.") + r"\.".join(map(re.escape, mine)) + ("$" if ends else r"\.")
    levels = ([] if starts else [""]) + other + ([] if ends else [""])
    return pattern, ".".join(levels)


def _differing(ours: Levels, theirs: Levels) -> tuple[Levels, Levels]:
    while ours and theirs and ours[0] == theirs[0]:
        ours, theirs = ours[1:], theirs[1:]
    while ours and theirs and ours[-1] == theirs[-1]:
        ours, theirs = ours[:-1], theirs[:-1]
    return ours, theirs


def _spelled(name: str, expressions: Sequence[Sequence[str]]) -> str:
    for pattern, replacement in expressions:
        name = re.sub(pattern, replacement, name, count=1)
    return name

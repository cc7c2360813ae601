"""Folds long lists of names for people: layers that hold the same are shown once, as ``layer.{0...11}``."""

from __future__ import annotations

import re
from collections.abc import Iterable

from converter.errors import listed

_NUMBER = re.compile(r"\d+")


def fold(names: Iterable[str]) -> list[tuple[str, int]]:
    """Folds names that differ only in their numbers.

    Args:
        names: for example ``a.0.x, a.1.x, b``.

    Returns:
        ``[("a.{0...1}.x", 2), ("b", 1)]``, in the order of first appearance; with the number of names behind each.
    """
    groups: dict[tuple[str, ...], list[tuple[int, ...]]] = {}
    for name in names:
        numbers = tuple(int(number) for number in _NUMBER.findall(name))
        groups.setdefault(tuple(_NUMBER.split(name)), []).append(numbers)
    return [(_unfold(parts, numbers), len(numbers)) for parts, numbers in groups.items()]


def folded(names: Iterable[str], limit: int = 3) -> str:
    """Joins names for a message, folded: the first ``limit`` patterns, then how many more there are."""
    return listed([pattern for pattern, _ in fold(names)], limit)


def _unfold(parts: tuple[str, ...], numbers: list[tuple[int, ...]]) -> str:
    columns = [sorted(set(column)) for column in zip(*numbers, strict=True)]
    text = parts[0]
    for column, part in zip(columns, parts[1:], strict=True):
        if len(column) == 1:
            shown = str(column[0])
        elif column == list(range(column[0], column[-1] + 1)):
            shown = f"{{{column[0]}...{column[-1]}}}"
        else:
            shown = "{" + ",".join(map(str, column)) + "}"
        text += shown + part
    return text

"""Which numbers in the names of tensors count layers: names become templates with placeholders, as rule files have them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

Place = tuple[int | str, ...]


@dataclass
class Templates:
    """What numbers in names mean, learnt from all names that were seen.

    Attributes:
        literal: prefixes behind which a number is no count, but the place of one of several unlike modules.
        words: the placeholder of each prefix behind which numbers count, or names that a field lists.
        names: by prefix, the names that were seen behind it.
        fields: by placeholder, the field that lists its names.
        numbered: prefixes that end in the beginning of a level, behind which a number is one of several: ``table_0``.
    """

    literal: set[str] = field(default_factory=set)
    words: dict[str, str] = field(default_factory=dict)
    names: dict[str, set[str]] = field(default_factory=dict)
    fields: dict[str, str] = field(default_factory=dict)
    numbered: set[str] = field(default_factory=set)

    def split(self, name: str) -> tuple[str, Place]:
        """A name as a template, and the numbers and names that stood in its places."""
        levels: list[str] = []
        numbers: list[int | str] = []
        for level in self.levels(name):
            before = _plain(levels)
            if level.isdigit() and before not in self.literal:
                numbers.append(int(level))
                level = f"{{{self.words[before]}}}"
            elif level in self.names.get(before, ()):
                numbers.append(level)
                level = f"{{{self.words[before]}}}"
            levels.append(level)
        return ".".join(levels).replace("_.{", "_{"), tuple(numbers)

    def levels(self, name: str) -> list[str]:
        """The levels of a name; a number at the end of one that counts is a level of its own."""
        found: list[str] = []
        for level in name.split("."):
            parted = re.fullmatch(r"(.+_)(\d+)", level)
            counts = parted is not None and _plain([*found, parted[1]]) in self.numbered
            found += [parted[1], parted[2]] if parted and counts else [level]
        return found


def learn(names: Iterable[Mapping[str, Sequence[object]]], configs: Iterable[Mapping[str, object]] = ()) -> Templates:
    """Tells counts from places: layers are alike, the modules of a Sequential are not.

    Args:
        names: of every config, name -> shape, kind of module.
        configs: a number of configs; some of their fields may list names of modules.
    """
    names = list(names)
    below: dict[str, dict[int, set[tuple[str, object]]]] = {}
    unlike: set[str] = set()
    found = Templates(numbered=_numbered(names))
    for table in names:
        beside: dict[str, dict[int, set[tuple[str, object]]]] = {}
        for name, (_, kind, *_) in table.items():
            levels = found.levels(name)
            for at, level in enumerate(levels):
                if level.isdigit():
                    inside = _plain(levels[at + 1 :]), kind
                    below.setdefault(_plain(levels[:at]), {}).setdefault(int(level), set()).add(inside)
                    beside.setdefault(".".join(levels[:at]), {}).setdefault(int(level), set()).add(inside)
        # Side by side: the first module of one stage may well be what the second one of another is.
        for path, held in beside.items():
            if len(held) > 1 and not set.intersection(*held.values()):
                unlike.add(_plain(path.split(".")))
    for prefix, numbers in below.items():
        # What is counted begins at 0 and leaves nothing out; behind an activation of a Sequential a number is missing.
        if prefix in unlike or set(numbers) != set(range(len(numbers))):
            found.literal.add(prefix)
    for table, config in zip(names, configs, strict=False):
        for prefix, (listing, levels) in _listed(table, config).items():
            found.fields[_word(listing, set())] = listing
            found.words[prefix] = _word(listing, set())
            found.names.setdefault(prefix, set()).update(levels)
    for prefix in sorted(below, key=lambda prefix: prefix.count(".")):
        if prefix not in found.literal:
            found.words[prefix] = _word(prefix, set(_words_above(prefix, found)))
    return found


def _numbered(names: Iterable[Mapping[str, object]]) -> set[str]:
    """Prefixes behind which the numbers 0, 1, 2 ... end a level, two of them at least."""
    found: dict[str, set[int]] = {}
    for levels in (name.split(".") for table in names for name in table):
        for at, level in enumerate(levels):
            if parted := re.fullmatch(r"(.+_)(\d+)", level):
                found.setdefault(_plain([*levels[:at], parted[1]]), set()).add(int(parted[2]))
    return {prefix for prefix, numbers in found.items() if len(numbers) > 1 and numbers == set(range(len(numbers)))}


def _listed(table: Mapping[str, object], config: Mapping[str, object]) -> Mapping[str, tuple[str, set[str]]]:
    """By prefix, the field that lists what stands behind it, all of it and nothing else, and what that is."""
    behind: dict[str, set[str]] = {}
    for levels in (name.split(".") for name in table):
        for at, level in enumerate(levels):
            behind.setdefault(_plain(levels[:at]), set()).add(level)
    lists = {name: set(value) for name, value in config.items() if is_list_of_names(value)}
    return {prefix: (name, held) for prefix, held in behind.items() for name, items in lists.items() if held == items}


def is_list_of_names(value: object) -> bool:
    """Whether a config field lists names, none of which is a number."""
    return (
        isinstance(value, list | tuple)
        and bool(value)
        and all(isinstance(each, str) and not each.isdigit() for each in value)
    )


def _words_above(prefix: str, found: Templates) -> Iterable[str]:
    return (word for above, word in found.words.items() if prefix.startswith(f"{above}."))


def _word(prefix: str, taken: set[str]) -> str:
    """The singular of what is counted: ``layer`` of ``encoder.layers``, ``block`` of ``stages.{stage}.blocks``."""
    last = next(level for level in reversed(prefix.split(".")) if not level.startswith("{"))
    word = re.sub(r"(?<=[a-z])s$", "", last.rstrip("_").rpartition("_")[2])
    return next(each for each in (word, f"inner_{word}", f"innermost_{word}") if each not in taken)


def _plain(levels: Sequence[str]) -> str:
    return ".".join("{}" if level.isdigit() or level.startswith("{") else level for level in levels)

"""Which numbers in the names of tensors count layers: names become templates with placeholders, as rule files have them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

Place = tuple[int, ...]


@dataclass
class Templates:
    """What numbers in names mean, learnt from all names that were seen.

    Attributes:
        literal: prefixes behind which a number is no count, but the place of one of several unlike modules.
        words: the placeholder of each prefix behind which numbers count.
    """

    literal: set[str] = field(default_factory=set)
    words: dict[str, str] = field(default_factory=dict)

    def split(self, name: str) -> tuple[str, Place]:
        """A name as a template, and the numbers that stood in its places."""
        levels: list[str] = []
        numbers: list[int] = []
        for level in name.split("."):
            before = _plain(levels)
            if level.isdigit() and before not in self.literal:
                numbers.append(int(level))
                level = f"{{{self.words[before]}}}"
            levels.append(level)
        return ".".join(levels), tuple(numbers)


def learn(names: Iterable[Mapping[str, Sequence[object]]]) -> Templates:
    """Tells counts from places: layers are alike, the modules of a Sequential are not.

    Args:
        names: of every config, name -> shape, kind of module.
    """
    below: dict[str, dict[int, set[tuple[str, object]]]] = {}
    unlike: set[str] = set()
    for table in names:
        beside: dict[str, dict[int, set[tuple[str, object]]]] = {}
        for name, (_, kind, *_) in table.items():
            levels = name.split(".")
            for at, level in enumerate(levels):
                if level.isdigit():
                    inside = _plain(levels[at + 1 :]), kind
                    below.setdefault(_plain(levels[:at]), {}).setdefault(int(level), set()).add(inside)
                    beside.setdefault(".".join(levels[:at]), {}).setdefault(int(level), set()).add(inside)
        # Side by side: the first module of one stage may well be what the second one of another is.
        for path, held in beside.items():
            if len(held) > 1 and not set.intersection(*held.values()):
                unlike.add(_plain(path.split(".")))
    found = Templates()
    for prefix, numbers in below.items():
        # What is counted begins at 0 and leaves nothing out; behind an activation of a Sequential a number is missing.
        if prefix in unlike or set(numbers) != set(range(len(numbers))):
            found.literal.add(prefix)
    for prefix in sorted(below, key=lambda prefix: prefix.count(".")):
        if prefix not in found.literal:
            found.words[prefix] = _word(prefix, set(_words_above(prefix, found)))
    return found


def _words_above(prefix: str, found: Templates) -> Iterable[str]:
    return (word for above, word in found.words.items() if prefix.startswith(f"{above}."))


def _word(prefix: str, taken: set[str]) -> str:
    """The singular of what is counted: ``layer`` of ``encoder.layers``, ``block`` of ``stages.{stage}.blocks``."""
    last = next(level for level in reversed(prefix.split(".")) if not level.startswith("{"))
    word = re.sub(r"(?<=[a-z])s$", "", last.rpartition("_")[2])
    return next(each for each in (word, f"inner_{word}", f"innermost_{word}") if each not in taken)


def _plain(levels: Sequence[str]) -> str:
    return ".".join("{}" if level.isdigit() or level.startswith("{") else level for level in levels)

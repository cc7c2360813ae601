"""How writers other than transformers 4.x spell PyTorch's names: the dialects of towers and families, compiled."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from converter.names.configs import TowerConfig, TwoTowerConfig
from converter.names.frameworks import CANONICAL
from converter.names.places import prefix
from converter.names.rule_files import SIDES, Side
from converter.names.towers import tower_rules


@dataclass(frozen=True, slots=True)
class SplitRule:
    """A tensor that some dialect keeps in parts, which follow one another along the first axis.

    Attributes:
        whole: canonical name.
        parts: what the dialect calls the parts, in order.
    """

    whole: str
    parts: tuple[str, ...]


def dialects_of(config: TwoTowerConfig, canonical: Sequence[str]) -> dict[str, dict[str, str]]:
    """Names of every dialect -> canonical names, for the towers and families that spell theirs differently."""
    known = {name for tower in _with_dialects(config) for name in tower.rules.get("dialects", {})}
    dialects: dict[str, dict[str, str]] = {}
    for dialect in sorted(known | set(config.family.rules.get("dialects", {}))):
        names: dict[str, str] = {}
        spelled_as = speller(config, dialect)
        for name in canonical:
            spelled = spelled_as(name)
            if spelled in names:
                raise ValueError(f"dialect {dialect} calls both {names[spelled]} and {name} {spelled}")
            names[spelled] = name
        dialects[dialect] = names
    return dialects


def splits_of(config: TwoTowerConfig, tensors: Sequence[str]) -> tuple[SplitRule, ...]:
    """Which tensors the dialects of each tower keep in parts, and what they call those."""
    found = []
    for tower in _with_dialects(config):
        before = prefix(CANONICAL, config.family, tower)
        own = [name for name in tensors if name.startswith(before)]
        for dialect, table in tower.rules.get("dialects", {}).items():
            for split in table.get("split", ()):
                if split["axis"] != 0:
                    raise ValueError(f"a split along axis {split['axis']}, which is not known here")
                spelled_as = speller(config, dialect)
                for name, spelled in ((name, spelled_as(name)) for name in own):
                    if re.search(split["part_of"], spelled):
                        parts = (re.sub(split["part_of"], part, spelled, count=1) for part in split["parts"])
                        found.append(SplitRule(name, tuple(parts)))
    return tuple(found)


def _with_dialects(config: TwoTowerConfig) -> list[TowerConfig]:
    return [config.tower(side) for side in SIDES if config.family.places[side].own_dialects]


def spell(name: str, config: TwoTowerConfig, dialect: str) -> str:
    """What a dialect calls the tensor with a canonical name."""
    return speller(config, dialect)(name)


def speller(config: TwoTowerConfig, dialect: str) -> Callable[[str], str]:
    """What a dialect calls the tensors of a model: a function of their canonical names."""
    places = [
        (prefix(CANONICAL, config.family, tower), _patterns(tower.rules, dialect)) for tower in _with_dialects(config)
    ]
    outside = _patterns(config.family.rules, dialect)

    def spelled(name: str) -> str:
        for before, patterns in places:
            if name.startswith(before):
                return before + _replaced(name.removeprefix(before), patterns)
        return _replaced(name, outside)

    return spelled


def spell_in_tower(name: str, tower: TowerConfig, dialect: str) -> str:
    """A dialect's name of a tower's tensor, both names as in the tower by itself."""
    return _replaced(name, _patterns(tower.rules, dialect))


def branch_ends(side: Side, model_type: object) -> dict[str, re.Pattern[str]]:
    """The modules that end the branches of a tower's layers, as a live PyTorch tower names them.

    Args:
        side: which tower.
        model_type: of its config.

    Returns:
        By kind of tap, a pattern of the module's whole path in the tower. It matches every dialect and any prefix of the
        tower. Empty if the model type has no rules.
    """
    rules = tower_rules(side, model_type) or {}
    found = {}
    for kind, modules in rules.get("taps", {}).items():
        # Of the first layer, as a dialect spells the name of a tensor and none of a module.
        names = [f"{re.sub('{[a-z]+}', '0', module)}.weight" for module in modules]
        spelled = {
            _replaced(name, _patterns(rules, dialect)) for name in names for dialect in ("", *rules.get("dialects", {}))
        }
        paths = {
            r"\.".join(
                r"\d+" if level == "0" else re.escape(level) for level in name.removesuffix(".weight").split(".")
            )
            for name in spelled
        }
        found[kind] = re.compile(rf"(?:.+\.)?(?:{'|'.join(sorted(paths))})")
    return found


def _patterns(rules: Mapping[str, Any], dialect: str) -> list[tuple[re.Pattern[str], str]]:
    """What a dialect replaces, as rules of a tower or family have it, and by what."""
    replaced = rules.get("dialects", {}).get(dialect, {}).get("replace", ())
    return [(re.compile(pattern), replacement) for pattern, replacement in replaced]


def _replaced(name: str, patterns: Iterable[tuple[re.Pattern[str], str]]) -> str:
    for pattern, replacement in patterns:
        name = pattern.sub(replacement, name, count=1)
    return name

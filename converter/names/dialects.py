"""Normalises what writers call PyTorch tensors: every known spelling in, the nested names of transformers 4.x out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from converter.errors import PlanError, listed, printable
from converter.names.layout_tables import Table
from converter.names.rules import RuleSet
from converter.names.spelling import SplitRule
from converter.names.wrappers import common_prefix, counter_reason, is_counter, respell
from converter.specs import StoredTensor
from converter.tensors.parts import joined as join


@dataclass(frozen=True)
class Normalised:
    """PyTorch tensors by their nested names.

    Attributes:
        tensors: by nested name, or by their own without one.
        dialects: how many were spelled in which dialect, and in what training wrapped them.
        counters: names of numbers that training wrappers keep, and why they are no weights.
    """

    tensors: dict[str, StoredTensor]
    dialects: Mapping[str, int]
    counters: Mapping[str, str]


def normalise(tensors: Mapping[str, StoredTensor], rules: RuleSet) -> Normalised:
    """Finds the nested (4.x) name of every PyTorch tensor.

    Args:
        tensors: by the name that the source gives.
        rules: of its config.

    Raises:
        PlanError: two names mean the same tensor, or the model occurs twice.
    """
    nested = set(rules.canonical)
    found: dict[str, StoredTensor] = {}
    dialects: Counter[str] = Counter()
    counters = {name: counter_reason(name) for name, tensor in tensors.items() if is_counter(name, tensor)}
    respelled = [(*respell(name), tensor) for name, tensor in tensors.items() if name not in counters]
    if prefix := common_prefix((name for name, _, _ in respelled), _known(rules), len(rules.tensors) // 2):
        respelled = [
            (name.removeprefix(prefix), f"{prefix} {spelling}".rstrip(), tensor) if name.startswith(prefix)
            else (name, spelling, tensor)
            for name, spelling, tensor in respelled
        ]  # fmt: skip
    if rules.table is not None:
        return _from_layout(rules.table, {name: tensor for name, _, tensor in respelled}, counters)
    kept_once = rules.kept_once
    respelled = [each for item in respelled for each in _for_all(item, kept_once)]
    joined, parts = _join_splits({name: tensor for name, _, tensor in respelled}, rules.splits)
    for plain, spelling, tensor in [item for item in respelled if item[0] not in parts] + joined:
        canonical, dialect = _canonical(plain, nested, rules)
        if canonical in found:
            raise PlanError(
                f"{printable(found[canonical].name)} and {printable(tensor.name)} are two names of one tensor, "
                f"{printable(canonical)}; remove one of them"
            )
        found[canonical] = tensor
        dialects[f"{dialect}, {spelling}" if spelling else dialect] += 1
    return Normalised(found, dialects, counters)


def _from_layout(table: Table, stored: Mapping[str, StoredTensor], counters: Mapping[str, str]) -> Normalised:
    """As ``normalise``, for tensors in another program's layout."""
    left_out = {tensor.name: table.left_out[name] for name, tensor in stored.items() if name in table.left_out}
    found = table.ours({name: tensor for name, tensor in stored.items() if name not in table.left_out})
    return Normalised(found, {table.layout: len(stored) - len(left_out)}, {**counters, **left_out})


def _for_all(
    item: tuple[str, str, StoredTensor], once: Mapping[str, Sequence[str]]
) -> list[tuple[str, str, StoredTensor]]:
    """A tensor that its writer keeps in place of several, for each of them; any other as it is."""
    name, spelling, tensor = item
    return [(each, f"{spelling} once for all".lstrip(), tensor) for each in once.get(name, ())] or [item]


def _known(rules: RuleSet) -> Collection[str]:
    """Every name that a tensor of the model can have, in any dialect."""
    if rules.table is not None:
        return rules.table.known
    parts = (part for split in rules.splits for part in split.parts)
    return {*rules.canonical, *rules.kept_once, *parts, *(name for table in rules.dialects.values() for name in table)}


def _canonical(name: str, nested: Collection[str], rules: RuleSet) -> tuple[str, str]:
    """The nested name for a dialect's ``name``, and the dialect; the name itself if no dialect knows it."""
    if name in nested:
        return name, "v4"
    for dialect, table in rules.dialects.items():
        if name in table:
            return table[name], dialect
    return name, "unknown"


def _join_splits(
    stored: Mapping[str, StoredTensor], splits: Collection[SplitRule]
) -> tuple[list[tuple[str, str, StoredTensor]], set[str]]:
    """Puts tensors together that a dialect keeps in parts; also gives the names of the parts."""
    joined: list[tuple[str, str, StoredTensor]] = []
    used: set[str] = set()
    for split in splits:
        parts = [stored[name] for name in split.parts if name in stored]
        if not parts:
            continue
        if len(parts) != len(split.parts) or len({(part.dtype, part.shape) for part in parts}) != 1:
            raise PlanError(
                f"{printable(split.whole)} is made of {listed(split.parts)}, which must all be there, of one shape and "
                f"dtype; found {listed([f'{part.name} {part.shape}' for part in parts])}"
            )
        joined.append((split.whole, "in parts", join(split.whole, parts)))
        used.update(split.parts)
    return joined, used

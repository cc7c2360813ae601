"""Normalises what writers call PyTorch tensors: every known spelling in, the nested names of transformers 4.x out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from converter.errors import PlanError, listed, printable
from converter.names.rules import RuleSet
from converter.names.spelling import SplitRule
from converter.names.wrappers import common_prefix, counter_reason, is_counter, respell
from converter.specs import Extent, StoredTensor
from converter.tensors.casts import numpy_dtype

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Normalised:
    """PyTorch tensors by their nested names.

    Attributes:
        tensors: by nested name, by their own where they have none.
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
        PlanError: two names mean the same tensor, or the model stands there twice.
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


def _known(rules: RuleSet) -> Collection[str]:
    """Every name that a tensor of the model can have, in any dialect."""
    parts = (part for split in rules.splits for part in split.parts)
    return {*rules.canonical, *parts, *(name for table in rules.dialects.values() for name in table)}


def _canonical(name: str, nested: Collection[str], rules: RuleSet) -> tuple[str, str]:
    """The nested name of what some dialect calls ``name``, and which dialect; its own name where none knows it."""
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
        joined.append((split.whole, "in parts", _joined(split.whole, parts)))
        used.update(split.parts)
    return joined, used


def _joined(name: str, parts: list[StoredTensor]) -> StoredTensor:
    """One tensor from parts that follow one another along the first axis."""
    rows = parts[0].shape[0]

    def read_rows(start: int, stop: int) -> Array:
        pieces = []
        for number, part in enumerate(parts):
            first, last = max(start - number * rows, 0), min(stop - number * rows, rows)
            if first < last:
                pieces.append(_read_part(part, first, last))
        return np.concatenate(pieces)

    shape = (rows * len(parts), *parts[0].shape[1:])
    return StoredTensor(name, parts[0].dtype, shape, None, read_rows)


def _read_part(part: StoredTensor, start: int, stop: int) -> Array:
    if part.read_rows is not None:
        return part.read_rows(start, stop)
    extent, dtype = part.extent, numpy_dtype(part.dtype)
    if not isinstance(extent, Extent):
        raise ValueError(f"{part.name} has neither an extent nor a reader")
    width = part.size // part.shape[0]
    values = np.fromfile(
        extent.path, dtype, (stop - start) * width, offset=extent.offset + start * width * dtype.itemsize
    )
    return values.reshape(stop - start, *part.shape[1:])

"""Normalises what writers call PyTorch tensors: every known spelling in, the nested names of transformers 4.x out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from converter.errors import PlanError, listed, printable
from converter.names.rule_files import rule_file
from converter.names.rules import RuleSet
from converter.names.spelling import SplitRule
from converter.specs import Extent, StoredTensor
from converter.tensors.casts import numpy_dtype

Array = np.ndarray[Any, Any]


def normalise(tensors: Mapping[str, StoredTensor], rules: RuleSet) -> tuple[dict[str, StoredTensor], Mapping[str, int]]:
    """Finds the nested (4.x) name of every PyTorch tensor.

    Args:
        tensors: by the name that the source gives.
        rules: of its config.

    Returns:
        The same by nested name (by its own where it has none), and how many were spelled in which dialect.

    Raises:
        PlanError: two names mean the same tensor.
    """
    nested = set(rules.canonical)
    found: dict[str, StoredTensor] = {}
    dialects: Counter[str] = Counter()
    respelled = [(*respell(name), tensor) for name, tensor in tensors.items()]
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
    return found, dialects


def respell(name: str) -> tuple[str, str]:
    """Undoes what training wrappers and TensorFlow 1 did to a name; says which."""
    spellings = rule_file("common")["spellings"]
    seen = []
    while prefix := next((prefix for prefix in spellings["prefixes"] if name.startswith(prefix)), ""):
        name = name.removeprefix(prefix)
        seen.append(prefix)
    for old, new in spellings["suffixes"]:
        if name.endswith(f".{old}"):
            name = name.removesuffix(old) + new
            seen.append(old.rpartition(".")[2])
    return name, " ".join(seen)


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

"""Where another program's layout keeps each tensor: compiled from its file in ``rename_rules/layouts/`` and read both ways.

A tensor of ours is some rows of one of theirs, or of several. So fused ones are split and joined by extents.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from converter.errors import PlanError, printable
from converter.folding import folded
from converter.names.layout_files import kind_of, layout_file
from converter.specs import Shape, StoredTensor
from converter.tensors.layouts import LAYOUTS
from converter.tensors.parts import joined, rows_of


@dataclass(frozen=True, slots=True)
class Run:
    """Some rows of one of their tensors.

    Attributes:
        name: of theirs.
        rows: first and last of them, the last not included; None for all of a tensor.
    """

    name: str
    rows: tuple[int, int] | None = None


@dataclass(frozen=True)
class Table:
    """How a layout keeps one model.

    Attributes:
        layout: its name.
        shapes: of each of their tensors, as they keep it.
        runs: by canonical name, what a tensor of ours is made of.
        lies: by canonical name, key of ``LAYOUTS`` if theirs is not PyTorch's own.
        found_as: by canonical name, the stored shape of ours.
        left_out: names of theirs that are no weights, and why.
        below: beginning that their names of the text tower may have, and which those are.
    """

    layout: str
    shapes: Mapping[str, Shape]
    runs: Mapping[str, tuple[Run, ...]]
    lies: Mapping[str, str]
    found_as: Mapping[str, Shape]
    left_out: Mapping[str, str]
    below: tuple[str, str] | None = None

    @property
    def known(self) -> Collection[str]:
        """Every name of theirs that a tensor of the model can have."""
        prefix, pattern = self.below or ("", "(?!)")
        return {*self.shapes, *(prefix + name for name in self.shapes if re.search(pattern, name))}

    def ours(self, stored: Mapping[str, StoredTensor]) -> dict[str, StoredTensor]:
        """Returns their tensors as ours, by canonical name; other tensors keep their own.

        Raises:
            PlanError: some have other shapes than the config says.
        """
        theirs = self._at_the_top(stored)
        wrong = [
            f"{printable(tensor.name)} is {tensor.shape}, the config says {self.shapes[name]}"
            for name, tensor in theirs.items()
            if name in self.shapes and tensor.shape != self.shapes[name] and {tensor.shape, self.shapes[name]} != _ONE
        ]
        if wrong:
            raise PlanError(
                f"tensor shapes that differ from {layout_file(self.layout)['config']} ({len(wrong)}): {folded(wrong)}; "
                "compare it with the one saved with the weights"
            )
        found = {name: tensor for name, tensor in theirs.items() if name not in self.shapes}
        for name, runs in self.runs.items():
            if all(run.name in theirs for run in runs):
                found[name] = self._one(name, runs, theirs)
        return found

    def _one(self, name: str, runs: tuple[Run, ...], theirs: Mapping[str, StoredTensor]) -> StoredTensor:
        parts = [
            theirs[run.name] if run.rows is None or theirs[run.name].shape[0] == run.rows[1] - run.rows[0]
            else rows_of(theirs[run.name], *run.rows)
            for run in runs
        ]  # fmt: skip
        if len({part.dtype for part in parts}) != 1:
            raise PlanError(
                f"{printable(parts[0].name)} and {printable(parts[-1].name)} have two dtypes; save them in one"
            )
        whole = parts[0] if len(parts) == 1 else joined(" + ".join(part.name for part in parts), parts)
        return replace(whole, shape=self.found_as[name], layout=self.lies.get(name))

    def _at_the_top(self, stored: Mapping[str, StoredTensor]) -> dict[str, StoredTensor]:
        """Their tensors under the names that they have if the text tower is not a separate module."""
        if self.below is None:
            return dict(stored)
        prefix, pattern = self.below
        found: dict[str, StoredTensor] = {}
        for name, tensor in stored.items():
            bare = name.removeprefix(prefix)
            top = bare if re.search(pattern, bare) else name
            if top in found:
                raise PlanError(
                    f"{printable(found[top].name)} and {printable(tensor.name)} are two names of one tensor; remove one "
                    "of them"
                )
            found[top] = tensor
        return found


_ONE: set[Shape] = {(), (1,)}


def make_table(layout: str, family: str, shapes: Mapping[str, Shape]) -> Table:
    """Compiles a layout's file for one model.

    Args:
        layout: its name.
        family: model type of the model.
        shapes: of its tensors by canonical name, in PyTorch's layout.
    """
    kind = kind_of(layout, family)
    if kind is None:
        raise ValueError(f"layout {layout} has no {family}")
    names = kind["names"]
    theirs: dict[str, Shape] = {}
    runs: dict[str, tuple[Run, ...]] = {}
    lies: dict[str, str] = {}
    found_as = dict(shapes)
    for name, shape in shapes.items():
        spelled = name
        for pattern, replacement in names["replace"]:
            spelled = re.sub(pattern, replacement, spelled, count=1)
        if _matches(spelled, names.get("turned", ())):
            lies[name] = "dense"
            found_as[name] = LAYOUTS["dense"].shape_from_pt(shape)
        if _matches(spelled, names.get("scalar", ())):
            found_as[name] = ()
        front = (1,) if _matches(spelled, names.get("in_front", ())) else ()
        placed = [(spelled, (*front, *found_as[name]), Run(spelled))]
        placed = list(_in_fused(spelled, shape, names)) or list(_cut(spelled, shape, names)) or placed
        runs[name] = tuple(run for _, _, run in placed)
        theirs.update({whole: held for whole, held, _ in placed})
    below = names.get("below")
    return Table(
        layout,
        theirs,
        runs,
        lies,
        found_as,
        names["left_out"],
        None if below is None else (below["prefix"], below["names"]),
    )


def _matches(name: str, patterns: Collection[str]) -> bool:
    return any(re.search(pattern, name) for pattern in patterns)


def _in_fused(name: str, shape: Shape, names: Mapping[str, Any]) -> Iterator[tuple[str, Shape, Run]]:
    """Where a tensor is rows of a larger one."""
    for fused in names.get("fused", ()):
        for number, part in enumerate(fused["parts"]):
            if re.search(part, name):
                whole, rows = re.sub(part, fused["whole"], name, count=1), shape[0]
                held = (rows * len(fused["parts"]), *shape[1:])
                yield whole, held, Run(whole, (number * rows, (number + 1) * rows))
                return


def _cut(name: str, shape: Shape, names: Mapping[str, Any]) -> Iterator[tuple[str, Shape, Run]]:
    """Where a tensor is several, each with its share of the rows."""
    for cut in names.get("cut", ()):
        if re.search(cut["whole"], name):
            shares = sum(share for _, share in cut["parts"])
            for part, share in cut["parts"]:
                rows = shape[0] // shares * share
                part_name = re.sub(cut["whole"], part, name, count=1)
                yield part_name, (rows, *shape[1:]), Run(part_name, (0, rows))
            return

"""Joins names, layouts and dtypes of source and target; refuses what does not match before any tensor is read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from converter.conversion.mismatch import mismatch
from converter.conversion.patterns import COMPARE
from converter.conversion.positions import Positions, shift_positions
from converter.conversion.positions import table as positions_of
from converter.conversion.quantised import quantised
from converter.errors import PlanError, printable
from converter.folding import folded
from converter.names.buffers import BUFFERS
from converter.names.configs import TwoTowerConfig
from converter.names.dialects import Normalised, normalise
from converter.names.frameworks import CANONICAL, framework_name, frameworks
from converter.names.layout_tables import Table, make_table
from converter.names.rules import BufferRule, RuleSet, TensorRule, compile_rules, shapes_of
from converter.names.spelling import speller
from converter.specs import Checkpoint, Framework, Shape, StoredTensor
from converter.tensors.casts import FLOATS
from converter.tensors.layouts import LAYOUTS, Layout, shared, way

Names = Literal["v4", "v5"]
Dtype = Literal["keep", "float32", "float16", "bfloat16"]
NAMES: tuple[Names, ...] = ("v4", "v5")
DTYPES_ASKED: tuple[Dtype, ...] = ("keep", "float32", "float16", "bfloat16")
Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class PlannedTensor:
    """One tensor's way from source to target.

    Attributes:
        canonical: PyTorch's nested name, which reports use.
        source: as stored.
        name: what the target calls it (TensorFlow's without root scope and ``:0``).
        dtype: in the target.
        shape: in the target.
        layout: which pair of moves applies.
        from_pt: whether towards that layout, or from it back to PyTorch's.
        shared: the layout of both, if nothing moves.
    """

    canonical: str
    source: StoredTensor
    name: str
    dtype: str
    shape: Shape
    layout: Layout
    from_pt: bool
    shared: Layout = LAYOUTS["plain"]


@dataclass(frozen=True, slots=True)
class Dropped:
    """A tensor of the source that the target does not get, and why."""

    name: str
    reason: str

    def to_json(self) -> dict[str, str]:
        """The form in the manifest."""
        return {"name": self.name, "reason": self.reason}


@dataclass(frozen=True)
class Plan:
    """A complete account of one conversion.

    Attributes:
        source: whose names and layouts the source has.
        target: whose names and layouts the output has; the same when only the container changes.
        tensors: in the target's order.
        restored: buffers that the target stores, computed from the config, by the target's name.
        behind: for some of these, the tensor that they follow in the target's order.
        expected: stored buffers whose value is known, with that value; the engine compares them.
        dropped: what is left out.
        dialects: how many tensors the source spells in each dialect or spelling.
        positions: whether a table of positions was moved to where the target looks for them.
        table: how another program's layout keeps the tensors, where the output is one; their names are canonical then.
    """

    source: Framework
    target: Framework
    tensors: tuple[PlannedTensor, ...]
    restored: Mapping[str, Array]
    behind: Mapping[str, str]
    expected: tuple[tuple[StoredTensor, Array], ...]
    dropped: tuple[Dropped, ...]
    dialects: Mapping[str, int]
    positions: Positions = "keep"
    table: Table | None = None

    @property
    def named(self) -> list[tuple[str, str, Shape]]:
        """Name, dtype and shape of everything that the target stores, in its order."""
        if self.table is not None:
            dtypes = {run.name: t.dtype for t in self.tensors for run in self.table.runs[t.canonical]}
            return [(name, dtypes[name], shape) for name, shape in self.table.shapes.items()]
        stored = [(tensor.name, tensor.dtype, tensor.shape) for tensor in self.tensors]
        for name, value in self.restored.items():
            after = self.behind.get(name)
            place = next((index + 1 for index, held in enumerate(stored) if held[0] == after), len(stored))
            stored.insert(place, (name, str(value.dtype), value.shape))
        return stored

    @property
    def casts(self) -> dict[str, int]:
        """How many tensors change dtype, for example ``{"bfloat16 -> float32": 398}``."""
        changes = Counter(
            f"{tensor.source.dtype} -> {tensor.dtype}" for tensor in self.tensors if tensor.source.dtype != tensor.dtype
        )
        return dict(sorted(changes.items()))


def make_plan(
    checkpoint: Checkpoint,
    config: TwoTowerConfig,
    target: Framework,
    *,
    dtype: Dtype = "keep",
    names: Names = "v4",
    widen_bfloat16: bool = False,
    positions: Positions = "keep",
    serves: Framework | None = None,
    layout: str | None = None,
) -> Plan:
    """Plans the conversion of a checkpoint.

    Args:
        checkpoint: the source.
        config: its config.
        target: whose names and layouts are wanted.
        dtype: what float tensors become.
        names: dialect of PyTorch names to write.
        widen_bfloat16: the target container has no bfloat16, which becomes float32.
        positions: ``"flax"`` so that Flax and the other framework give the same outputs, not hold the same bits.
        serves: whose model the positions are for; None for the target's.
        layout: another program's layout of PyTorch's tensors; None for transformers'.

    Raises:
        PlanError: a tensor is missing, surplus, doubly present or of another shape than config.json says.
    """
    rules = compile_rules(config)
    source = checkpoint.framework
    if source == CANONICAL:
        normalised = normalise(checkpoint.tensors, rules)
    else:
        spelled = Counter({framework_name(source): len(checkpoint.tensors)})
        normalised = Normalised(dict(checkpoint.tensors), spelled, {})
    found = normalised.tensors
    taken = _take_buffers(found, rules, source)
    if (error := mismatch(checkpoint, found, {rule.names[source]: rule for rule in rules.tensors})) is not None:
        raise quantised(checkpoint, config.raw) or error
    _check_shapes(found, rules.tensors, checkpoint)
    check_dtypes(((rule, found[rule.names[source]]) for rule in rules.tensors), checkpoint)
    if positions == "flax":
        place = next((rule.names[source] for rule in rules.tensors if rule.name == positions_of(config)), "")
        found = shift_positions(found, config.text, place, source, serves or target)
    table = None if layout is None else make_table(layout, config.family.model_type, shapes_of(rules))
    restored, expected, dropped = _plan_buffers(taken, layout or target, names)
    planned, spelled_as = [], speller(config, names)
    for rule in rules.tensors:
        stored = found[rule.names[source]]
        name = spelled_as(rule.name) if target == CANONICAL else rule.names[target]
        held, shape = rule.layouts[target], rule.shape_in(target)
        if table is not None:
            name, held, shape = rule.name, table.lies.get(rule.name, held), table.found_as[rule.name]
        ends = LAYOUTS[stored.layout or rule.layouts[source]], LAYOUTS[held]
        cast = _cast(stored, dtype, widen_bfloat16)
        planned.append(PlannedTensor(rule.name, stored, name, cast, shape, *way(*ends), shared(*ends)))
    if table is not None:
        _check_one_dtype(planned, table)
    if frameworks()[target].sorted:
        planned.sort(key=lambda tensor: tensor.name)
    behind = {rule.names[target]: rule.after[target] for rule in rules.buffers if target in rule.after}
    beside = (Dropped(name, why) for name, why in {**normalised.counters, **checkpoint.beside}.items())
    dropped = (*dropped, *beside)
    return Plan(
        source, target, tuple(planned), restored, behind, expected, dropped, normalised.dialects, positions, table
    )


def _check_one_dtype(planned: Iterable[PlannedTensor], table: Table) -> None:
    """Refuses parts of one tensor that have several dtypes."""
    seen: dict[str, PlannedTensor] = {}
    for tensor in planned:
        for run in table.runs[tensor.canonical]:
            first = seen.setdefault(run.name, tensor)
            if first.dtype != tensor.dtype:
                raise PlanError(
                    f"{printable(first.source.name)} is {first.dtype} and {printable(tensor.source.name)} {tensor.dtype}, "
                    f"which {table.layout} keeps in one tensor; choose one dtype with --dtype"
                )


def _take_buffers(
    found: dict[str, StoredTensor], rules: RuleSet, source: Framework
) -> list[tuple[BufferRule, StoredTensor | None]]:
    """Takes the buffers out of ``found``: every rule with what the source stores for it."""
    taken: list[tuple[BufferRule, StoredTensor | None]] = []
    for rule in rules.buffers:
        stored = found.pop(rule.names[source], None) if source in rule.names else None
        if stored is not None and not _same_size(stored, rule):
            raise PlanError(
                f"{printable(stored.name)} has shape {stored.shape}, the config says {rule.shape}; use the "
                "config.json saved with these weights"
            )
        taken.append((rule, stored))
    return taken


def _plan_buffers(
    taken: Iterable[tuple[BufferRule, StoredTensor | None]], target: Framework, names: Names
) -> tuple[dict[str, Array], tuple[tuple[StoredTensor, Array], ...], tuple[Dropped, ...]]:
    """Computes the buffers that the target stores; says what stored ones must hold, and which are left out."""
    restored: dict[str, Array] = {}
    expected = []
    dropped = []
    values: dict[tuple[str, Shape | None, str], Array] = {}
    for rule, stored in taken:
        value = None
        if rule.compute is not None:
            key = (rule.compute, rule.shape, repr([rule.fields[name] for name in rule.given]))
            if key not in values:
                values[key] = BUFFERS[rule.compute](rule.fields)
            value = values[key]
        if stored is not None and value is not None and not rule.unread:
            expected.append((stored, value))
        if value is not None and {target, f"{target}/{names}"}.intersection(rule.made_anew):
            integers = frameworks()[target].integers
            restored[rule.names[target]] = value.astype(integers) if value.dtype == np.int64 else value
        if stored is not None and (rule.unread or rule.names.get(target) not in restored):
            dropped.append(Dropped(stored.name, rule.reason))
    return restored, tuple(expected), tuple(dropped)


def _same_size(stored: StoredTensor, rule: BufferRule) -> bool:
    return rule.shape is None or stored.shape == rule.shape


def _check_shapes(found: Mapping[str, StoredTensor], rules: Iterable[TensorRule], checkpoint: Checkpoint) -> None:
    wrong = []
    copies: set[tuple[int, ...]] = set()
    for rule in rules:
        name, shape = rule.names[checkpoint.framework], rule.shape_in(checkpoint.framework)
        stored = found[name].shape
        if found[name].layout is not None:
            shape = LAYOUTS[str(found[name].layout)].shape_from_pt(rule.shape)
        copies.add(stored[:1] if stored[1:] == shape else ())
        # One number is one number, with an axis or without.
        if stored != shape and not {rule.shape, stored} <= {(), (1,)}:
            wrong.append(f"{name} is {stored}, config.json says {shape}")
    if len(copies) == 1 and (several := copies.pop()):
        raise PlanError(
            f"every tensor has an axis of {several[0]} in front, one copy for each device; take one: "
            "flax.jax_utils.unreplicate(params), and save again"
        )
    if wrong:
        raise PlanError(f"tensor shapes that differ from config.json ({len(wrong)}): {folded(wrong)}; {COMPARE}")


def check_dtypes(tensors: Iterable[tuple[TensorRule, StoredTensor]], checkpoint: Checkpoint) -> None:
    """Refuses weights that are whole numbers: what is left of quantised ones whose scales are elsewhere, or lost.

    Raises:
        PlanError: a weight is of no floating dtype, or a number of batches is.
    """
    where = checkpoint.files[0] if checkpoint.files else checkpoint.container
    wrong: dict[bool, list[str]] = {True: [], False: []}
    for rule, tensor in tensors:
        if rule.counts == (tensor.dtype in FLOATS):
            wrong[rule.counts].append(f"{tensor.name} ({tensor.dtype})")
    if wrong[False]:
        raise PlanError(
            f"{where}: integers where floats belong ({len(wrong[False])}): {folded(wrong[False])}. The weights are quantised; "
            "dequantise them with their scales and save again"
        )
    if wrong[True]:
        raise PlanError(
            f"{where}: floats where integers belong ({len(wrong[True])}): {folded(wrong[True])}. They count batches; cast "
            "them to int64 and save again"
        )


def _cast(source: StoredTensor, dtype: Dtype, widen_bfloat16: bool) -> str:
    wanted = dtype if dtype != "keep" and source.dtype in FLOATS else source.dtype
    return "float32" if widen_bfloat16 and wanted == "bfloat16" else wanted

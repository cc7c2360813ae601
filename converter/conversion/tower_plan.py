"""Finds one tower in its own checkpoint, or in that of a model around it: a head, a full CLIP, a dual encoder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass

from converter.conversion.patterns import COMPARE, layers_beyond, way_of_layers
from converter.conversion.plan import Dropped, PlannedTensor, check_dtypes
from converter.conversion.positions import shift_positions
from converter.conversion.quantised import QUANTISED, is_quantised
from converter.errors import PlanError, listed
from converter.folding import folded
from converter.names.configs import TowerConfig
from converter.names.frameworks import CANONICAL, KERAS, frameworks
from converter.names.rules import RuleSet, compile_tower
from converter.names.spelling import spell_in_tower
from converter.names.wrappers import common_prefix, counter_reason, is_counter, respell
from converter.specs import Checkpoint, Framework, StoredTensor
from converter.tensors.layouts import LAYOUTS, shared, way

_HEAD = "not part of the tower"


@dataclass(frozen=True)
class TowerPlan:
    """Where a tower's tensors are, in the names and layouts of the requested framework.

    Attributes:
        tensors: named from the main layer on, for example ``bert/embeddings/word_embeddings/weight``.
        new: names of tensors that the checkpoint lacks and that get random values (a pooler that a head never used).
        dropped: what belongs to something else.
    """

    tensors: tuple[PlannedTensor, ...]
    new: tuple[str, ...]
    dropped: tuple[Dropped, ...]


def plan_tower(
    checkpoint: Checkpoint, tower: TowerConfig, target: Framework = KERAS, positions_for: Framework | None = None
) -> TowerPlan:
    """Plans the reading of one tower.

    Args:
        checkpoint: of any framework.
        tower: what its config says.
        target: whose names and layouts are wanted.
        positions_for: whose model shall give the same outputs, where a table of positions has to be moved for that.

    Raises:
        PlanError: a tensor of the tower is missing or has another shape than the config says.
    """
    rules = compile_tower(tower)
    found = _find(checkpoint, tower, rules)
    source = checkpoint.framework
    if positions_for is not None and "positions" in tower.rules:
        found = shift_positions(found, tower, tower.rules["positions"]["table"], source, positions_for)
    fresh = tuple(tower.rules.get("new_if_missing", ()))
    planned: list[PlannedTensor] = []
    new: list[str] = []
    missing: list[str] = []
    wrong: list[str] = []
    for rule in rules.tensors:
        name = rule.names[target]
        stored = found.get(rule.name)
        if stored is None:
            new.append(name) if rule.name.startswith(fresh) else missing.append(rule.names[source])
        elif stored.shape != rule.shape_in(source):
            wrong.append(f"{stored.name} is {stored.shape}, config.json says {rule.shape}")
        else:
            ends = LAYOUTS[rule.layouts[source]], LAYOUTS[rule.layouts[target]]
            shape = rule.shape_in(target)
            planned.append(PlannedTensor(rule.name, stored, name, stored.dtype, shape, *way(*ends), shared(*ends)))
    if missing or wrong:
        next_step = None
        if not wrong:
            next_step = way_of_layers(missing, (), [rule.names[source] for rule in rules.tensors], alone=True)
        if is_quantised(checkpoint.tensors):
            next_step = QUANTISED
        raise PlanError(_complaint(checkpoint, tower, missing, wrong, next_step or COMPARE))
    check_dtypes(((rule, found[rule.name]) for rule in rules.tensors if rule.name in found), checkpoint)
    used = {tensor.source.name for tensor in planned}
    reasons = {found[name].name: reason for name, reason in _buffers(rules) if name in found}
    if source == CANONICAL:
        counters = (name for name, tensor in checkpoint.tensors.items() if is_counter(name, tensor))
        reasons |= {name: counter_reason(name) for name in counters}
    _check_layers(checkpoint, tower, used, reasons)
    dropped = [Dropped(name, reasons.get(name, _HEAD)) for name in checkpoint.tensors if name not in used]
    dropped += [Dropped(name, reason) for name, reason in checkpoint.beside.items()]
    return TowerPlan(tuple(planned), tuple(new), tuple(dropped))


def _check_layers(checkpoint: Checkpoint, tower: TowerConfig, used: Set[str], reasons: Mapping[str, str]) -> None:
    """Refuses layers of the tower that its config does not count: they are no part of something else."""
    left = [name for name in checkpoint.tensors if name not in used and name not in reasons]
    beyond, next_step = layers_beyond(used, left)
    if beyond:
        raise PlanError(
            f"{_where(checkpoint)}: holds more layers of the {tower.model_type} tower than its config.json says; "
            f"unexpected ({len(beyond)}): {folded(beyond)}; {next_step}"
        )


def _find(checkpoint: Checkpoint, tower: TowerConfig, rules: RuleSet) -> dict[str, StoredTensor]:
    """The tower's tensors by canonical name, under whichever prefix holds the most of them."""
    tables = list(_spellings(checkpoint, tower, rules))
    stored = dict(_respelled(checkpoint))
    best: dict[str, StoredTensor] = {}
    for prefix in _prefixes(checkpoint, tower):
        for table in tables:
            found = {name: stored[prefix + spelled] for name, spelled in table.items() if prefix + spelled in stored}
            if len(found) > len(best):
                best = found
    if checkpoint.framework == CANONICAL and len(best) < len(rules.tensors) // 2:
        for table in tables:
            prefix = common_prefix(stored, set(table.values()), len(rules.tensors) // 2)
            found = {name: stored[prefix + spelled] for name, spelled in table.items() if prefix + spelled in stored}
            best = found if len(found) > len(best) else best
    return best


def _respelled(checkpoint: Checkpoint) -> Iterator[tuple[str, StoredTensor]]:
    for name, tensor in checkpoint.tensors.items():
        yield (respell(name)[0] if checkpoint.framework == CANONICAL else name), tensor


def _prefixes(checkpoint: Checkpoint, tower: TowerConfig) -> tuple[str, ...]:
    """Possible prefixes of a tower's names: none, the base model's name, or its scope in a dual encoder."""
    framework = frameworks()[checkpoint.framework]
    scope = f"{tower.side}_model{framework.separator}"
    if framework.in_main_layer:
        return ("", scope)
    bases = tower.rules.get("prefixes", (tower.rules["main_layer"],))
    return ("", *(f"{base}{framework.separator}" for base in bases), scope)


def _spellings(checkpoint: Checkpoint, tower: TowerConfig, rules: RuleSet) -> Iterator[Mapping[str, str]]:
    """For every dialect, what it calls each tensor, by its canonical name."""
    if checkpoint.framework != CANONICAL:
        yield {rule.name: rule.names[checkpoint.framework] for rule in rules.tensors}
        return
    kept_once = [dict.fromkeys(names, spelled) for spelled, names in rules.kept_once.items()]
    for dialect in ("", *tower.rules.get("dialects", {})):
        spelled = {name: spell_in_tower(name, tower, dialect) for name in rules.canonical}
        yield from (spelled | once for once in ({}, *kept_once))


def _buffers(rules: RuleSet) -> Iterator[tuple[str, str]]:
    for buffer in rules.buffers:
        if CANONICAL in buffer.names:
            yield buffer.names[CANONICAL], buffer.reason


def _complaint(checkpoint: Checkpoint, tower: TowerConfig, missing: list[str], wrong: list[str], next_step: str) -> str:
    where = _where(checkpoint)
    roots = Counter(name.replace("/", ".").split(".")[0] for name in checkpoint.tensors)
    parts = []
    if missing:
        parts.append(f"missing ({len(missing)}): {folded(missing)}; the file holds {listed(sorted(roots), 4)}")
    if wrong:
        parts.append(f"of another shape ({len(wrong)}): {folded(wrong)}")
    return f"{where}: does not hold the {tower.model_type} tower of its config.json; {'; '.join(parts)}; {next_step}"


def _where(checkpoint: Checkpoint) -> str:
    return str(checkpoint.files[0] if checkpoint.files else checkpoint.container)

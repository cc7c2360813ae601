"""Finds one tower in a checkpoint of its own, or of a model built around it: a head, a full CLIP, a dual encoder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from converter.conversion.plan import Dropped, PlannedTensor
from converter.errors import PlanError, listed
from converter.names.configs import TowerConfig
from converter.names.dialects import respell
from converter.names.rules import RuleSet, TensorRule, compile_tower, spell_in_tower
from converter.specs import Checkpoint, StoredTensor
from converter.tensors.layouts import LAYOUTS

_HEAD = "not part of the tower"


@dataclass(frozen=True)
class TowerPlan:
    """Where a tower's tensors are, in TensorFlow's names and layouts.

    Attributes:
        tensors: named from the main layer on, for example ``bert/embeddings/word_embeddings/weight``.
        new: names of tensors that the checkpoint lacks and that are made anew (a pooler that a head never used).
        dropped: what belongs to something else.
    """

    tensors: tuple[PlannedTensor, ...]
    new: tuple[str, ...]
    dropped: tuple[Dropped, ...]


def plan_tower(checkpoint: Checkpoint, tower: TowerConfig) -> TowerPlan:
    """Plans the reading of one tower.

    Args:
        checkpoint: of either framework.
        tower: what its config says.

    Raises:
        PlanError: a tensor of the tower is missing or has another shape than the config says.
    """
    rules = compile_tower(tower)
    found = _find(checkpoint, tower, rules)
    scope = f"{tower.side}_model"
    fresh = tuple(f"{scope}.{prefix}" for prefix in tower.rules.get("new_if_missing", ()))
    planned: list[PlannedTensor] = []
    new: list[str] = []
    missing: list[str] = []
    wrong: list[str] = []
    for rule in rules.tensors:
        name = rule.tf.removeprefix(f"{scope}/")
        layout = LAYOUTS[rule.layout if checkpoint.framework == "pt" else "plain"]
        shape = LAYOUTS[rule.layout].to_tf_shape(rule.shape)
        stored = found.get(rule.pt)
        if stored is None:
            (new if rule.pt.startswith(fresh) else missing).append(name)
        elif stored.shape != (rule.shape if checkpoint.framework == "pt" else shape):
            wrong.append(f"{stored.name} is {stored.shape}, config.json says {rule.shape}")
        else:
            planned.append(PlannedTensor(rule.pt, stored, name, stored.dtype, shape, layout))
    if missing or wrong:
        raise PlanError(_complaint(checkpoint, tower, missing, wrong))
    used = {tensor.source.name for tensor in planned}
    reasons = {buffer.name: reason for buffer, reason in _buffers(found, rules)}
    dropped = tuple(Dropped(name, reasons.get(name, _HEAD)) for name in checkpoint.tensors if name not in used)
    return TowerPlan(tuple(planned), tuple(new), dropped)


def _find(checkpoint: Checkpoint, tower: TowerConfig, rules: RuleSet) -> dict[str, StoredTensor]:
    """The tower's tensors by nested name, under whichever prefix holds the most of them."""
    scope = f"{tower.side}_model."
    tables = list(_spellings(checkpoint, tower, rules))
    stored = dict(_respelled(checkpoint))
    best: dict[str, StoredTensor] = {}
    for prefix in _prefixes(checkpoint, tower):
        for table in tables:
            found = {
                scope + pt: stored[prefix + spelled] for spelled, pt in table.items() if prefix + spelled in stored
            }
            if len(found) > len(best):
                best = found
    return best


def _respelled(checkpoint: Checkpoint) -> Iterator[tuple[str, StoredTensor]]:
    for name, tensor in checkpoint.tensors.items():
        yield (respell(name)[0] if checkpoint.framework == "pt" else name), tensor


def _prefixes(checkpoint: Checkpoint, tower: TowerConfig) -> tuple[str, ...]:
    """What may stand before a tower's names: nothing, the base model's name, or its scope in a dual encoder."""
    if checkpoint.framework == "tf":
        return ("", f"{tower.side}_model/")
    return (
        "",
        *(f"{prefix}." for prefix in tower.rules.get("prefixes", (tower.rules["main_layer"],))),
        f"{tower.side}_model.",
    )


def _spellings(checkpoint: Checkpoint, tower: TowerConfig, rules: RuleSet) -> Iterator[Mapping[str, str]]:
    """For every dialect, its names -> nested names, both without ``vision_model.`` / ``text_model.``."""
    scope = f"{tower.side}_model."
    names = [rule.pt for rule in rules.tensors] + [rule.pt for rule in rules.buffers if rule.pt is not None]
    relative = [name.removeprefix(scope) for name in names]
    if checkpoint.framework == "tf":
        yield {_tf_name(rule): rule.pt.removeprefix(scope) for rule in rules.tensors}
        return
    yield {name: name for name in relative}
    for dialect in tower.rules.get("dialects", {}):
        yield {spell_in_tower(name, tower, dialect): name for name in relative}


def _tf_name(rule: TensorRule) -> str:
    return rule.tf.partition("/")[2]


def _buffers(found: Mapping[str, StoredTensor], rules: RuleSet) -> Iterator[tuple[StoredTensor, str]]:
    for rule in rules.buffers:
        if rule.pt is not None and rule.pt in found:
            yield found[rule.pt], rule.reason


def _complaint(checkpoint: Checkpoint, tower: TowerConfig, missing: list[str], wrong: list[str]) -> str:
    where = checkpoint.files[0] if checkpoint.files else checkpoint.container
    roots = Counter(name.replace("/", ".").split(".")[0] for name in checkpoint.tensors)
    parts = []
    if missing:
        parts.append(f"missing ({len(missing)}): {listed(missing)}; it holds tensors under {listed(sorted(roots))}")
    if wrong:
        parts.append(f"of another shape ({len(wrong)}): {listed(wrong)}")
    return (
        f"{where}: does not hold the {tower.model_type} tower that its config.json describes; {'; '.join(parts)}; "
        "compare config.json with the one the weights were saved with"
    )

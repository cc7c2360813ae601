"""Compiles rename_rules/ and a config into exact names: what every tensor is called on both sides, and its shape.

Nothing is guessed from what a name looks like. A rule set is a bijection or it is refused, with the rule cited.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from converter.errors import ConfigError
from converter.names.configs import DualEncoderConfig, Side, TowerConfig, rule_file
from converter.names.expressions import Value, evaluate, integer, truth
from converter.names.scopes import erase_main_layer
from converter.specs import Shape
from converter.tensors.layouts import LAYOUTS

# Ten times what the largest towers have; naming them takes a second.
MAX_TENSORS = 50_000
# Of a weight that is transposed: every core holds some rows, and the widest real ones have some 20,000 numbers.
MAX_ROW = 2**22
_PLACEHOLDER = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class TensorRule:
    """One tensor, on both sides.

    Attributes:
        pt: nested (4.x) PyTorch name.
        tf: TensorFlow name without root scope and ``:0``.
        layout: key of ``layouts.LAYOUTS``.
        shape: in PyTorch layout.
        cite: where the rule stands, for messages.
    """

    pt: str
    tf: str
    layout: str
    shape: Shape
    cite: str


@dataclass(frozen=True, slots=True)
class BufferRule:
    """A tensor that is stored but never trained, and may be missing.

    Attributes:
        pt: nested PyTorch name if PyTorch stores it, else None.
        tf: TensorFlow name if TensorFlow stores it, else None.
        shape: the same on both sides.
        compute: key of ``buffers.BUFFERS`` when its value follows from the config, else None.
        fields: the fields that ``compute`` is given.
        reason: why it may be left out.
        after: TensorFlow name of the tensor behind which TensorFlow creates it; None: behind all others.
    """

    pt: str | None
    tf: str | None
    shape: Shape | None
    compute: str | None
    fields: Mapping[str, Value]
    reason: str
    after: str | None = None


@dataclass(frozen=True, slots=True)
class SplitRule:
    """A tensor that some dialect keeps in parts, which follow one another along the first axis.

    Attributes:
        whole: nested PyTorch name.
        parts: what the dialect calls the parts, in order.
    """

    whole: str
    parts: tuple[str, ...]


@dataclass(frozen=True)
class RuleSet:
    """Every name of one dual encoder.

    Attributes:
        tensors: in the order in which TensorFlow creates its variables.
        buffers: likewise.
        dialects: for every dialect other than 4.x, its names -> nested names, of both towers.
        splits: tensors that a dialect keeps in parts.
    """

    tensors: tuple[TensorRule, ...]
    buffers: tuple[BufferRule, ...]
    dialects: Mapping[str, Mapping[str, str]]
    splits: tuple[SplitRule, ...] = ()


def compile_rules(config: DualEncoderConfig) -> RuleSet:
    """Compiles the rules for one dual encoder.

    Raises:
        ConfigError: the config describes no model, or one with more than ``MAX_TENSORS`` tensors.
        ValueError: a name is claimed twice (a mistake in a rule file).
    """
    shared = rule_file("dual_encoder")
    tensors: list[TensorRule] = []
    buffers: list[BufferRule] = []
    for side in _SIDES:
        tower = compile_tower(config.tower(side))
        tensors += tower.tensors
        buffers += tower.buffers
    for module in shared["module"]:
        tensors += _expand_module(module, config.fields, "", "", "dual_encoder")
    _check_bijection(tensors)
    return RuleSet(tuple(tensors), tuple(buffers), _dialects(config, tensors, buffers), _splits(config, tensors))


def compile_tower(tower: TowerConfig) -> RuleSet:
    """Compiles the rules of one tower; names include ``vision_model`` / ``text_model`` on both sides."""
    scope = f"{tower.side}_model"
    main_layer = tower.rules["main_layer"]
    pt_prefix = erase_main_layer(f"{scope}.{main_layer}.")
    tf_prefix = f"{scope}/{main_layer}/"
    tensors: list[TensorRule] = []
    for module, fields in _occurrences(tower.rules["module"], tower):
        tensors += _expand_module(module, fields, pt_prefix, tf_prefix, tower.family)
        if len(tensors) > MAX_TENSORS:
            raise ConfigError(
                f"config.json: {tower.side}_config describes more than {MAX_TENSORS:,} tensors; correct the config"
            )
    buffers = [
        _expand_buffer(buffer, fields, pt_prefix, tf_prefix)
        for buffer, fields in _occurrences(tower.rules.get("buffer", ()), tower)
    ]
    return RuleSet(tuple(tensors), tuple(buffers), {})


def _occurrences(
    modules: Sequence[Mapping[str, Any]], tower: TowerConfig
) -> Iterator[tuple[Mapping[str, Any], dict[str, Value]]]:
    """Every module with every value of its placeholders, those that the config leaves out left out.

    Neighbours that share a placeholder are expanded together, so that layers follow one another.
    """
    repeat: Mapping[str, str] = tower.rules.get("repeat", {})
    yield from _expand_group(modules, tuple(repeat), repeat, dict(tower.fields))


def _expand_group(
    modules: Sequence[Mapping[str, Any]],
    placeholders: tuple[str, ...],
    repeat: Mapping[str, str],
    fields: dict[str, Value],
) -> Iterator[tuple[Mapping[str, Any], dict[str, Value]]]:
    if not placeholders:
        for module in modules:
            if truth(module.get("when", "true"), fields):
                yield module, fields
        return
    first, *rest = placeholders
    for has_first, group in itertools.groupby(
        modules, lambda module: first in _PLACEHOLDER.findall(module.get("pt") or module["tf"])
    ):
        members = list(group)
        if not has_first:
            yield from _expand_group(members, tuple(rest), repeat, fields)
            continue
        count = integer(repeat[first], fields)
        if count > MAX_TENSORS:
            raise ConfigError(f"config.json: {repeat[first]} is {count:,}, more than any model has; correct the config")
        for number in range(count):
            yield from _expand_group(members, tuple(rest), repeat, {**fields, first: number})


def _expand_module(
    module: Mapping[str, Any], fields: Mapping[str, Value], pt_prefix: str, tf_prefix: str, family: str
) -> Iterator[TensorRule]:
    cite = f"rename_rules/{family}.toml: {module['pt']}"
    shape = tuple(integer(str(axis), fields) for axis in module["shape"])
    pt = pt_prefix + _fill(module["pt"], fields)
    tf = tf_prefix + _fill(module["tf"], fields)
    for part in rule_file("dual_encoder")["kinds"][module["is"]]:
        if part.get("optional") and not truth(module.get("bias", "true"), fields):
            continue
        part_shape = tuple(shape[axis] for axis in part["axes"]) if "axes" in part else shape
        if LAYOUTS[part["layout"]].axes is not None and math.prod(part_shape[1:]) > MAX_ROW:
            raise ConfigError(
                f"config.json: {pt} would have rows of {math.prod(part_shape[1:]):,} numbers, more than any model has; "
                "correct the config"
            )
        yield TensorRule(
            f"{pt}.{part['pt']}" if part["pt"] else pt,
            f"{tf}/{part['tf']}" if part["tf"] else tf,
            part["layout"],
            part_shape,
            cite,
        )


def _expand_buffer(buffer: Mapping[str, Any], fields: dict[str, Value], pt_prefix: str, tf_prefix: str) -> BufferRule:
    shape = tuple(integer(str(axis), fields) for axis in buffer["shape"]) if "shape" in buffer else None
    tf = tf_prefix + _fill(buffer["tf"], fields) if "tf" in buffer else None
    pt = pt_prefix + _fill(buffer["pt"], fields) if "pt" in buffer else None
    given = {**fields, "length": shape[-1]} if shape else fields
    after = tf_prefix + _fill(buffer["after"], fields) if "after" in buffer else None
    return BufferRule(pt, tf, shape, buffer.get("compute"), given, buffer["reason"], after)


def _fill(template: str, fields: Mapping[str, Value]) -> str:
    return _PLACEHOLDER.sub(lambda match: str(evaluate(match[1], fields)), template)


def _dialects(
    config: DualEncoderConfig, tensors: Sequence[TensorRule], buffers: Sequence[BufferRule]
) -> dict[str, dict[str, str]]:
    """Names of every dialect -> nested names, for the towers that spell theirs differently."""
    dialects: dict[str, dict[str, str]] = {}
    for dialect in sorted({name for side in _SIDES for name in config.tower(side).rules.get("dialects", {})}):
        names: dict[str, str] = {}
        for pt in [rule.pt for rule in tensors] + [rule.pt for rule in buffers if rule.pt is not None]:
            spelled = spell(pt, config, dialect)
            if spelled in names:
                raise ValueError(f"dialect {dialect} calls both {names[spelled]} and {pt} {spelled}")
            names[spelled] = pt
        dialects[dialect] = names
    return dialects


def _splits(config: DualEncoderConfig, tensors: Sequence[TensorRule]) -> tuple[SplitRule, ...]:
    """Which tensors the dialects of each tower keep in parts, and what they call those."""
    found = []
    for side in _SIDES:
        for dialect in config.tower(side).rules.get("dialects", {}).values():
            for split in dialect.get("split", ()):
                if split["axis"] != 0:
                    raise ValueError(f"a split along axis {split['axis']}, which is not known here")
                for rule in tensors:
                    if rule.pt.startswith(f"{side}_model.") and re.search(split["part_of"], rule.pt):
                        parts = (re.sub(split["part_of"], part, rule.pt, count=1) for part in split["parts"])
                        found.append(SplitRule(rule.pt, tuple(parts)))
    return tuple(found)


_SIDES: tuple[Side, Side] = ("vision", "text")


def spell(pt: str, config: DualEncoderConfig, dialect: str) -> str:
    """What a dialect calls the tensor with the nested name ``pt``."""
    for side in _SIDES:
        scope = f"{side}_model."
        if pt.startswith(scope):
            return scope + spell_in_tower(pt.removeprefix(scope), config.tower(side), dialect)
    return pt


def spell_in_tower(name: str, tower: TowerConfig, dialect: str) -> str:
    """What a dialect calls a tower's tensor, both names without ``vision_model.`` / ``text_model.``."""
    for pattern, replacement in tower.rules.get("dialects", {}).get(dialect, {}).get("replace", ()):
        name = re.sub(pattern, replacement, name, count=1)
    return name


def _check_bijection(rules: Sequence[TensorRule]) -> None:
    for side in ("pt", "tf"):
        claimed: dict[str, str] = {}
        for rule in rules:
            name = getattr(rule, side)
            if name in claimed:
                raise ValueError(f"{name} is claimed by {claimed[name]} and by {rule.cite}")
            claimed[name] = rule.cite

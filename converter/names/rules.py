"""Compiles rename_rules/ and a config into exact names: every tensor's name in every framework, and its shape.

Nothing is guessed from what a name looks like. A rule set is a bijection or it is refused, with the rule cited.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from converter.errors import ConfigError, listed
from converter.names.configs import TowerConfig, TwoTowerConfig
from converter.names.expressions import Value, evaluate, integer, truth
from converter.names.families import Family
from converter.names.frameworks import CANONICAL, frameworks
from converter.names.layout_tables import Table, make_table
from converter.names.places import path_in, prefix
from converter.names.rule_files import rule_file
from converter.names.spelling import SplitRule, dialects_of, splits_of
from converter.specs import Framework, Shape
from converter.tensors.layouts import LAYOUTS

# Ten times what the largest towers have; naming them takes a second.
MAX_TENSORS = 50_000
# Of a weight that is transposed: every core holds some rows, and the widest real ones have some 20,000 numbers.
MAX_ROW = 2**22
_PLACEHOLDER = re.compile(r"\{(\w+)\}")
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class TensorRule:
    """One tensor, in every framework.

    Attributes:
        names: by framework, without root scope and suffix; reports use PyTorch's nested (4.x) one.
        layouts: by framework, a key of ``layouts.LAYOUTS``.
        shape: in PyTorch's layout.
        cite: the place of the rule, for messages.
        counts: whether it holds whole numbers, and keeps them whatever dtype is requested.
        once: what PyTorch writers call the one tensor that some keep in place of this and others like it.
    """

    names: Mapping[Framework, str]
    layouts: Mapping[Framework, str]
    shape: Shape
    cite: str
    counts: bool = False
    once: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Its canonical name."""
        return self.names[CANONICAL]

    def shape_in(self, framework: Framework) -> Shape:
        """Its shape as a framework keeps it."""
        return LAYOUTS[self.layouts[framework]].shape_from_pt(self.shape)


@dataclass(frozen=True, slots=True)
class BufferRule:
    """A tensor that is stored but never trained, and may be missing.

    Attributes:
        names: by framework, of those that store it.
        shape: the same in all of them.
        compute: key of ``buffers.BUFFERS`` when its value follows from the config, else None.
        fields: the fields that ``compute`` is given; those of ``given`` in place of the config's.
        given: names of fields that are this buffer's own, as of a layer, and not the config's.
        reason: why it may be left out.
        made_anew: who is given it where a source lacks it: frameworks, or ``framework/dialect``.
        unread: no model reads it, so that it may hold anything.
        after: by framework, name of the tensor after which it is created; by default after all others.
    """

    names: Mapping[Framework, str]
    shape: Shape | None
    compute: str | None
    fields: Mapping[str, Value]
    reason: str
    made_anew: tuple[str, ...] = ()
    unread: bool = False
    given: tuple[str, ...] = ()
    after: Mapping[Framework, str] = field(default_factory=dict)


@dataclass(frozen=True)
class RuleSet:
    """Every name of one model.

    Attributes:
        tensors: in the order in which TensorFlow creates its variables.
        buffers: the same for buffers.
        dialects: for every dialect of PyTorch's names other than 4.x, its names -> canonical names.
        splits: tensors that a dialect keeps in parts.
        table: where another program's layout keeps each tensor, when the config is of that program.
    """

    tensors: tuple[TensorRule, ...]
    buffers: tuple[BufferRule, ...]
    dialects: Mapping[str, Mapping[str, str]]
    splits: tuple[SplitRule, ...] = ()
    table: Table | None = None

    @property
    def kept_once(self) -> dict[str, list[str]]:
        """Names of tensors that some writers keep in place of several -> the canonical names of those."""
        found: dict[str, list[str]] = {}
        for rule in self.tensors:
            for name in rule.once:
                found.setdefault(name, []).append(rule.name)
        return found

    @property
    def canonical(self) -> list[str]:
        """Canonical names of tensors and stored buffers."""
        stored = [buffer.names[CANONICAL] for buffer in self.buffers if CANONICAL in buffer.names]
        return [rule.name for rule in self.tensors] + stored


def compile_rules(config: TwoTowerConfig) -> RuleSet:
    """Compiles the rules for one model with two towers.

    Raises:
        ConfigError: the config describes no model, or one with more than ``MAX_TENSORS`` tensors.
        ValueError: a name is claimed twice (a mistake in a rule file).
    """
    family = config.family
    outside = {module[CANONICAL]: module for module in family.rules["module"]}
    tensors: list[TensorRule] = []
    buffers: list[BufferRule] = []
    for item in family.order:
        if item in family.places:
            tower = compile_tower(config.tower("vision" if item == "vision" else "text"), family)
            tensors += tower.tensors
            buffers += tower.buffers
        else:
            prefixes = dict.fromkeys(frameworks(), "")
            tensors += _expand_module(outside.pop(item), config.fields, prefixes, f"families/{family.stem}", _Parts())
    if outside:
        raise ValueError(f"rename_rules/families/{family.stem}.toml: order lacks {listed(list(outside))}")
    _check_bijection(tensors)
    found = RuleSet(tuple(tensors), tuple(buffers), {})
    names = [rule.name for rule in tensors]
    if config.layout is not None:
        return replace(found, table=make_table(config.layout, family.model_type, shapes_of(found)))
    return replace(found, dialects=dialects_of(config, found.canonical), splits=splits_of(config, names))


def shapes_of(rules: RuleSet) -> dict[str, Shape]:
    """Shape of every tensor by its canonical name, in PyTorch's layout."""
    return {rule.name: rule.shape for rule in rules.tensors}


def compile_tower(tower: TowerConfig, family: Family | None = None) -> RuleSet:
    """Compiles the rules of one tower.

    Args:
        tower: its config.
        family: the family around it; None for a single tower, whose names begin as in its own files: in TensorFlow with
            the main layer.
    """
    if family is None:
        layer = tower.rules["main_layer"]
        prefixes = {key: f"{layer}{it.separator}" if it.in_main_layer else "" for key, it in frameworks().items()}
        without: tuple[str, ...] = ()
    else:
        prefixes = {key: prefix(key, family, tower) for key in frameworks()}
        without = family.places[tower.side].without
    cite = f"towers/{tower.stem}"
    tensors: list[TensorRule] = []
    parts = _Parts(tower.rules.get("repeat", ()))
    for module, fields in _occurrences(tower.rules["module"], tower):
        if module[CANONICAL].startswith(without):
            continue
        tensors += _expand_module(module, fields, prefixes, cite, parts)
        if len(tensors) > MAX_TENSORS:
            raise ConfigError(
                f"config.json: {tower.side}_config describes more than {MAX_TENSORS:,} tensors; correct the config"
            )
    buffers = [
        _expand_buffer(buffer, fields, prefixes)
        for buffer, fields in _occurrences(tower.rules.get("buffer", ()), tower)
        if not buffer.get(CANONICAL, "").startswith(without)
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
        modules, lambda module: first in _PLACEHOLDER.findall(_some_path(module))
    ):
        members = list(group)
        if not has_first:
            yield from _expand_group(members, tuple(rest), repeat, fields)
            continue
        for place in _places(repeat[first], fields):
            yield from _expand_group(members, tuple(rest), repeat, {**fields, first: place})


def _places(expression: str, fields: Mapping[str, Value]) -> Sequence[Value]:
    """The values of a placeholder: 0, 1, 2 ... below a number, or names."""
    names = evaluate(expression, fields)
    if isinstance(names, tuple):
        return names
    count = integer(expression, fields)
    if count > MAX_TENSORS:
        raise ConfigError(f"config.json: {expression} is {count:,}, more than any model has; correct the config")
    return range(count)


@dataclass(frozen=True, slots=True)
class _Part:
    """One tensor of a kind of module: what is the same wherever such a module occurs.

    Attributes:
        leaves: by framework, the last level of its name, empty where the module's path is all of it, and the separator.
        layouts: by framework.
        shape: in PyTorch's layout.
        counts: whether it holds whole numbers.
    """

    leaves: Mapping[Framework, tuple[str, str]]
    layouts: Mapping[Framework, str]
    shape: Shape
    counts: bool


class _Parts:
    """The parts of every module of a tower; of a module in a layer they are found once, not for every layer."""

    def __init__(self, placeholders: Collection[str] = ()) -> None:
        """Takes the names that change from one occurrence of a module to the next."""
        self._placeholders = placeholders
        self._needed: dict[int, tuple[str, ...]] = {}
        self._known: dict[tuple[Any, ...], list[_Part]] = {}

    def of(self, module: Mapping[str, Any], fields: Mapping[str, Value], path: str) -> list[_Part]:
        """The parts of one occurrence; ``path`` is its canonical one, for messages."""
        needed = self._needed.get(id(module))
        if needed is None:
            used = {*_WORD.findall(f"{module['shape']} {module.get('bias')}")}
            needed = self._needed[id(module)] = tuple(name for name in self._placeholders if name in used)
        key = (id(module), *(fields.get(name) for name in needed))
        if key not in self._known:
            self._known[key] = list(_parts(module, fields, path))
        return self._known[key]


def _expand_module(
    module: Mapping[str, Any], fields: Mapping[str, Value], prefixes: Mapping[Framework, str], file: str, parts: _Parts
) -> Iterator[TensorRule]:
    cite = f"rename_rules/{file}.toml: {module[CANONICAL]}"
    paths = {key: before + _fill(path_in(key, module), fields) for key, before in prefixes.items()}
    once = tuple(prefixes[CANONICAL] + name for name in module.get("once", ()))
    for part in parts.of(module, fields, paths[CANONICAL]):
        names = {key: _joined(paths[key], leaf, separator) for key, (leaf, separator) in part.leaves.items()}
        yield TensorRule(names, part.layouts, part.shape, cite, part.counts, once)


def _joined(path: str, leaf: str, separator: str) -> str:
    return f"{path}{separator}{leaf}" if path and leaf else path or leaf


def _parts(module: Mapping[str, Any], fields: Mapping[str, Value], path: str) -> Iterator[_Part]:
    """The parts of a module; ``path`` is its canonical one, for messages."""
    shape = tuple(integer(str(axis), fields) for axis in module["shape"])
    for part in rule_file("common")["kinds"][module["is"]]:
        if part.get("optional") and not truth(module.get("bias", "true"), fields):
            continue
        part_shape = tuple(shape[axis] for axis in part["axes"]) if "axes" in part else tuple(part.get("shape", shape))
        layouts = {key: part[key][1] for key in frameworks()}
        turned = any(LAYOUTS[layout].axes is not None for layout in layouts.values())
        if turned and math.prod(part_shape[1:]) > MAX_ROW:
            raise ConfigError(
                f"config.json: {path} would have rows of {math.prod(part_shape[1:]):,} numbers, more than any "
                "model has; correct the config"
            )
        leaves = {key: (part[key][0], rules.separator) for key, rules in frameworks().items()}
        yield _Part(leaves, layouts, part_shape, part.get("counts", False))


def _expand_buffer(
    buffer: Mapping[str, Any], fields: dict[str, Value], prefixes: Mapping[Framework, str]
) -> BufferRule:
    shape = tuple(integer(str(axis), fields) for axis in buffer["shape"]) if "shape" in buffer else None
    own = {name: evaluate(text, fields) for name, text in buffer.get("given", {}).items()}
    return BufferRule(
        names={key: before + _fill(buffer[key], fields) for key, before in prefixes.items() if key in buffer},
        shape=shape,
        compute=buffer.get("compute"),
        fields={**fields, **own, **({"length": shape[-1], "rows": shape[0]} if shape else {})},
        reason=buffer["reason"],
        made_anew=tuple(buffer.get("made_anew", ())),
        unread=buffer.get("unread", False),
        given=tuple(own),
        after={key: prefixes[key] + _fill(name, fields) for key, name in buffer.get("after", {}).items()},
    )


def _some_path(module: Mapping[str, Any]) -> str:
    """A path whose placeholders are those of all frameworks: a buffer may be in only one of them."""
    return str(next(module[key] for key in frameworks() if key in module))


def _fill(template: str, fields: Mapping[str, Value]) -> str:
    if "{" not in template:
        return template
    return _PLACEHOLDER.sub(lambda match: str(evaluate(match[1], fields)), template)


def _check_bijection(rules: Sequence[TensorRule]) -> None:
    for framework in frameworks():
        claimed: dict[str, str] = {}
        for rule in rules:
            name = rule.names[framework]
            if name in claimed:
                raise ValueError(f"{name} is claimed by {claimed[name]} and by {rule.cite}")
            claimed[name] = rule.cite

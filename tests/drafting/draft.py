"""Drafts the rules of a tower from what live models of it were seen to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from converter.names.buffers import BUFFERS
from converter.names.rule_files import rule_file
from tests.drafting.dialects import dialect, splits
from tests.drafting.expressions import Sample, condition, fit
from tests.drafting.templates import Place, Templates, learn

KINDS = {
    "Linear": "dense",
    "NonDynamicallyQuantizableLinear": "dense",
    "QuantLinear": "dense",
    "Conv1d": "conv1d",
    "Conv2d": "conv2d",
    "Embedding": "embedding",
    "QuantEmbedding": "embedding",
}


@dataclass(frozen=True)
class Run:
    """One config and what the tensors of its model are called.

    Attributes:
        changed: the fields that differ from the first run's.
        config: every field, defaults included.
        names: canonical name -> shape, class of the module, whether it is a weight.
        said: the whole table.
    """

    changed: tuple[str, ...]
    config: Mapping[str, Any]
    names: Mapping[str, tuple[list[int], str, bool]]
    said: Mapping[str, Any]


@dataclass
class Module:
    """One module of every layer: where it is, and the shapes of its weight by run and place."""

    template: str
    kind: str
    weights: dict[tuple[int, Place], list[int]] = field(default_factory=dict)
    biases: set[tuple[int, Place]] = field(default_factory=set)


@dataclass
class Drafter:
    """From observations to rules.

    Attributes:
        runs: every config seen, the usual one first.
        effects: field -> default and what changing it alone does, as observe.py says it.
    """

    runs: Sequence[Run]
    effects: Mapping[str, Mapping[str, Any]]
    unclear: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.templates: Templates = learn((run.names for run in self.runs), (run.config for run in self.runs))
        self.repeat: dict[str, str] = {}
        self.places = self._around()

    # --- how often, and where ---------------------------------------------------------------------------------------

    def _around(self) -> dict[tuple[str, int, Place], Sequence[int | str]]:
        """By template's beginning, run and place of what is around it: the numbers below how many there are, or the names."""
        places: dict[tuple[str, int, Place], Sequence[int | str]] = {}
        for number, run in enumerate(self.runs):
            for name in run.names:
                template, place = self.templates.split(name)
                for depth, before in enumerate(_beginnings(template)):
                    key, at = (before, number, place[:depth]), place[depth]
                    known = places.get(key, ())
                    if at not in known:
                        places[key] = range(at + 1) if isinstance(at, int) else (*known, at)
        return places

    def placeholders(self) -> dict[str, str]:
        """Every placeholder and how many it counts."""
        by_word: dict[str, list[str]] = {}
        for before, _, _ in self.places:
            word = before.rpartition("{")[2].rstrip("}")
            if before not in by_word.setdefault(word, []):
                by_word[word].append(before)
        for word, beginnings in sorted(by_word.items(), key=lambda item: min(before.count("{") for before in item[1])):
            if word in self.templates.fields:
                self.repeat[word] = f"names({self.templates.fields[word]})"
                continue
            samples, outer = [], []
            for (before, number, place), there in self.places.items():
                if before in beginnings:
                    outer = _words(before)[:-1]
                    samples.append(({**self.runs[number].config, **dict(zip(outer, place, strict=False))}, len(there)))
            self.repeat[word] = self._expression(samples, f"the number of {word}s", outer)
        return self.repeat

    # --- sizes and conditions ---------------------------------------------------------------------------------------

    def _expression(self, samples: Sequence[Sample], what: str, words: Sequence[str] = ()) -> str:
        places = self._counting(words)
        tried = (
            (fields, beside)
            for fields in self._deciding(samples, places)
            for beside in dict.fromkeys(((), tuple(places)))
        )
        found = next(filter(None, (fit(samples, fields, beside) for fields, beside in tried)), None)
        if found is None:
            self.unclear.append(f"{what}: {sorted({str(value) for _, value in samples})[:6]}")
        return found or "0"

    def _condition(self, samples: Sequence[Sample], what: str, words: Sequence[str] = ()) -> str:
        places = self._counting(words)
        tried = (condition(samples, fields, places) for fields in self._deciding(samples, places))
        found = next(filter(None, tried), None)
        if found is None:
            self.unclear.append(f"{what}: when it is there")
        return found or "true"

    def _counting(self, words: Sequence[str]) -> list[str]:
        """Placeholders that stand for numbers: what is of one name has no other size than what is of another."""
        return [word for word in words if word not in self.templates.fields]

    def _deciding(self, samples: Sequence[Sample], places: Sequence[str]) -> list[list[str]]:
        """Fields that a value may depend on: those that moved it when they were changed alone; then all that ever changed."""
        usual = self.runs[0].config
        changed = [name for name, said in self.effects.items() if said["effect"] == "shape" or name == "image_size"]
        by_place, alone = {}, []
        for env, value in samples:
            if not _moved(env, usual, changed):
                by_place[tuple(env[place] for place in places)] = value
        for env, value in samples:
            here, moved = tuple(env[place] for place in places), _moved(env, usual, changed)
            if len(moved) == 1 and here in by_place and by_place[here] != value and moved[0] not in alone:
                alone.append(moved[0])
        if len({str(value) for _, value in samples}) == 1:
            return [alone]
        return [alone, alone + [name for name in changed if name not in alone]]

    # --- modules ----------------------------------------------------------------------------------------------------

    def modules(self) -> list[dict[str, Any]]:
        """Every module, in the order of the first model that has it."""
        return [self._module(module) for module in self._gathered()]

    def _gathered(self) -> list[Module]:
        found: dict[tuple[str, str], Module] = {}
        order: list[tuple[str, str]] = []
        for number, run in enumerate(self.runs):
            at = 0
            for name, (shape, owner, is_weight) in run.names.items():
                if not is_weight:
                    continue
                path, _, leaf = name.rpartition(".")
                known = kind_of(owner) if leaf in ("weight", "bias") else None
                template, place = self.templates.split(path if known else name)
                kind = (
                    known or "tensor"
                )  # a place may have one kind of module in the first layer and another in the rest
                module = found.setdefault((template, kind), Module(template, kind))
                # What only another config has stands behind what comes before it there.
                if (template, kind) not in order:
                    order.insert(at, (template, kind))
                at = order.index((template, kind)) + 1
                if known and leaf == "bias":
                    module.biases.add((number, place))
                else:
                    module.weights[number, place] = shape
        return _side_by_side([found[key] for key in order])

    def _env(self, key: tuple[int, Place], words: Sequence[str]) -> dict[str, Any]:
        return {**self.runs[key[0]].config, **dict(zip(words, key[1], strict=True))}

    def _module(self, module: Module) -> dict[str, Any]:
        words, what = _words(module.template), module.template
        rank = {len(shape) for shape in module.weights.values()}
        if len(rank) != 1:
            self.unclear.append(f"{what}: shapes of {sorted(rank)} axes")
        shape = [
            self._expression(
                [(self._env(key, words), size[axis]) for key, size in module.weights.items()],
                f"{what}, axis {axis}",
                words,
            )
            for axis in range(max(rank, default=0))
        ]
        rule = {"pt": what, "is": module.kind, "shape": [int(size) if size.isdigit() else size for size in shape]}
        if module.kind not in ("tensor", "embedding"):
            has = [(self._env(key, words), key in module.biases) for key in module.weights]
            bias = self._condition(has, f"{what}, bias", words)
            rule |= {"bias": bias} if bias != "true" and not (module.kind == "norm" and bias == "false") else {}
        there = [(self._env(key, words), key in module.weights) for key in self._places(what)]
        when = self._condition(there, what, words)
        return rule | ({"when": when} if when != "true" else {})

    def _places(self, template: str) -> list[tuple[int, Place]]:
        """Every run and place where a module of a template could be."""
        found: list[tuple[int, Place]] = [(number, ()) for number in range(len(self.runs))]
        for before in _beginnings(template):
            found = [
                (number, (*place, at)) for number, place in found for at in self.places.get((before, number, place), ())
            ]
        return found

    # --- buffers ----------------------------------------------------------------------------------------------------

    def buffers(self) -> list[dict[str, Any]]:
        """Tensors that are stored, or were, and follow from the config."""
        stored = {name: shape for name, (shape, _, is_weight) in self.runs[0].names.items() if not is_weight}
        held = {name: value for name, value in self.runs[0].said["buffers"].items() if name.endswith("position_ids")}
        found: dict[str, dict[str, Any]] = {}
        for name in [*stored, *(name for name in held if name not in stored)]:
            template, _ = self.templates.split(name)
            if template in found:
                continue
            words = _words(template)
            shapes = self._buffer_shapes(template)
            axes = range(len(next(iter(shapes.values()))))
            sizes = [
                self._expression(
                    [(self._env(key, words), shape[axis]) for key, shape in shapes.items()],
                    f"{template}, axis {axis}",
                    words,
                )
                for axis in axes
            ]
            found[template] = {"pt": template, "shape": [int(size) if size.isdigit() else size for size in sizes]}
            found[template] |= {"compute": compute} if (compute := self._computed(name, stored.get(name))) else {}
            there = [(self._env(key, words), key in shapes) for key in self._places(template)]
            when = self._condition(there, template, words)
            found[template] |= {"when": when} if when != "true" else {}
            found[template] |= {"made_anew": ["pt/v4"]} if name in stored else {}
        return list(found.values())

    def _buffer_shapes(self, template: str) -> dict[tuple[int, Place], list[int]]:
        shapes = {}
        for number, run in enumerate(self.runs):
            seen = {name: shape for name, (shape, _, is_weight) in run.names.items() if not is_weight}
            seen |= {
                name: _shape(value) for name, value in run.said["buffers"].items() if name.endswith("position_ids")
            }
            for name, shape in seen.items():
                if self.templates.split(name)[0] == template:
                    shapes[number, self.templates.split(name)[1]] = shape
        return shapes

    def _computed(self, name: str, shape: Sequence[int] | None) -> str | None:
        """The function that gives a buffer's value, if there is one."""
        value = self.runs[0].said["buffers"].get(name)
        fields = {**self.runs[0].config, "length": (shape or _shape(value or [0]))[-1]}
        for known, compute in BUFFERS.items():
            try:
                made = compute(fields)
            except (ValueError, KeyError, TypeError):  # it asks for fields that this tower does not have
                continue
            if value is not None and list(made.shape) == _shape(value) and made.tolist() == value:
                return known
        return None

    # --- fields -----------------------------------------------------------------------------------------------------

    def config(self) -> dict[str, dict[str, Any]]:
        """Fields that count, with their defaults; those that do not; and those whose other values make another graph."""
        common = rule_file("common")["config"]
        known = {*common["irrelevant"], *common["refused"]}
        kinds: dict[str, dict[str, Any]] = {"honoured": {}, "irrelevant": {}, "refused": {}}
        for name, said in self.effects.items():
            effect, default = said["effect"], said["default"]
            if name in common["refused"] or name.startswith("_"):
                continue
            # What could not be tried is refused, too: a field that does more than it seems would be passed over otherwise.
            other_graph = (effect == "shape" and isinstance(default, str)) or not said["values"]
            kind = (
                "refused" if other_graph or effect == "version 4" else "honoured" if effect != "none" else "irrelevant"
            )
            if (name in known and kind != "honoured") or name == "chunk_size_feed_forward":
                continue
            kinds[kind][name] = "none" if default is None else default
        return kinds


def _side_by_side(modules: Sequence[Module]) -> list[Module]:
    """Modules in their order; those that stand in the place of others come behind the last one beside those."""
    found: list[Module] = []
    for module in modules:
        beside = [
            at
            for at, other in enumerate(found)
            if other.template.rpartition(".")[0] == module.template.rpartition(".")[0]
        ]
        again = any(other.template == module.template for other in found)
        found.insert(beside[-1] + 1 if again else len(found), module)
    return found


def _moved(env: Mapping[str, Any], usual: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    return [name for name in names if env.get(name) != usual.get(name)]


def _shape(value: Any) -> list[int]:
    return [len(value), *_shape(value[0])] if isinstance(value, list) else []


def kind_of(module: str) -> str | None:
    """The kind of module that a class of PyTorch is; None for one that holds bare parameters."""
    if module in KINDS:
        return KINDS[module]
    return (
        "norm"
        if module.endswith(("Norm", "NoNorm", "GroupNorm"))
        else "embedding"
        if module.endswith("Embedding")
        else None
    )


def _beginnings(template: str) -> list[str]:
    """What stands up to each placeholder, it included."""
    return [template[: at + 1] for at, sign in enumerate(template) if sign == "}"]


def _words(template: str) -> list[str]:
    return [before.rpartition("{")[2].rstrip("}") for before in _beginnings(template)]


def spelled(runs: Sequence[Run]) -> dict[str, Any]:
    """The dialects of files and of live models of transformers 5."""
    found: dict[str, Any] = {}
    for key, said in (("v5", "saved"), ("v5_live", "live")):
        replace = dialect(runs, said)
        parts = splits(runs, replace) if said == "live" else []
        if replace or parts:
            found[key] = {**({"replace": replace} if replace else {}), **({"split": parts} if parts else {})}
    return found

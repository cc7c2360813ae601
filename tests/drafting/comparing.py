"""What a draft of a tower says otherwise than the rule file that is there."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from converter.names.rule_files import rule_file


def differences(drafted: Mapping[str, Any], ours: Mapping[str, Any], model_type: str) -> dict[str, str]:
    """By what differs, how: the draft first, then the file.

    Sizes, conditions and dialects are not compared as texts: both are held to the same configs by the compiler. Reasons and
    the Keras class are a person's to write.
    """
    found = dict(_keys(drafted, ours))
    found |= {
        f"{name}: {key}": text
        for name in ("irrelevant", "honoured", "refused")
        for key, text in _fields(name, drafted, ours, model_type)
    }
    # A list has the model types of the file that an input is true of.
    inputs = {
        key: value
        for key, value in ours.get("inputs", {}).items()
        if not isinstance(value, list) or model_type in value
    }
    found |= {f"inputs: {key}": text for key, text in _mapping(drafted.get("inputs", {}), inputs)}
    taps = ({kind: sorted(map(_bare, paths)) for kind, paths in rules["taps"].items()} for rules in (drafted, ours))
    found |= {f"taps: {key}": text for key, text in _mapping(*taps)}
    found |= dict(_modules(drafted["module"], ours["module"]))
    found |= {f"buffer {key}": text for key, text in _mapping(_buffers(drafted), _buffers(ours))}
    return found


def _keys(drafted: Mapping[str, Any], ours: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key in ("side", "main_layer", "width", "new_if_missing", "prefixes"):
        if drafted.get(key) != ours.get(key):
            yield key, f"{drafted.get(key)}, file {ours.get(key)}"


def _fields(
    name: str, drafted: Mapping[str, Any], ours: Mapping[str, Any], model_type: str
) -> Iterator[tuple[str, str]]:
    common = rule_file("common")["config"]
    if name == "irrelevant":
        shared = {*common["irrelevant"], *common["refused"]}
        one, other = (
            dict.fromkeys(set(rules["config"]["irrelevant"]) - shared, "irrelevant") for rules in (drafted, ours)
        )
    elif name == "honoured":
        one, other = (
            dict(drafted["config"][name]),
            {**ours["config"][name], **ours["config"].get("defaults", {}).get(model_type, {})},
        )
    else:
        one, other = (
            {key: rule["default"] for key, rule in rules["config"].get(name, {}).items()} for rules in (drafted, ours)
        )
    yield from _mapping(one, other)


def _mapping(one: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key in sorted({*one, *other}):
        if one.get(key, "nothing") != other.get(key, "nothing"):
            yield key, f"{one.get(key, 'nothing')}, file {other.get(key, 'nothing')}"


def _modules(drafted: Sequence[Mapping[str, Any]], ours: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    one, other = (_by_path(modules) for modules in (drafted, ours))
    for path in sorted({*one, *other}):
        if path not in one or path not in other:
            yield f"module {path}", "drafted alone" if path in one else "in the file alone"
            continue
        for key in ("tf", "is"):
            here, there = (_bare(str(modules[path].get(key, ""))) for modules in (one, other))
            if here != there:
                yield f"module {path}, {key}", f"{here}, file {there}"
    if set(one) == set(other) and list(one) != list(other):
        first = next(index for index, (a, b) in enumerate(zip(one, other, strict=True)) if a != b)
        yield "order", f"{list(one)[first]} where the file has {list(other)[first]}"


def _by_path(modules: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Modules by their paths; where several kinds share one, by kind, too."""
    found: dict[str, Mapping[str, Any]] = {}
    for module in modules:
        path = _bare(module["pt"])
        found[f"{path}, {module['is']}" if path in found else path] = module
    return found


def _buffers(rules: Mapping[str, Any]) -> dict[str, tuple[Any, ...]]:
    stored = [buffer for buffer in rules.get("buffer", ()) if "pt" in buffer]
    return {_bare(buffer["pt"]): (buffer.get("compute"), "pt/v4" in buffer.get("made_anew", ())) for buffer in stored}


def _bare(path: str) -> str:
    return re.sub(r"\{\w+\}", "{}", path)

"""Writes a draft as a rule file, in the order of the files that are there; TODO stands where a person has to say why."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def text_of(rules: Mapping[str, Any], title: str) -> str:
    """A rule file as TOML."""
    lines = [f"# {title}: TODO what it is, and its paper. Drafted from live models by tests/drafting."]
    lines += [
        f"{key} = {_value(rules[key])}" for key in ("side", "main_layer", "model_types", "keras", "in_transformers_4")
    ]
    lines += [f"{key} = {_value(rules[key])}" for key in ("width", "new_if_missing", "prefixes") if key in rules]
    lines += ["", *_config(rules["config"])]
    for key in ("inputs", "taps", "repeat"):
        if rules.get(key):
            lines += ["", f"[{key}]", *(f"{name} = {_value(value)}" for name, value in rules[key].items())]
    for kind in ("module", "buffer"):
        for rule in rules.get(kind, ()):
            lines += ["", f"[[{kind}]]", *(f"{key} = {_value(value)}" for key, value in rule.items())]
    for name, dialect in rules.get("dialects", {}).items():
        if "replace" in dialect:
            lines += [
                "",
                f"[dialects.{name}]",
                "replace = [",
                *(f"    ['{a}', '{b}']," for a, b in dialect["replace"]),
                "]",
            ]
        for split in dialect.get("split", ()):
            lines += ["", f"[[dialects.{name}.split]]", f"part_of = '{split['part_of']}'"]
            lines += [f"parts = {_value(split['parts'])}", f"axis = {split['axis']}"]
    return "\n".join(lines) + "\n"


def _config(config: Mapping[str, Any]) -> list[str]:
    lines = ["[config]", "# TODO why each: changing it changed neither names nor outputs."]
    lines += [f"irrelevant = {_value(config['irrelevant'])}", "", "[config.honoured]"]
    lines += [f"{name} = {_value(default)}" for name, default in config["honoured"].items()]
    for name, rule in config["refused"].items():
        lines += ["", f"[config.refused.{name}]", *(f"{key} = {_value(value)}" for key, value in rule.items())]
    return lines


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_value(held)}" for key, held in value.items()) + " }" if value else "{}"
    return repr(value) if isinstance(value, float) else json.dumps(value, ensure_ascii=False)

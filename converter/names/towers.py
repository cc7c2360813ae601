"""The rule files for a tower, by its model type: which file serves it, and the defaults of a config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from converter.names.expressions import truth
from converter.names.rule_files import Side, rule_file, tower_files
from converter.specs import Framework


def tower_rules(side: Side, model_type: object) -> Mapping[str, Any] | None:
    """The rule file that serves a model type; None where none does."""
    stem = tower_files(side).get(model_type) if isinstance(model_type, str) else None
    return None if stem is None else rule_file(f"towers/{stem}")


def tower_defaults(side: Side, model_type: object) -> dict[str, Any]:
    """The defaults of a config of this model type: every honoured field with transformers' default.

    Args:
        side: which tower.
        model_type: as in config.json.

    Returns:
        The defaults; empty where the model type has no rules.
    """
    rules = tower_rules(side, model_type)
    if rules is None:
        return {}
    return {name: None if value == "none" else value for name, value in honoured(rules["config"], model_type).items()}


def honoured(config: Mapping[str, Any], model_type: object) -> dict[str, Any]:
    """Every honoured field of a rule file's ``[config]``, with its default as the file has it.

    A field that may have one of several values, and is refused with any other, is honoured, too.
    """
    several = {name: rule["default"] for name, rule in config.get("refused", {}).items() if len(rule["allowed"]) > 1}
    return {**several, **config["honoured"], **config.get("defaults", {}).get(model_type, {})}


def input_rules(side: Side, model_type: object) -> Mapping[str, Any]:
    """The ``[inputs]`` of a tower's rule file, which describe its inputs; empty by default."""
    rules = tower_rules(side, model_type)
    return {} if rules is None else rules.get("inputs", {})


def counts_after_padding(model_type: object, fields: Mapping[str, Any]) -> bool:
    """Whether a text tower counts its positions from behind the padding token's id on, as ``[inputs]`` says.

    Args:
        model_type: of the tower's config.
        fields: of that config, every honoured one among them.
    """
    said = input_rules("text", model_type).get("positions_after_padding", False)
    return truth(said, fields) if isinstance(said, str) else bool(said)


def in_transformers_4(side: Side, model_type: object, framework: Framework) -> bool:
    """Whether transformers 4 can have such a tower in a dual encoder in a framework other than PyTorch."""
    return class_in_transformers_4(side, model_type, framework) is not None


def class_in_transformers_4(side: Side, model_type: object, framework: Framework) -> str | None:
    """The class of such a tower in transformers 4 in a framework other than PyTorch; None if no dual encoder can have it."""
    rules = tower_rules(side, model_type)
    found = None if rules is None else rules.get("in_transformers_4", {}).get(framework, {}).get(model_type)
    return None if found is None else str(found)

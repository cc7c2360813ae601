"""Holds a draft to configs that it was not made from, by the product's own compiler."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from converter.errors import ConverterError
from converter.names.configs import TowerConfig
from converter.names.expressions import evaluate
from converter.names.rules import compile_tower
from converter.names.spelling import spell_in_tower
from tests.drafting.dialects import canonical_of_saved
from tests.drafting.draft import Run


@dataclass(frozen=True)
class DraftedTower(TowerConfig):
    """A tower whose rules are no file yet."""

    drafted: Mapping[str, Any] | None = None

    @property
    def rules(self) -> Mapping[str, Any]:
        """The draft."""
        assert self.drafted is not None
        return self.drafted


def mistakes(rules: Mapping[str, Any], run: Run) -> list[str]:
    """What a draft says otherwise of a config than its model; empty where they agree."""
    config = rules["config"]
    fields = {
        name: run.config.get(name, None if default == "none" else default)
        for name, default in config["honoured"].items()
    }
    tower = DraftedTower(rules["side"], rules["model_types"][0], "", fields, (), rules)
    try:
        compiled = compile_tower(tower)
    except (ConverterError, ValueError) as error:
        return [str(error)]
    said = {rule.name: list(rule.shape) for rule in compiled.tensors}
    # What is stored and never trained may be a tensor of its own, which goes through as it is.
    wanted = {name: list(shape) for name, (shape, _, is_weight) in run.names.items() if is_weight or name in said}
    found = [
        f"{name}: {said.get(name)}, expected {wanted.get(name)}"
        for name in {*said, *wanted}
        if said.get(name) != wanted.get(name)
    ]
    stored = {rule.names["pt"]: list(rule.shape or ()) for rule in compiled.buffers if "pt" in rule.names}
    held = {name: list(shape) for name, (shape, *_) in run.names.items() if name not in wanted}
    found += [
        f"buffer {name}: {stored.get(name)}, expected {shape}"
        for name, shape in held.items()
        if stored.get(name) != shape
    ]
    if "width" in rules and run.said["width"] and (width := evaluate(rules["width"], fields)) != run.said["width"]:
        found.append(f"width: {width}, expected {run.said['width']}")
    return found or _misspelled(tower, run)


def _misspelled(tower: TowerConfig, run: Run) -> list[str]:
    """Names in files and in live models of transformers 5 that the dialects say otherwise."""
    saved = dict(zip(run.said["saved"], canonical_of_saved(run), strict=True))
    found = [f"v5 calls {name} {other}" for other, name in saved.items() if spell_in_tower(name, tower, "v5") != other]
    for live, whole in run.said["live"].items():
        if isinstance(whole, str) and spell_in_tower(saved[whole], tower, "v5_live") != live:
            found.append(f"v5_live calls {saved[whole]} {live}, not {spell_in_tower(saved[whole], tower, 'v5_live')}")
    return found


def wrong(rules: Mapping[str, Any], runs: Sequence[Run]) -> dict[Any, list[str]]:
    """The runs that a draft is wrong about, by what is changed in them."""
    found = {}
    for run in runs:
        if said := mistakes(rules, run):
            found[str({name: run.config[name] for name in run.changed})] = said
    return found

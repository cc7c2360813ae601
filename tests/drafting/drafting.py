"""From observations of a tower to its rules: drafted, checked, and drafted again with what was wrong, until all is right."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from converter.names.towers import tower_rules
from tests.drafting.checking import mistakes, wrong
from tests.drafting.draft import Drafter, Run, spelled
from tests.drafting.expressions import fit
from tests.drafting.finishing import as_in, taps, with_tensorflow
from tests.drafting.observing import Observed
from tests.towers import Tower

WHY = "TODO"
MAX_ROUNDS = 8


class NotDrafted(Exception):
    """A draft that would need more than prose; the message says what is not clear or not right."""


def draft(tower: Tower, seen: Observed) -> dict[str, Any]:
    """The rules of a tower, right about every config that was seen.

    Args:
        tower: its entry in fixtures/towers.toml.
        seen: what live models of it do.

    Raises:
        NotDrafted: there is something that no expression was found for, or a config that the rules are wrong about.
    """
    runs = [run for run in seen.learnt if len(run.changed) < 2]
    rest = [run for run in seen.learnt if run not in runs]
    for _ in range(MAX_ROUNDS):
        rules, unclear = _drafted(tower, seen, runs)
        failing = [run for run in rest if mistakes(rules, run)]
        if unclear or not failing:
            break
        runs, rest = [*runs, failing[0]], [run for run in rest if run is not failing[0]]
    if unclear:
        raise NotDrafted("; ".join(unclear))
    if found := wrong(rules, [*seen.learnt, *seen.held_out]):
        config, said = next(iter(found.items()))
        raise NotDrafted(f"{len(found)} of {len(seen.learnt) + len(seen.held_out)} configs, {config}: {said[0]}")
    return rules


def _drafted(tower: Tower, seen: Observed, runs: list[Run]) -> tuple[dict[str, Any], list[str]]:
    drafter = Drafter(runs, seen.effects)
    repeat, modules = drafter.placeholders(), drafter.modules()
    placed = with_tensorflow(modules, seen.order, drafter.templates, tower.leaves)
    relative = tower_rules(tower.side, tower.like) if tower.like and seen.order is None else None
    placed = as_in(relative, placed)
    buffers = [{**buffer, "reason": WHY} for buffer in drafter.buffers()]
    widths = [(run.config, run.said["width"]) for run in runs if run.said["width"]]
    width = fit(widths, _sizes(runs))
    if widths and width is None:
        drafter.unclear.append(f"width: {sorted({value for _, value in widths})[:6]}")
    rules = {
        "side": tower.side,
        "main_layer": tower.main_layer,
        "model_types": [tower.model_type],
        "keras": WHY,
        "in_transformers_4": {"tf": [tower.model_type]} if tower.tensorflow.get("in_dual_encoder") else {},
        **({"width": width} if width not in (None, "hidden_size") else {}),
        **_heads(tower, seen),
        "config": _config(drafter, seen),
        "inputs": _inputs(tower, seen),
        "taps": taps(placed, drafter.templates.fields),
        "repeat": repeat,
        "module": placed,
        "buffer": buffers,
        "dialects": {},
    }
    try:
        rules["dialects"] = spelled(runs)
    except ValueError as error:
        drafter.unclear.append(str(error))
    return rules, drafter.unclear


def _sizes(runs: list[Run]) -> list[str]:
    names = ["hidden_size", "hidden_sizes", "embed_dim", "depths", "pooler_output_size"]
    return [name for name in names if name in runs[0].config]


def _heads(tower: Tower, seen: Observed) -> dict[str, Any]:
    """What a model with a head may lack of the tower, and puts in front of its names."""
    found: dict[str, Any] = {}
    if seen.said["unpooled"]:
        found["new_if_missing"] = sorted({f"{name.split('.')[0]}." for name in seen.said["unpooled"]})
    if seen.said["prefix"] not in ("", tower.main_layer):
        found["prefixes"] = [seen.said["prefix"]]
    return found


def _config(drafter: Drafter, seen: Observed) -> dict[str, Any]:
    config = drafter.config()
    refused = {
        name: {"default": default, "allowed": [default], "reason": WHY}
        for name, default in config.pop("refused").items()
    }
    return {"irrelevant": sorted(config["irrelevant"]), "honoured": config["honoured"], "refused": refused}


def _inputs(tower: Tower, seen: Observed) -> dict[str, Any]:
    said: Mapping[str, Any] = seen.said
    if tower.side == "vision":
        return {"any_size": True} if said["any_size"] else {}
    honoured = {name for name, effect in seen.effects.items() if effect["effect"] != "none"}
    found: dict[str, Any] = {} if "pad_token_id" in honoured else {"pad_token_id": said["pad_token_id"]}
    if said["after_padding"]:
        found["positions_after_padding"] = True
        found |= {} if "pad_token_id" in honoured else {"padding_id": said["after_padding"][0]}
    return found | ({"ends_with_eos": True} if "eos_token_id" in honoured else {})

"""Which modules end the branches of a layer: they are in the rules of every tower, by the names of every writer."""

from __future__ import annotations

import re

import pytest

from converter.names.rule_files import SIDES, Side, rule_file, supported, tower_files
from converter.names.spelling import branch_ends
from converter.parity.taps import INNER

TOWERS = [(side, model_type) for side in SIDES for model_type in supported(side)]


@pytest.mark.parametrize("stem", sorted({stem for side in SIDES for stem in tower_files(side).values()}))
def test_every_tower_says_what_ends_its_branches(stem: str) -> None:
    rules = rule_file(f"towers/{stem}")
    modules = {module["pt"]: module for module in rules["module"]}
    assert set(rules["taps"]) <= set(INNER)
    assert "mlp_output" in rules["taps"], "convolutions have no attention, all have an MLP"
    for ends in rules["taps"].values():
        # A module, or one that holds several and ends with the last of them.
        last = [[m for name, m in modules.items() if f"{name}.".startswith(f"{path}.")][-1] for path in ends]
        assert {module["is"] for module in last} <= {"dense", "quantised_dense", "conv1d"}
        # Of several a model has one, or each is of other blocks: as many as stand around the layers.
        around = sum(map(sum, rules.get("around", {}).values()))
        assert len({module.get("when") for module in last}) + around == len(ends)


@pytest.mark.parametrize(
    ("model_type", "kind", "path", "ends"),
    [
        ("dinov2", "mlp_output", "encoder.layer.39.mlp.weights_out", True),  # 4.57
        ("dinov2", "mlp_output", "encoder.layer.39.mlp.down_proj", True),  # 5.24
        ("dinov2", "mlp_output", "encoder.layer.39.mlp.fc2", True),
        ("dinov2", "mlp_output", "encoder.layer.39.mlp.weights_in", False),
        ("dinov2", "mlp_output", "encoder.layer.39.attention.output.dense", False),
        ("dinov2", "attention_output", "encoder.layer.0.attention.o_proj", True),
        ("vit", "mlp_output", "encoder.layer.1.output.dense", True),
        ("vit", "mlp_output", "layers.1.mlp.fc2", True),
        ("vit", "mlp_output", "encoder.layer.1.attention.output.dense", False),
        ("clip_vision_model", "mlp_output", "vision_model.encoder.layers.11.mlp.fc2", True),
        ("clip_vision_model", "mlp_output", "encoder.layers.11.mlp.fc2", True),
        ("siglip_vision_model", "mlp_output", "vision_model.head.mlp.fc2", False),
        ("siglip_vision_model", "attention_output", "vision_model.head.attention.out_proj", False),
        ("swin", "mlp_output", "encoder.layers.2.blocks.5.output.dense", True),
    ],
)
def test_modules_of_live_towers(model_type: str, kind: str, path: str, ends: bool) -> None:
    assert (branch_ends("vision", model_type)[kind].fullmatch(path) is not None) == ends


@pytest.mark.parametrize(("side", "model_type"), TOWERS)
def test_no_module_ends_both_branches(side: Side, model_type: str) -> None:
    ends = branch_ends(side, model_type).values()
    rules = rule_file(f"towers/{tower_files(side)[model_type]}")
    for module in rules["module"]:
        path = re.sub("{[a-z]+}", "0", module["pt"])
        assert sum(pattern.fullmatch(path) is not None for pattern in ends) <= 1, path


def test_a_tower_without_rules_has_none() -> None:
    assert branch_ends("text", "gpt2") == {}

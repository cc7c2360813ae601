"""One more framework is a table and a column of rename_rules/common.toml: rules, plans and layouts ask for nothing else."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest

from converter.conversion.plan import make_plan
from converter.names import frameworks as module
from converter.names import places, rules
from converter.names.configs import check_config
from converter.names.rule_files import rule_file
from converter.specs import FRAMEWORKS, Checkpoint, StoredTensor
from converter.tensors.layouts import LAYOUTS, way
from tests.tiny import MODELS

# Leaves of a framework that is made up; what is not here has PyTorch's.
LEAVES = {
    "dense": [["matrix", "dense"], ["bias", "plain"]],
    "conv1d": [["filter", "conv1d"], ["bias", "plain"]],
    "conv2d": [["filter", "conv2d"], ["bias", "plain"]],
    "norm": [["gain", "plain"], ["bias", "plain"]],
    "embedding": [["rows", "plain"]],
    "word_embedding": [["rows", "plain"]],
}


@pytest.fixture
def other(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Adds the framework to the data, and to nothing else."""
    common = copy.deepcopy(dict(rule_file("common")))
    common["frameworks"]["other"] = {
        "name": "Other", "tag": "other", "separator": "|", "in_safetensors": ".", "suffix": "", "sorted": False,
        "scoped": False, "in_main_layer": False,
        "integers": "int32", "converts_to": "pt", "transformers_5": False,
    }  # fmt: skip
    for kind, parts in common["kinds"].items():
        for number, part in enumerate(parts):
            part["other"] = LEAVES[kind][number] if kind in LEAVES else part["pt"]

    def read(path: str) -> Any:
        return common if path == "common" else rule_file(path)

    for place in (module, rules):
        monkeypatch.setattr(place, "rule_file", read)
    monkeypatch.setattr(module, "FRAMEWORKS", (*FRAMEWORKS, "other"))
    module.frameworks.cache_clear()
    places._prefix.cache_clear()
    yield
    module.frameworks.cache_clear()
    places._prefix.cache_clear()


@pytest.mark.parametrize("model", ["clip_vision_model+bert", "swin+albert", "clip"])
def test_names_and_layouts_follow_from_the_column(other: None, model: str) -> None:
    found = rules.compile_rules(check_config(MODELS[model]))
    leaves = {"weight", "matrix", "filter", "bias", "gain", "rows"}
    for rule in found.tensors:
        path, _, leaf = rule.name.rpartition(".")
        ours, _, own = rule.names["other"].rpartition("|")
        if leaf in leaves:
            assert (ours, own in leaves) == (path.replace(".", "|"), True)
        else:
            assert rule.names["other"] == rule.name.replace(".", "|")
    by_name = {rule.name: rule for rule in found.tensors}
    kernel = by_name["visual_projection.weight"]
    assert (kernel.names["other"], kernel.shape_in("other")) == ("visual_projection|matrix", kernel.shape[::-1])
    assert by_name["logit_scale"].shape_in("other") == ()


@pytest.mark.parametrize("model", ["clip_vision_model+bert", "clip"])
@pytest.mark.parametrize(
    ("source", "target"), [("pt", "other"), ("other", "pt"), ("other", "tf"), ("tf", "other"), ("flax", "other")]
)
def test_plans_go_everywhere(other: None, model: str, source: str, target: str) -> None:
    config = check_config(MODELS[model])
    found = rules.compile_rules(config)
    held = {
        name: StoredTensor(name, "float32", rule.shape_in(source))
        for rule in found.tensors
        for name in [rule.names[source]]
    }
    plan = make_plan(Checkpoint(source, "made up", held, ()), config, target)
    planned = {tensor.canonical: tensor for tensor in plan.tensors}
    for rule in found.tensors:
        tensor = planned[rule.name]
        assert (tensor.name, tensor.shape) == (rule.names[target], rule.shape_in(target))
    kernel = planned["text_projection.weight"]
    both_turned = "pt" not in (source, target)
    assert kernel.layout == LAYOUTS["plain" if both_turned else "dense"]


def test_layouts_without_a_way_are_a_mistake() -> None:
    assert way(LAYOUTS["dense"], LAYOUTS["dense"]) == (LAYOUTS["plain"], True)
    assert way(LAYOUTS["plain"], LAYOUTS["conv2d"]) == (LAYOUTS["conv2d"], True)
    assert way(LAYOUTS["conv2d"], LAYOUTS["plain"]) == (LAYOUTS["conv2d"], False)
    with pytest.raises(ValueError, match="no way leads from layout dense to conv2d"):
        way(LAYOUTS["dense"], LAYOUTS["conv2d"])

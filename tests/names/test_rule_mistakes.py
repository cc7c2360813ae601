"""Mistakes in a rule file are found when it is compiled, and configs that no model could have are refused."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.errors import ConfigError
from converter.names import configs
from converter.names.rules import RuleSet, compile_rules
from converter.names.scopes import erase_main_layer, restore_main_layer


@pytest.fixture
def bert(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """BERT's rules, to make mistakes in."""
    original = configs.rule_file
    changed = copy.deepcopy(dict(original("towers/bert")))
    monkeypatch.setattr(configs, "rule_file", lambda name: changed if name == "towers/bert" else original(name))
    return changed


def compile_bert(names: Any) -> RuleSet:
    return compile_rules(names.tower_config({"model_type": "bert", "num_hidden_layers": 2}))


def module(rules: dict[str, Any], ending: str) -> dict[str, Any]:
    return next(module for module in rules["module"] if module["pt"].endswith(ending))


def test_rules_as_they_are(bert: dict[str, Any], names: Any) -> None:
    assert compile_bert(names).tensors


def test_tensorflow_name_claimed_twice(bert: dict[str, Any], names: Any) -> None:
    module(bert, "self.query")["tf"] = module(bert, "self.key")["tf"]
    with pytest.raises(
        ValueError, match=r"self/key/kernel is claimed by rename_rules/towers/bert\.toml: .*query and by"
    ):
        compile_bert(names)


def test_pytorch_name_claimed_twice(bert: dict[str, Any], names: Any) -> None:
    module(bert, "self.query")["pt"] = module(bert, "self.key")["pt"]
    with pytest.raises(ValueError, match=r"self\.key\.weight"):
        compile_bert(names)


def test_dialect_with_one_name_for_two_tensors(bert: dict[str, Any], names: Any) -> None:
    bert["dialects"] = {"v5_live": {"replace": [["self\\.(query|key)", "self.query"]]}}
    with pytest.raises(ValueError, match=r"dialect v5_live calls both .*query.* and .*key.* text_model.*query"):
        compile_bert(names)


def test_expression_with_an_unknown_field(bert: dict[str, Any], names: Any) -> None:
    module(bert, "self.query")["shape"] = ["hidden_sise", "hidden_size"]
    with pytest.raises(ValueError, match="'hidden_sise', which is neither a placeholder nor an honoured field"):
        compile_bert(names)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model_type": "swin", "depths": [2, 2], "num_heads": [3]}, "num_heads = "),
        ({"model_type": "swin", "depths": 4}, "depths = "),
        ({"model_type": "clip_vision_model", "image_size": [24, 36]}, "image_size = "),
        ({"model_type": "clip_vision_model", "patch_size": 0}, "patch_size = "),
        ({"model_type": "vit", "image_size": [24]}, "image_size = "),
        ({"model_type": "bert", "hidden_size": -6}, "hidden_size"),
        ({"model_type": "bert", "hidden_size": "768"}, "hidden_size"),
        ({"model_type": "bert", "num_hidden_layers": 10**9}, "num_hidden_layers"),
    ],
)
def test_config_of_no_model(fields: dict[str, Any], message: str, names: Any) -> None:
    with pytest.raises(ConfigError, match=message):
        compile_rules(names.tower_config(fields))


FLAT_TEXT = ["bert", "roberta", "xlm-roberta", "camembert", "mpnet", "clip_text_model", "xlm-roberta-xl"]
FLAT_VISION = ["vit", "deit", "clip_vision_model", "siglip_vision_model"]
BEIT = [
    "use_absolute_position_embeddings", "use_mask_token", "use_mean_pooling", "use_relative_position_bias",
    "use_shared_relative_position_bias",
]  # fmt: skip


def towers(*model_types: str, **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({"model_type": st.sampled_from(model_types), **fields})


DEPTHS = st.lists(st.integers(0, 3), min_size=1, max_size=4)
VISION = st.one_of(
    towers(*FLAT_VISION),
    towers("beit", **dict.fromkeys(BEIT, st.booleans())),
    towers("dinov2", use_swiglu_ffn=st.booleans(), use_mask_token=st.booleans()),
    towers("dinov2_with_registers", use_swiglu_ffn=st.booleans(), num_register_tokens=st.integers(1, 9)),
    towers("swin", use_absolute_embeddings=st.booleans(), depths=DEPTHS),
)
TEXT = st.one_of(
    towers(*FLAT_TEXT),
    towers("ernie", use_task_id=st.booleans()),
    towers("albert", num_hidden_groups=st.integers(1, 3), inner_group_num=st.integers(1, 3)),
)


@given(VISION, TEXT, st.integers(0, 11), st.integers(0, 11))
def test_any_config_gives_a_bijection(
    vision: dict[str, Any], text: dict[str, Any], vision_layers: int, text_layers: int
) -> None:
    """Ten layers and more, too: no name is the beginning of another one's."""
    if vision["model_type"] != "swin":
        vision = {**vision, "num_hidden_layers": vision_layers}
    text = {**text, "num_hidden_layers": text_layers}
    config = configs.check_config(
        {"model_type": "vision-text-dual-encoder", "vision_config": vision, "text_config": text}
    )
    rules = compile_rules(config)
    stored = [rule.names["pt"] for rule in rules.tensors + rules.buffers if "pt" in rule.names]
    assert len(set(stored)) == len(stored)
    written = [rule.names["tf"] for rule in rules.tensors] + [
        rule.names["tf"] for rule in rules.buffers if "tf" in rule.names
    ]
    assert len(set(written)) == len(written)
    for spelled in rules.dialects.values():
        assert sorted(spelled.values()) == sorted(stored)
    assert [erase_main_layer(restore_main_layer(name, config)) for name in stored] == stored

"""Mistakes in a rule file are found when it is compiled, and configs that no model could have are refused."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.errors import ConfigError
from converter.names import configs
from converter.names.rule_files import Side, supported
from converter.names.rules import RuleSet, compile_rules
from converter.names.scopes import erase_main_layer, restore_main_layer
from converter.names.towers import tower_defaults


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


# Fields that say how many there are of something else than layers.
COUNTS = {"num_register_tokens": 9, "num_hidden_groups": 3, "inner_group_num": 3}


def towers(side: Side) -> st.SearchStrategy[dict[str, Any]]:
    """Any tower, every switch that its rules honour on or off."""
    return st.one_of([st.fixed_dictionaries(fields_of(side, model_type)) for model_type in supported(side)])


def fields_of(side: Side, model_type: str) -> dict[str, st.SearchStrategy[Any]]:
    defaults = tower_defaults(side, model_type)
    silent = configs.check_tower_config(side, {"model_type": model_type})
    choices = {name: values[0] for name, values in configs.required_choices(silent).items()}
    required = {**configs.required_fields(silent), **choices}.items()
    fields: dict[str, st.SearchStrategy[Any]] = {name: st.just(value) for name, value in required}
    fields["model_type"] = st.just(model_type)
    depths = st.lists(st.integers(0, 3), min_size=len(defaults.get("hidden_sizes", [0])), max_size=4)
    for name, default in defaults.items():
        if isinstance(default, bool):
            fields[name] = st.booleans()
        elif name == "vocab_size" and default is None:  # a model without is none
            fields[name] = st.integers(1, 99)
        elif name in COUNTS:
            fields[name] = st.integers(1, COUNTS[name])
        elif name in ("depths", "num_hidden_layers"):
            # Positions between layers need one.
            least = int("use_mid_position_embeddings" in defaults)
            fields[name] = depths if name == "depths" else st.integers(least, 11)
    return fields


@pytest.mark.parametrize("languages", [["en.XX"], ["en", "en"], [""], ["a/b"], [1], "en_XX", None], ids=str)
def test_names_that_no_tensor_can_have(languages: Any, names: Any) -> None:
    """They would be levels of a tensor's name, as separators, or the same one twice."""
    with pytest.raises(
        ConfigError, match=r"languages = .* cannot be right \(names\(languages\): expected (different|a list)"
    ):
        names.tower_config({"model_type": "xmod", "languages": languages, "default_language": "en"})


@given(towers("vision"), towers("text"))
def test_any_config_gives_a_bijection(vision: dict[str, Any], text: dict[str, Any]) -> None:
    """Ten layers and more, too: no name is the beginning of another one's."""
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

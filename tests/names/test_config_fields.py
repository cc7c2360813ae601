"""Every field of every config class is honoured, irrelevant or refused, and starts from transformers' own default."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pytest

from converter.errors import UnsupportedOption, UnsupportedTower
from converter.names.rule_files import SIDES, rule_file, supported, tower_files
from converter.names.towers import tower_rules
from tests.towers import TOWERS

VERSIONS = ["4.57.6", "5.24.0"]


def family_of(tower_type: str, names: Any) -> Mapping[str, Any]:
    rules = tower_rules(names.side_of(tower_type), tower_type)
    assert rules is not None
    return rules


def sorted_out(tower_type: str, names: Any) -> tuple[dict[str, Any], dict[str, Any], set[str]]:
    """What the rule files say of each field: (honoured with default, refused with rule, irrelevant)."""
    config, common = family_of(tower_type, names)["config"], rule_file("common")["config"]
    honoured = {**config["honoured"], **config.get("defaults", {}).get(tower_type, {})}
    refused = {n: r for n, r in {**common["refused"], **config.get("refused", {})}.items() if n not in honoured}
    return honoured, refused, {*config["irrelevant"], *common["irrelevant"]} - set(honoured) - set(refused)


def plain(default: Any) -> Any:
    return None if default == "none" else default


@pytest.mark.parametrize("version", VERSIONS)
def test_every_field_is_sorted(tower_type: str, version: str, names: Any) -> None:
    honoured, refused, irrelevant = sorted_out(tower_type, names)
    fields = set(names.table("config_fields")[version][tower_type])
    assert fields - set(honoured) - set(refused) - irrelevant == set()


@pytest.mark.parametrize("version", VERSIONS)
def test_defaults_are_those_of_transformers(tower_type: str, version: str, names: Any) -> None:
    honoured, refused, _ = sorted_out(tower_type, names)
    said = names.table("config_fields")[version][tower_type]
    if not said and version != VERSIONS[-1]:
        pytest.skip("it does not know the tower")
    assert honoured.keys() <= said.keys()
    filled = [name for name in TOWERS[tower_type].filled if said[name] is None]
    found = {n: None if n in filled else plain(default) for n, default in honoured.items()}
    assert found == {n: said[n] for n in honoured}
    stated = {n: plain(rule["default"]) for n, rule in refused.items() if n in said}
    assert stated == {n: said[n] for n in stated}


def test_no_field_is_sorted_twice(tower_type: str, names: Any) -> None:
    config = family_of(tower_type, names)["config"]
    groups = [*config["honoured"], *config["irrelevant"], *config.get("refused", {})]
    assert len(set(groups)) == len(groups)
    common = [*rule_file("common")["config"]["irrelevant"], *rule_file("common")["config"]["refused"]]
    assert len(set(common)) == len(common)


def test_refused_fields_are_of_some_version_or_common(tower_type: str, names: Any) -> None:
    """A misspelled field would refuse nothing."""
    known = {field for version in VERSIONS for field in names.table("config_fields")[version][tower_type]}
    undeclared = set(TOWERS[tower_type].undeclared)
    assert not undeclared & known
    assert set(family_of(tower_type, names)["config"].get("refused", {})) <= known | undeclared


def test_fields_that_may_be_left_out(tower_type: str, names: Any) -> None:
    """Without any field the defaults of the model type hold, not those of another one in the same file."""
    tower = names.tower_config({"model_type": tower_type}).tower(names.side_of(tower_type))
    fields = tower.fields
    said = names.table("config_fields")["5.24.0"][tower_type]
    filled = {name: fields[name] for name in TOWERS[tower_type].filled}
    required = {name: value for name, value in names.required(tower).items() if name in fields}
    assert dict(fields) == {name: said[name] for name in fields} | filled | required


def test_refused_values(tower_type: str, names: Any) -> None:
    _, refused, _ = sorted_out(tower_type, names)
    side = names.side_of(tower_type)
    assert {"is_decoder", "add_cross_attention", "is_encoder_decoder", "pruned_heads"} <= set(refused)
    for name, rule in refused.items():
        value = {"absolute": "relative_key", False: True, True: False}.get(str_or_bool(rule["default"]), {"0": [1]})
        expected = f"config.json: {side}_config.{name} is {value!r}, supported is "
        with pytest.raises(UnsupportedOption, match=re.escape(expected) + ".*: " + re.escape(rule["reason"])):
            names.tower_config({"model_type": tower_type, name: value})
        for allowed in [plain(rule["default"]), *rule["allowed"]]:
            names.tower_config({"model_type": tower_type, name: allowed})


def str_or_bool(default: Any) -> str | bool:
    return default if isinstance(default, str | bool) else ""


def test_refusal_in_full(names: Any) -> None:
    with pytest.raises(UnsupportedOption) as raised:
        names.tower_config({"model_type": "siglip_vision_model", "vision_use_head": False})
    assert str(raised.value) == (
        "config.json: vision_config.vision_use_head is False, supported is True: "
        "without its pooling head this tower has no pooled output to project"
    )


def test_tower_without_rules(names: Any) -> None:
    with pytest.raises(
        UnsupportedTower, match=r"text_config\.model_type 'no-tower' has no rules; supported are albert"
    ):
        names.tower_config({"model_type": "no-tower"})


def test_field_of_no_version_is_reported(tower_type: str, names: Any) -> None:
    side = names.side_of(tower_type)
    config = names.tower_config({"model_type": tower_type, "a_field_from_the_future": 1, "architectures": ["X"]})
    assert config.tower(side).unknown == ("a_field_from_the_future",)


def test_rule_files_serve_what_they_say(names: Any) -> None:
    for side in SIDES:
        towers = tower_files(side)
        assert list(towers) == sorted(towers)
        for model_type, family in towers.items():
            rules = rule_file(f"towers/{family}")
            assert (model_type in supported(side)) == (model_type not in rules.get("family_only", ()))
            assert rules["side"] == side
            assert model_type in rules["model_types"]
            assert {towers.get(served) for served in rules["model_types"]} == {family}

"""The families whose towers are their own, against the tables that transformers wrote: names, order, configs."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from converter import pt2tf
from converter.checkpoints.memory import read_state_dict
from converter.conversion.plan import Plan, make_plan
from converter.errors import ConfigError, PlanError, UnsupportedOption
from converter.names.configs import check_config
from converter.names.families import JOINED, families
from converter.names.rule_files import SIDES, rule_file
from tests.tiny import OF_FAMILIES, Arrays, tensors_of

if TYPE_CHECKING:
    from tests.names.conftest import Whole

VERSIONS = ["4.57.6", "5.24.0"]


def test_every_family_has_a_table(names: Any) -> None:
    assert set(names.table("families")) == set(families()) - {JOINED}


# --- names ----------------------------------------------------------------------------------------------------------


def test_pytorch_names_and_shapes(whole: Whole, said_by_rules: Any) -> None:
    found, _, buffers = said_by_rules(whole.rules)
    stored = {name: shape for name, shape in whole.said["pt_v4"].items() if name in buffers}
    assert {**found, **stored} == whole.said["pt_v4"]
    assert {name: buffers[name] for name in stored} == stored


@pytest.mark.parametrize("dialect", ["v5", "v5_live"])
def test_names_of_newer_writers(whole: Whole, dialect: str, said_by_rules: Any) -> None:
    spelled = whole.rules.dialects.get(dialect, {})
    found, _, _ = said_by_rules(whole.rules)
    assert {spelled.get(name, name): shape for name, shape in whole.said[f"pt_{dialect}"].items()} == found


def test_live_tensors_are_the_saved_ones(whole: Whole) -> None:
    """By value, not by name."""
    live, saved = (whole.rules.dialects.get(dialect, {}) for dialect in ("v5_live", "v5"))
    for name, other in whole.said["pt_v5_of_live"].items():
        assert live.get(name, name) == saved.get(other, other)


def test_tensorflow_names_shapes_and_order(whole: Whole, said_by_rules: Any) -> None:
    if whole.said["tf"] is None:
        assert "tf" not in whole.config.family.in_transformers_4
        return
    root = f"{whole.config.family.root_scope}/"
    assert all(name.startswith(root) and name.endswith(":0") for name in whole.said["tf"])
    expected = {name.removeprefix(root).removesuffix(":0"): shape for name, shape in whole.said["tf"].items()}
    _, found, _ = said_by_rules(whole.rules)
    assert list(found.items()) == list(expected.items())


def test_the_scale_and_what_lies_outside_the_towers(whole: Whole) -> None:
    family = whole.config.family
    outside = [rule.name for rule in whole.rules.tensors if not rule.name.startswith(("vision_model.", "text_model."))]
    assert {name.removesuffix(".weight").removesuffix(".bias") for name in outside} == set(family.order) - set(SIDES)
    assert family.scale in outside
    assert all(any(rule.name.startswith(f"{side}_model.") for rule in whole.rules.tensors) for side in SIDES)


def test_the_odd_config_has_no_default(whole: Whole) -> None:
    """A field at its default would be of no use: a rule that forgets it would still agree."""
    given = whole.said["config"]
    fields = whole.config.family.rules["config"]["honoured"]
    assert set(fields) <= set(given)
    assert [name for name, default in fields.items() if given[name] == default] == []
    for side in SIDES:
        tower = whole.config.tower(side)
        said, honoured = given[f"{side}_config"], tower.rules["config"]["honoured"]
        assert [name for name in said if name in honoured and said[name] == honoured[name]] == []
        assert set(shape_fields(tower.rules)) & set(honoured) <= set(said)


def shape_fields(rules: Mapping[str, Any]) -> list[str]:
    expressions = [*rules["repeat"].values()]
    expressions += [str(axis) for module in [*rules["module"], *rules.get("buffer", ())] for axis in module["shape"]]
    return [name for text in expressions for name in re.findall(r"[a-z_]\w*", text)]


# --- config ---------------------------------------------------------------------------------------------------------


def sorted_out(whole: Whole) -> tuple[dict[str, Any], set[str], set[str]]:
    """What the family's file and the common one say of each field: (honoured with default, refused, irrelevant)."""
    config, common = whole.config.family.rules["config"], rule_file("common")["config"]
    refused = {*common["refused"], *config.get("refused", {})} - set(config["honoured"])
    return config["honoured"], refused, {*config["irrelevant"], *common["irrelevant"]} - set(config["honoured"])


@pytest.mark.parametrize("version", VERSIONS)
def test_every_field_is_sorted(whole: Whole, version: str) -> None:
    honoured, refused, irrelevant = sorted_out(whole)
    assert set(whole.said["fields"][version]) - set(honoured) - refused - irrelevant == set()
    assert not set(honoured) & (refused | irrelevant)


@pytest.mark.parametrize("version", VERSIONS)
def test_defaults_are_those_of_transformers(whole: Whole, version: str) -> None:
    honoured, _, _ = sorted_out(whole)
    assert honoured == {name: whole.said["fields"][version][name] for name in honoured}


def test_no_field_is_sorted_twice(whole: Whole) -> None:
    config = whole.config.family.rules["config"]
    groups = [*config["honoured"], *config["irrelevant"], *config.get("refused", {})]
    assert len(set(groups)) == len(groups)


def test_fields_that_are_not_known_are_reported(whole: Whole) -> None:
    config = whole.said["config"] | {"a_field_from_the_future": 1, "architectures": ["X"]}
    config["text_config"] = config["text_config"] | {"another": 2}
    assert check_config(config).unknown_fields == ("a_field_from_the_future", "text_config.another")
    assert whole.config.unknown_fields == ()


READ = [(family, case) for family in families() if family != JOINED for case in (
    "both sections", "silence", "null", "vision alone", "text alone", "dictionaries alone",
    "empty dictionaries over sections", "null dictionaries over sections", "one field over sections",
    "a dictionary over one section", "sections of another model type", "sections of no model type",
)]  # fmt: skip


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(("family", "case"), READ, ids=["-".join(pair) for pair in READ])
def test_sections_are_read_as_transformers_reads_them(family: str, case: str, version: str, names: Any) -> None:
    """Silence means defaults; a dictionary replaces a section, its own defaults included, where transformers does so."""
    said = names.table("families")[family]["read"][case]
    read = check_config(said["config"])
    for side in SIDES:
        tower, theirs = read.tower(side), said[version][f"{side}_config"]
        both = [said[other][f"{side}_config"] for other in VERSIONS]
        # AltCLIP: silence is 0.1 in transformers 4 and 0 in 5, which counts in training alone; ours trains with 5's.
        moved = {name for name in tower.fields if both[0][name] != both[1][name]}
        assert moved <= {"attention_probs_dropout_prob"}
        read_by_all = set(tower.fields) if version == VERSIONS[-1] else set(tower.fields) - moved
        assert {name: tower.fields[name] for name in read_by_all} == {name: theirs[name] for name in read_by_all}
        assert tower.model_type == families()[family].default_tower(side)


def test_every_case_is_tried(names: Any) -> None:
    for family, said in names.table("families").items():
        assert [case for of, case in READ if of == family] == list(said["read"])
        both, over = (said["read"][name] for name in ("both sections", "one field over sections"))
        if families()[family].config_dicts:  # else transformers reads them alike
            assert both[VERSIONS[0]] != over[VERSIONS[0]]
        assert both[VERSIONS[0]] != said["read"]["silence"][VERSIONS[0]]


@pytest.mark.parametrize("value", [[1], "x", 3, [], 0, False])
@pytest.mark.parametrize("section", ["vision_config", "text_config", "vision_config_dict", "text_config_dict"])
def test_a_section_that_is_no_object(whole: Whole, section: str, value: Any) -> None:
    if section.endswith("_dict") and not whole.config.family.config_dicts:
        pytest.skip("these are not read")
    with pytest.raises(ConfigError) as caught:
        check_config(whole.said["config"] | {section: value})
    assert str(caught.value) == f"config.json: {section} is {value!r}, expected an object; correct the config"


def test_what_a_section_is_refused_for_stays_refused(whole: Whole) -> None:
    """transformers 5 keeps fields that it does not know as the class' own where a dictionary replaces the others."""
    config = whole.said["config"]
    config = config | {"text_config": config["text_config"] | {"is_decoder": True}, "text_config_dict": {}}
    with pytest.raises(
        UnsupportedOption, match=r"^config\.json: text_config\.is_decoder is True, supported is False: "
    ):
        check_config(config)


# --- spellings ------------------------------------------------------------------------------------------------------


def nested(name: str) -> str:
    return re.sub(r"^(vision|text)_model\.", r"\1_model.\1_model.", name)


SPELLINGS: dict[str, tuple[Callable[[str], str], str]] = {
    "plain": (str, "v4"),
    "module": (lambda name: f"module.{name}", "v4, module."),
    "compiled": (lambda name: f"_orig_mod.{name}", "v4, _orig_mod."),
    "both": (lambda name: f"module._orig_mod.{name}", "v4, module. _orig_mod."),
}


def planned(family: str, tensors: Arrays) -> Plan:
    return make_plan(read_state_dict(tensors), check_config(OF_FAMILIES[family]), "tf")


OWN = [family for family in OF_FAMILIES if family != JOINED]


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("family", OWN)
def test_spellings(family: str, spelling: str) -> None:
    rename, dialect = SPELLINGS[spelling]
    tensors = tensors_of(OF_FAMILIES[family])
    made = planned(family, {rename(name): array for name, array in tensors.items()})
    assert made.dialects == {dialect: len(tensors)}
    assert {tensor.canonical: tensor.source.name for tensor in made.tensors} == {name: rename(name) for name in tensors}


@pytest.mark.parametrize("before", ["", "module.", "_orig_mod."])
@pytest.mark.parametrize(
    "family", [family for family in OWN if "nested" in families()[family].rules.get("dialects", {})]
)
def test_names_as_a_dual_encoder_nests_them(family: str, before: str) -> None:
    tensors = tensors_of(OF_FAMILIES[family])
    made = planned(family, {before + nested(name): array for name, array in tensors.items()})
    assert {tensor.canonical: tensor.source.name for tensor in made.tensors} == {n: before + nested(n) for n in tensors}
    spelled = f", {before}" if before else ""
    towers = sum(nested(name) != name for name in tensors)
    assert made.dialects == {f"nested{spelled}": towers, f"v4{spelled}": len(tensors) - towers}


@pytest.mark.parametrize("family", OWN)
def test_other_spellings_are_refused(family: str) -> None:
    for rename in (lambda name: f"model{name}", lambda name: nested(nested(name)), str.upper):
        with pytest.raises(PlanError, match="missing "):
            planned(family, {rename(name): array for name, array in tensors_of(OF_FAMILIES[family]).items()})


def test_two_names_of_one_tensor() -> None:
    tensors = tensors_of(OF_FAMILIES["clip"])
    name = "vision_model.post_layernorm.bias"
    with pytest.raises(PlanError) as caught:
        planned("clip", tensors | {nested(name): tensors[name]})
    assert str(caught.value) == f"{name} and {nested(name)} are two names of one tensor, {name}; remove one of them"


@pytest.mark.parametrize("before", ["", "module."])
@pytest.mark.parametrize("as_nested", [False, True])
@pytest.mark.parametrize("family", OWN)
def test_buffers_are_dropped_with_a_reason(
    family: str, as_nested: bool, before: str, whole_buffers: Any, tmp_path: Path
) -> None:
    """Checkpoints from before transformers 4.31 hold position_ids of both towers."""
    rename = nested if as_nested and "nested" in families()[family].rules.get("dialects", {}) else str
    buffers = whole_buffers(family)
    assert buffers
    held = {before + rename(name): array for name, array in (tensors_of(OF_FAMILIES[family]) | buffers).items()}
    made = planned(family, held)
    assert {item.name for item in made.dropped} == {before + rename(name) for name in buffers}
    assert all(item.reason for item in made.dropped)
    assert len(made.tensors) == len(held) - len(buffers)
    some, ids = next((before + rename(name), array) for name, array in buffers.items())
    with pytest.raises(PlanError) as caught:
        planned(family, held | {some: ids[:, :-1]})
    assert str(caught.value) == (
        f"{some} has shape {ids[:, :-1].shape}, the config says {ids.shape}; use the config.json saved with these weights"
    )
    with pytest.raises(PlanError) as caught:
        pt2tf(held | {some: ids[:, ::-1].copy()}, tmp_path / "out", config=OF_FAMILIES[family])
    assert str(caught.value) == (
        f"{some}: holds other values than transformers computes. Leaving it out would change the model; keep it in PyTorch"
    )


@pytest.fixture
def whole_buffers() -> Callable[[str], Arrays]:
    """The buffers of a family's tiny config as old checkpoints hold them, by canonical name."""
    from converter.names.buffers import BUFFERS
    from converter.names.rules import compile_rules

    def made(family: str) -> Arrays:
        rules = compile_rules(check_config(OF_FAMILIES[family])).buffers
        found = {rule.names["pt"]: np.asarray(BUFFERS[str(rule.compute)](rule.fields)) for rule in rules}
        assert all(array.size == math.prod(array.shape) > 1 for array in found.values())
        return found

    return made

"""fixtures/towers.toml has every tower that the rules have, and configs behind which no mistake can hide."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest

from converter.names.rule_files import SIDES, supported
from converter.names.towers import class_in_transformers_4, tower_defaults, tower_rules
from tests.names import refresh_fixtures
from tests.names.refresh_fixtures import refresh_fields, unanswered
from tests.names.test_odd_configs import used_fields
from tests.towers import FILE, IN_TENSORFLOW_4, TOWERS, read_towers

ROOT = Path(__file__).resolve().parents[2]
# On in training only; the tests of dropout try them.
DROPOUTS = ("hidden_dropout_prob", "attention_probs_dropout_prob", "attention_dropout", "drop_path_rate")
# Left as they are in the config itself: pictures have three channels; the others are rows or copies that variants change, or
# a width that has to be another's.
IN_VARIANTS = {"num_channels", "inner_group_num", "relative_attention_num_buckets", "projection_dim"}
# Numbers that shapes do not depend on, or that may well be alike.
NO_SIZES = (
    "num_hidden_layers",
    "num_hidden_groups",
    "num_register_tokens",
    "num_first_full_attention_layers",
    "num_last_full_attention_layers",
)


def test_it_has_the_towers_of_the_rules() -> None:
    for side in SIDES:
        assert [t for t, tower in TOWERS.items() if tower.side == side] == list(supported(side)), (
            "fixtures/towers.toml and rename_rules/towers name the same model types, in order"
        )


def test_it_and_the_rules_agree_on_tensorflow_4() -> None:
    said = {t: class_in_transformers_4(side, t, "tf") for side in SIDES for t in supported(side)}
    assert {t: name for t, name in said.items() if name} == {t: TOWERS[t].tensorflow["class"] for t in IN_TENSORFLOW_4}


def test_relatives_are_towers_of_one_side() -> None:
    for tower in TOWERS.values():
        if tower.like is not None:
            assert TOWERS[tower.like].side == tower.side
            assert TOWERS[tower.like].like is None, "the relative is checked in full"


def test_every_honoured_field_is_tried(tower_type: str) -> None:
    """At another value than transformers' default, in the config or in a variant."""
    tower = TOWERS[tower_type]
    defaults = tower_defaults(tower.side, tower_type)
    tried = {
        name
        for changes in (tower.config, *(variant.changes for variant in tower.variants))
        for name, value in changes.items()
        if name in defaults and value != defaults[name]
    }
    assert set(defaults) - tried - set(DROPOUTS) == set()


def test_sizes_tell_each_other_apart(tower_type: str) -> None:
    """Every field that shapes depend on is set, none to its default, and no two sizes are alike."""
    tower = TOWERS[tower_type]
    defaults, rules = tower_defaults(tower.side, tower_type), tower_rules(tower.side, tower_type)
    assert rules is not None
    used = (used_fields(rules) & set(defaults)) | {"num_attention_heads"} & set(defaults)
    sizes = {name for name in used - IN_VARIANTS if type(defaults[name]) is int}
    assert sizes <= set(tower.config), "every size is set"
    assert not {name for name in sizes if tower.config[name] == defaults[name]}
    values = [tower.config[name] for name in sizes.difference(NO_SIZES)]
    assert len(set(values)) == len(values), sorted(sizes)


def test_no_two_towers_are_of_one_width() -> None:
    """Given for another, a tower's config never fits."""
    widths = [
        tower.config[name]
        for tower in TOWERS.values()
        for name in ("hidden_size", "vocab_size")
        if name in tower.config
    ]
    assert len(set(widths)) == len(widths)


def test_keras_files_hold_the_classes_that_the_rules_name(tower_type: str) -> None:
    rules = tower_rules(TOWERS[tower_type].side, tower_type)
    assert rules is not None
    module, name = rules.get("keras_of", {}).get(tower_type, rules["keras"]).split(":")
    text = (ROOT / "converter" / "models" / "towers" / f"{module}.py").read_text("utf-8")
    assert re.search(rf"^class {name}\(", text, re.MULTILINE)


def test_nothing_in_the_package_knows_a_tower_by_name() -> None:
    """Its rules do, and the file that runs it."""
    package, types = ROOT / "converter", {t for side in SIDES for t in supported(side)}
    knowing = {
        f"{path.relative_to(package)}: {node.value}"
        for path in package.rglob("*.py")
        if path.parent != package / "models" / "towers"
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Constant) and node.value in types
    }
    assert knowing == set()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (("main_layer = \"beit\"\n", ""), TypeError, "main_layer"),
        (("main_layer = \"beit\"\n", "main_layer = \"beit\"\nmain_lair = 1\n"), TypeError, "main_lair"),
        (("[vision.beit.config]", "[vision.beit.confog]"), TypeError, "confog"),
    ],
)  # fmt: skip
def test_an_entry_that_is_not_whole_is_a_mistake(
    change: tuple[str, str], error: type[Exception], message: str, tmp_path: Path
) -> None:
    (tmp_path / "towers.toml").write_text(FILE.read_text("utf-8").replace(*change), "utf-8")
    with pytest.raises(error, match=message):
        read_towers(tmp_path / "towers.toml")


def test_tables_of_transformers_have_every_tower(names: Any) -> None:
    missing = set(TOWERS) - {case["config"]["model_type"] for case in names.table("odd").values()}
    assert not missing, "tests/names/refresh_fixtures.py adds them"


def test_only_cases_without_an_answer_are_asked_for() -> None:
    cases = {"answered": {"config": {}, "pt_v5": {}}, "by hand": {"config": {}}}
    assert unanswered(cases, everything=False) == {"by hand": {"config": {}}}
    assert unanswered(cases, everything=True) == cases


def test_an_answer_of_another_version_is_no_addition(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(refresh_fixtures, "NAMES", tmp_path)
    file = tmp_path / "config_fields.json"
    file.write_text('{"4.57.6": {"bert": {"a": 1}}, "5.24.0": {"bert": {}}}', "utf-8")
    refresh_fields([("4.57.6", {"albert": {"b": 2}}), ("5.24.0", {})], everything=False)
    added = {"4.57.6": {"albert": {"b": 2}, "bert": {"a": 1}}, "5.24.0": {"bert": {}}}
    assert json.loads(file.read_text("utf-8")) == added
    with pytest.raises(SystemExit, match=r"^config_fields.json is of transformers 4.57.6 and 5.24.0; ask for --all"):
        refresh_fields([("4.57.6", {}), ("5.25.0", {})], everything=False)
    assert json.loads(file.read_text("utf-8")) == added

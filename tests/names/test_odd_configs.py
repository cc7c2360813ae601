"""The rules under unusual configs, against the tables that transformers wrote for them."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pytest

from converter.names.towers import tower_defaults, tower_rules
from converter.names.wrappers import respell
from tests.names.tables import parts_joined

if TYPE_CHECKING:
    from tests.names.conftest import Odd

# 4.x made room for a class token that Swin does not have, and could not run with it.
SWIN_4 = "vision_model.embeddings.position_embeddings"


def test_pytorch_4_names_and_shapes(odd: Odd, said_by_rules: Any) -> None:
    if not isinstance(odd.said["pt_v4"], dict):
        pytest.skip(odd.said["pt_v4"])
    expected = dict(odd.said["pt_v4"])
    found, _, buffers = said_by_rules(odd.tower)
    stored = {name: shape for name, shape in expected.items() if name in buffers}
    assert {name: buffers[name] for name in stored} == stored
    if odd.said["config"].get("use_absolute_embeddings"):
        batch, rows, width = expected[SWIN_4]
        expected[SWIN_4] = [batch, rows - 1, width]
    assert {**found, **stored} == expected


def test_tensorflow_names_shapes_and_order(odd: Odd, said_by_rules: Any) -> None:
    expected = odd.said["tf"]
    if not isinstance(expected, dict):
        pytest.skip(expected or "transformers 4.x has no such tower in TensorFlow")
    _, found, _ = said_by_rules(odd.tower)
    assert found == expected
    # What it has although the config asks for none is put behind another tensor when a file is written.
    placed = {rule.names["tf"]: rule.after["tf"] for rule in odd.tower.buffers if "tf" in rule.after}
    order = list(expected)
    assert [order[order.index(name) - 1] for name in placed] == list(placed.values())
    assert [name for name in found if name not in placed] == [name for name in expected if name not in placed]


@pytest.mark.parametrize("dialect", ["v5", "v5_live"])
def test_names_of_newer_writers(odd: Odd, dialect: str, said_by_rules: Any) -> None:
    spelled = odd.rules.dialects.get(dialect)
    expected, wholes = parts_joined(odd.rules, odd.said[f"pt_{dialect}"])
    canonical = {name if name in wholes or not spelled else spelled[name]: shape for name, shape in expected.items()}
    found, _, buffers = said_by_rules(odd.tower)
    assert canonical == found | {name: buffers[name] for name in canonical if name in buffers}


def test_live_tensors_are_the_saved_ones(odd: Odd) -> None:
    """By value, not by name: exchanging query and key in a dialect would leave the set of names as it is."""
    tables = {dialect: odd.rules.dialects.get(dialect, {}) for dialect in ("v5", "v5_live")}
    splits = odd.config.tower(odd.side).rules.get("dialects", {}).get("v5_live", {}).get("split", ())
    once = odd.rules.kept_once
    for live, saved in odd.said["pt_v5_of_live"].items():
        if live in once:
            assert once[live] == once[saved]
            continue
        if isinstance(saved, str):
            saved, _ = respell(saved)
            assert tables["v5_live"].get(live, live) == tables["v5"].get(saved, saved)
            continue
        whole, first_row = saved
        number = first_row // odd.said["pt_v5_live"][live][0]
        spelled = next((other for other, name in tables["v5_live"].items() if name == whole), whole)
        parts = [
            re.sub(split["part_of"], split["parts"][number], spelled)
            for split in splits
            if re.search(split["part_of"], spelled)
        ]
        assert parts == [live]


def test_nested_and_saved_names_differ_by_one_level(odd: Odd) -> None:
    """4.x's and 5.x's names of CLIP and SigLIP; other towers have one name in both."""
    scope = f"{odd.side}_model."
    names = odd.rules.dialects.get("v5", {}).items()
    for saved, nested in names:
        if nested.startswith(scope):
            assert saved == scope + nested.removeprefix(scope).removeprefix(scope)


def test_every_field_that_names_or_shapes_depend_on_is_tried(tower_type: str, names: Any) -> None:
    """A field that a rule file's expressions use has a case with another value than the default."""
    cases = [case["config"] for case in names.table("odd").values() if case["config"]["model_type"] == tower_type]
    honoured = tower_defaults(names.side_of(tower_type), tower_type)
    used = used_fields(rules_of(tower_type, names)) & set(honoured)
    assert used
    tried = {field for field in used for case in cases if case.get(field, honoured[field]) != honoured[field]}
    assert used == tried


def rules_of(tower_type: str, names: Any) -> Mapping[str, Any]:
    rules = tower_rules(names.side_of(tower_type), tower_type)
    assert rules is not None
    return rules


def used_fields(rules: Mapping[str, Any]) -> set[str]:
    """Every name in the expressions of a rule file."""
    expressions = [*rules["repeat"].values(), rules.get("width", "hidden_size")]
    for module in [*rules["module"], *rules.get("buffer", ())]:
        expressions += [str(axis) for axis in module["shape"]]
        expressions += [module[key] for key in ("when", "bias") if key in module]
    return {n.id for text in expressions for n in ast.walk(ast.parse(text, mode="eval")) if isinstance(n, ast.Name)}


def test_both_values_of_every_condition_are_tried(tower_type: str, names: Any) -> None:
    """A module that a config can leave out is there in one table of transformers, and is missing in another."""
    rules = rules_of(tower_type, names)
    conditions = {m[key] for m in rules["module"] for key in ("when", "bias") if key in m}
    honoured = tower_defaults(names.side_of(tower_type), tower_type)
    cases = [case["config"] for case in names.table("odd").values() if case["config"]["model_type"] == tower_type]
    for field in {name for text in conditions for name in re.findall(r"[a-z_]+", text)} & set(honoured):
        assert len({repr(case.get(field, honoured[field])) for case in cases}) > 1, field

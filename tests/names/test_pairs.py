"""The rules of every pair against the tables that transformers wrote: exactly those names, shapes and order."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import pytest

from converter.names.configs import check_config
from converter.names.families import joined
from converter.names.rules import compile_tower
from tests.names.tables import canonical_names, pair_fields, parts_joined, table

if TYPE_CHECKING:
    from tests.names.conftest import Pair


def by_root_layer(names: Iterable[str]) -> dict[str, list[str]]:
    """Names by their first component, in order: within one, TensorFlow's order counts."""
    layers: dict[str, list[str]] = {}
    for name in names:
        layers.setdefault(name.split("/")[0], []).append(name)
    return layers


def test_pytorch_names_and_shapes(pair: Pair, said_by_rules: Any) -> None:
    expected = canonical_names(pair.said)
    found, _, buffers = said_by_rules(pair.rules)
    stored = {name: shape for name, shape in expected.items() if name in buffers}
    assert {**found, **stored} == expected
    assert {name: buffers[name] for name in stored} == stored
    assert not set(found) & set(buffers)


def test_tensorflow_names_shapes_and_order(pair: Pair, said_by_rules: Any, names: Any) -> None:
    if pair.said["tf"] is None:
        pytest.skip("transformers 4.x has no such pair in TensorFlow")
    expected = {n.removeprefix(names.root_scope).removesuffix(":0"): s for n, s in pair.said["tf"].items()}
    _, found, _ = said_by_rules(pair.rules)
    assert found == expected
    assert by_root_layer(found) == by_root_layer(expected)


@pytest.mark.parametrize("dialect", ["v5", "v5_live"])
def test_names_of_newer_writers(pair: Pair, dialect: str, said_by_rules: Any) -> None:
    expected, wholes = parts_joined(pair.rules, pair.said[f"pt_{dialect}"])
    spelled = pair.rules.dialects.get(dialect)
    canonical = {name if name in wholes or not spelled else spelled[name]: shape for name, shape in expected.items()}
    found, _, buffers = said_by_rules(pair.rules)
    assert canonical == found | {name: buffers[name] for name in canonical if name in buffers}


def test_no_name_stands_for_two_tensors(pair: Pair) -> None:
    rules = pair.rules
    for side in ("pt", "tf"):
        assert len({rule.names[side] for rule in rules.tensors}) == len(rules.tensors)
    for spelled in rules.dialects.values():
        stored = {rule.names["pt"] for rule in rules.tensors} | {
            rule.names["pt"] for rule in rules.buffers if "pt" in rule.names
        }
        assert set(spelled.values()) == stored
        assert len(spelled) == len(stored)


def test_tables_tell_towers_apart(pair: Pair) -> None:
    """The same names under another tower's config would make every test above worthless."""
    others = [
        rule.names["pt"]
        for rule in pair.rules.tensors
        if not rule.names["pt"].startswith(("vision_model.", "text_model."))
    ]
    assert others == ["visual_projection.weight", "text_projection.weight", "logit_scale"]
    assert any(rule.names["pt"].startswith("vision_model.") for rule in pair.rules.tensors)
    assert any(rule.names["pt"].startswith("text_model.") for rule in pair.rules.tensors)


def test_every_supported_tower_has_a_table(names: Any) -> None:
    tested = {model_type for pair in names.table("pairs") for model_type in pair.split("+")}
    assert tested == set(names.tower_types())


@pytest.mark.parametrize("model_type", list(table("standalone_tf")))
def test_towers_that_tensorflow_has_alone(model_type: str, said_by_rules: Any) -> None:
    """Their names lie below the tower's scope; CLIP's table lacks the main layer that a dual encoder has."""
    main_layer = {"clip_text_model": "clip/"}.get(model_type, "")
    expected = table("standalone_tf")[model_type]
    expected = {f"text_model/{main_layer}{n.removesuffix(':0')}": shape for n, shape in expected.items()}
    tower = compile_tower(check_config(pair_fields(f"clip_vision_model+{model_type}")).text, joined())
    _, found, _ = said_by_rules(tower)
    assert list(found.items()) == list(expected.items())

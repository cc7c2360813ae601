"""The rules under unusual configs, against the tables that transformers wrote for them."""

from __future__ import annotations

import ast
import re

import pytest

from converter.configs import rule_file

# 4.x made room for a class token that Swin does not have, and could not run with it.
SWIN_4 = "vision_model.embeddings.position_embeddings"
# TensorFlow's ViT and DeiT have these biases whatever qkv_bias says.
ALWAYS_BIASED = re.compile(r"vision_model/(vit|deit)/encoder/layer_\._\d+/attention/attention/(query|key|value)/bias")


def test_pytorch_4_names_and_shapes(odd, said_by_rules):
    expected = dict(odd.said["pt_v4"])
    found, _, buffers = said_by_rules(odd.tower)
    stored = {name: shape for name, shape in expected.items() if name in buffers}
    assert {name: buffers[name] for name in stored} == stored
    if odd.said["config"].get("use_absolute_embeddings"):
        batch, rows, width = expected[SWIN_4]
        expected[SWIN_4] = [batch, rows - 1, width]
    assert {**found, **stored} == expected


def test_tensorflow_names_shapes_and_order(odd, said_by_rules):
    expected = odd.said["tf"]
    if not isinstance(expected, dict):
        pytest.skip(expected or "transformers 4.x has no such tower in TensorFlow")
    _, found, _ = said_by_rules(odd.tower)
    if odd.said["config"].get("qkv_bias") is False:
        # Written last here, as every buffer is.
        expected = dict(sorted(expected.items(), key=lambda item: ALWAYS_BIASED.fullmatch(item[0]) is not None))
    assert list(found) == list(expected)
    assert found == expected


@pytest.mark.parametrize("dialect", ["v5", "v5_live"])
def test_names_of_newer_writers(odd, dialect, said_by_rules):
    spelled = odd.rules.dialects.get(dialect)
    expected = join_parts(odd, dialect, odd.said[f"pt_{dialect}"])
    canonical = {spelled[name] if spelled else name: shape for name, shape in expected.items()}
    found, _, _ = said_by_rules(odd.tower)
    assert canonical == found


def join_parts(odd, dialect, expected):
    """Puts the parts of a tensor that a dialect cuts up together again, as the rule file says."""
    tower = odd.config.tower(odd.side)
    for split in tower.rules.get("dialects", {}).get(dialect, {}).get("split", ()):
        first, *others = split["parts"]
        joined = {}
        for name, shape in expected.items():
            if first in name:
                parts = [shape, *(expected[name.replace(first, other)] for other in others)]
                assert parts == [shape] * len(parts)
                whole = name.replace(first, split["part_of"].replace("\\", ""))
                joined[whole] = list(shape)
                joined[whole][split["axis"]] *= len(parts)
            elif not any(other in name for other in others):
                joined[name] = shape
        expected = joined
    return expected


def test_every_field_that_names_or_shapes_depend_on_is_tried(tower_type, names):
    """A field that a rule file's expressions use has a case with another value than the default."""
    cases = [case["config"] for case in names.table("odd").values() if case["config"]["model_type"] == tower_type]
    family = rule_file("dual_encoder")["towers"][names.side_of(tower_type)][tower_type]
    rules = rule_file(family)
    honoured = {**rules["config"]["honoured"], **rules["config"].get("defaults", {}).get(tower_type, {})}
    used = used_fields(rules) & set(honoured)
    assert used
    tried = {field for field in used for case in cases if case.get(field, honoured[field]) != honoured[field]}
    assert used == tried


def used_fields(rules):
    """Every name in the expressions of a rule file."""
    expressions = [*rules["repeat"].values(), rules.get("width", "hidden_size")]
    for module in [*rules["module"], *rules.get("buffer", ())]:
        expressions += [str(axis) for axis in module["shape"]]
        expressions += [module[key] for key in ("when", "bias") if key in module]
    return {n.id for text in expressions for n in ast.walk(ast.parse(text, mode="eval")) if isinstance(n, ast.Name)}


def test_both_values_of_every_condition_are_tried(tower_type, names):
    """A module that a config can leave out is there in one table of transformers, and is missing in another."""
    family = rule_file("dual_encoder")["towers"][names.side_of(tower_type)][tower_type]
    conditions = {m[key] for m in rule_file(family)["module"] for key in ("when", "bias") if key in m}
    honoured = rule_file(family)["config"]["honoured"]
    cases = [case["config"] for case in names.table("odd").values() if case["config"]["model_type"] == tower_type]
    for field in {name for text in conditions for name in re.findall(r"[a-z_]+", text)} & set(honoured):
        assert len({repr(case.get(field, honoured[field])) for case in cases}) > 1, field

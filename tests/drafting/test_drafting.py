"""Drafts of the towers of today are their rule files again, but for what differences.toml explains."""

from __future__ import annotations

import fnmatch
import os
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from converter.names.expressions import evaluate
from converter.names.rule_files import rule_file
from converter.names.towers import tower_rules
from tests.drafting.checking import wrong
from tests.drafting.comparing import differences
from tests.drafting.dialects import _spelled, dialect, splits
from tests.drafting.draft import Run
from tests.drafting.drafting import draft
from tests.drafting.expressions import condition, fit
from tests.drafting.finishing import merged
from tests.drafting.observe import counted
from tests.drafting.observing import _canonical, ask, observe
from tests.drafting.templates import learn
from tests.drafting.writing import text_of
from tests.torture import FULL
from tests.towers import ROUND, TOWERS

TABLE = tomllib.loads(Path(__file__).with_name("differences.toml").read_text("utf-8"))
ROWS = TABLE["difference"]
BASE = {
    "image_size": 21,
    "patch_size": 7,
    "width": 30,
    "ratio": 2.5,
    "depths": [2, 2],
    "window": 3,
    "flag": True,
    "other": None,
}
PATCHES = "(pair(image_size)[0] // pair(patch_size)[0]) * (pair(image_size)[1] // pair(patch_size)[1]) + 1"


def changed(*changes: dict[str, Any]) -> list[dict[str, Any]]:
    return [BASE, *({**BASE, **change} for change in changes)]


@pytest.mark.parametrize(
    ("expression", "fields", "changes"),
    [
        (
            PATCHES,
            ["image_size", "patch_size"],
            [{"image_size": [42, 21]}, {"image_size": [42, 63]}, {"patch_size": [3, 7]}],
        ),
        ("(image_size // patch_size) ** 2 + 1", ["image_size", "patch_size"], [{"image_size": 42}, {"patch_size": 3}]),
        ("(2 * window - 1) ** 2", ["window"], [{"window": 4}, {"window": 6}]),
        ("int(width * ratio)", ["width", "ratio"], [{"width": 33}, {"ratio": 3.1}, {"ratio": 1.7, "width": 31}]),
        ("2 * ((int(width * 3 * 2 / 3) + 7) // 8 * 8)", ["width"], [{"width": 33}, {"width": 77}, {"width": 52}]),
        ("other if other else width", ["other", "width"], [{"other": 7}, {"width": 31}]),
        (
            "3 * width if flag else width",
            ["flag", "width"],
            [{"flag": False}, {"width": 31}, {"flag": False, "width": 40}],
        ),
        (
            "width * 2 ** (len(depths) - 1)",
            ["width", "depths"],
            [{"depths": [2, 2, 2]}, {"depths": [3]}, {"width": 31}],
        ),
    ],
)
def test_the_expression_of_sizes_is_found(expression: str, fields: list[str], changes: list[dict[str, Any]]) -> None:
    """Or one that gives the same, of configs that it was not found from, too."""
    found = fit([(env, evaluate(expression, env)) for env in changed(*changes)], fields)
    assert found is not None
    unseen = {**BASE, **{k: v for change in changes for k, v in change.items()}}
    assert evaluate(found, unseen) == evaluate(expression, unseen)


def test_no_expression_is_made_up() -> None:
    assert fit([({"a": n}, n**5 % 97) for n in range(2, 30)], ["a"]) is None
    assert condition([({"a": True}, True), ({"a": True}, False)], ["a"]) is None


def test_a_condition_is_found() -> None:
    samples = [
        ({**env, "stage": stage}, stage < len(env["depths"]) - 1)
        for env in changed({"depths": [1, 1, 1]})
        for stage in (0, 1)
    ]
    assert condition(samples, ["depths"], ["stage"]) == "stage < len(depths) - 1"
    assert (
        condition([({"a": a, "b": b}, a and not b) for a in (True, False) for b in (True, False)], ["a", "b"])
        == "a and not b"
    )


def test_numbers_that_count_are_told_from_places() -> None:
    names = {f"layers.{n}.mlp.{k}.weight": ([1], kind) for n in (0, 1) for k, kind in ((0, "Linear"), (2, "LayerNorm"))}
    assert learn([names]).split("layers.1.mlp.2.weight") == ("layers.{layer}.mlp.2.weight", (1,))
    crossed = {
        f"layers.{n}.mlp.{k}.weight": ([1], ("Linear", "LayerNorm")[(n + k) % 2]) for n in (0, 1) for k in (0, 1)
    }
    assert learn([crossed]).split("layers.1.mlp.1.weight") == ("layers.{layer}.mlp.1.weight", (1,))
    alike = {f"layers.{n}.mlp.{k}.weight": ([1], "Linear") for n in (0, 1) for k in (0, 2)}
    assert learn([alike]).split("layers.1.mlp.2.weight") == ("layers.{layer}.mlp.2.weight", (1,))


def test_what_only_some_layers_have_keeps_its_place() -> None:
    seen = [
        ("stem", ()),
        *((name, (stage,)) for stage, names in enumerate(("be", "abe", "abc")) for name in names),
        ("head", ()),
    ]
    assert merged(seen) == ["stem", "a", "b", "c", "e", "head"]


def test_lists_follow_the_field_that_counts_them() -> None:
    config = {
        "num_stages": 3,
        "depths": [2, 1, 2],
        "widths": [6, 10, 26],
        "image_size": [9, 8, 7],
        "others": [1],
        "on": True,
    }
    assert counted(config, "num_stages", 2) == {"depths": [2, 1], "widths": [6, 10]}
    assert counted(config, "num_stages", 4) == {"depths": [2, 1, 2, 2], "widths": [6, 10, 26, 26]}
    assert counted(config, "on", True) == counted(config, "num_stages", 0) == {}


def test_sizes_that_are_the_same_change_together() -> None:
    config = {"hidden_size": 140, "embedding_size": 140, "vocab_size": 211, "width": 140, "image_size": [140, 140]}
    assert counted(config, "hidden_size", 280) == {"embedding_size": 280}
    assert counted(config, "vocab_size", 422) == {}


def test_parts_of_a_tensor_may_be_on_other_levels() -> None:
    whole = "encoder.layers.{}.mixer.Wqkv.weight"
    live = {
        f"layers.{n}.attn.{part}.weight": [whole.format(n), 9 * at] for n in range(2) for at, part in enumerate("qkv")
    }
    live |= {
        "layers.0.mlp.gate.weight": ["layers.0.mlp.both.weight", 0],
        "layers.0.mlp.up.weight": ["layers.0.mlp.both.weight", 20],
    }
    joint, gated = splits([Run((), {}, {}, {"live": dict(reversed(live.items()))})])
    pattern, parts = joint["part_of"], joint["parts"]
    assert [re.sub(pattern, part, f"text_model.{whole.format(11)}") for part in parts] == [
        f"text_model.layers.11.attn.{part}.weight" for part in "qkv"
    ]
    assert gated == {"part_of": r"\.both\.", "parts": [".gate.", ".up."], "axis": 0}


def test_what_transformers_4_cannot_run_has_the_shapes_of_5() -> None:
    names = {"embeddings.table": [[50, 4], "Embeddings", True], "index": [[3], "", False]}
    new = {"width": 4, "saved": {"embeddings.table": [49, 4]}, "live": {}}
    assert _canonical({"names": names, "width": 4}, new) == names
    shapes = {name: shape for name, (shape, *_) in _canonical({"names": names, "width": None}, new).items()}
    assert shapes == {"embeddings.table": [49, 4], "index": [3]}


def test_a_dialect_is_found_and_reaches_nothing_else() -> None:
    pairs = {"encoder.layer.0.attention.attention.query.weight": "layers.0.attention.q_proj.weight",
             "encoder.layer.0.attention.attention.table": "layers.0.table",
             "encoder.layer.0.output.weight": "layers.0.output.weight", "norm.weight": "norm.weight"}  # fmt: skip
    said = {"saved": {name: [] for name in pairs}, "live": {live: name for name, live in pairs.items()}}
    run = Run((), {}, {name: ([], "", True) for name in pairs}, said)
    found = dialect([run], "live")
    assert {name: _spelled(name, found) for name in pairs} == pairs


ASKED = TABLE["held"] if FULL else [TABLE["held"][ROUND % len(TABLE["held"])]]


@pytest.mark.torch
@pytest.mark.compat
@pytest.mark.slow
@pytest.mark.parametrize("model_type", ASKED)
def test_a_tower_of_today_is_drafted_again(model_type: str) -> None:
    tower = TOWERS[model_type]
    seen = observe(tower, os.environ["COMPAT_PYTHON"], sys.executable)
    assert len(seen.held_out) > 5
    drafted = tomllib.loads(text_of(draft(tower, seen), model_type))
    ours = tower_rules(tower.side, model_type)
    assert ours is not None
    found = differences(drafted, ours, model_type)
    refused = {**rule_file("common")["config"]["refused"], **ours["config"].get("refused", {})}
    runs = [
        run
        for run in (*seen.learnt, *seen.held_out)
        if all(
            run.config.get(name, rule["default"]) in (*rule["allowed"], rule["default"], None)
            for name, rule in refused.items()
        )
    ]
    assert len(runs) > 20
    found |= {
        f"wrong about {config}": said[0] for config, said in wrong({**ours, "model_types": [model_type]}, runs).items()
    }
    assert {what: how for what, how in found.items() if not explained(model_type, what, how)} == {}


def explained(model_type: str, what: str, how: str) -> bool:
    """Whether one row of the table, and only one, is about a difference."""
    rows = [
        row
        for row in ROWS
        if model_type in row.get("towers", [model_type])
        and fnmatch.fnmatch(what, row["what"])
        and fnmatch.fnmatch(how, row["how"])
    ]
    assert len(rows) < 2, f"{what}: two rows of differences.toml"
    return bool(rows)


def test_every_row_has_a_reason_and_its_towers() -> None:
    assert all(len(row["why"]) > 15 for row in ROWS)
    assert {tower for row in ROWS for tower in row.get("towers", [])} | set(TABLE["held"]) <= set(TOWERS)


@pytest.mark.torch
@pytest.mark.slow
@pytest.mark.parametrize(
    "config", [{"model_type": "no-model"}, {"model_type": "bert", "auto_map": {"AutoModel": "evil--x.Evil"}}]
)
def test_only_models_of_transformers_itself_are_built(config: dict[str, Any]) -> None:
    bert = {"model_type": "bert", **TOWERS["bert"].config}
    found = ask(sys.executable, "tables", configs=[bert, {**bert, **config}])["tables"]
    assert "error" not in found[0]
    assert found[1] == {"error": f"ValueError: {config['model_type']} is no model of transformers itself"}

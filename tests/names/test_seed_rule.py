"""tf_to_pt_weight_rename to the letter, and the rule that conversions use, with its inverse."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.names.configs import TwoTowerConfig, check_config
from converter.names.scopes import erase_main_layer, restore_main_layer, tf_to_pt_weight_rename
from tests.tiny import FIXTURES

TABLES: dict[str, Any] = json.loads((FIXTURES / "names" / "pairs.json").read_text("utf-8"))
ROOT = "tf_vision_text_dual_encoder_model/"


def seed(tf_weight: str) -> tuple[str]:
    """The method of transformers 4.x, as it was."""
    if "vision_model" in tf_weight:
        if tf_weight.count("vision_model") == 1:
            return (re.sub(r"vision_model\..*?\.", "vision_model.", tf_weight),)
        if tf_weight.count("vision_model") == 2:
            return (re.sub(r"vision_model\..*?\.vision_model", "vision_model.vision_model", tf_weight),)
        raise ValueError(tf_weight)
    if "text_model" in tf_weight:
        return (re.sub(r"text_model\..*?\.", "text_model.", tf_weight),)
    return (tf_weight,)


def dotted(tf_name: str) -> str:
    return tf_name.removeprefix(ROOT).removesuffix(":0").replace("_._", ".").replace("/", ".")


def names() -> list[str]:
    return [dotted(name) for said in TABLES.values() if said["tf"] for name in said["tf"]]


@pytest.mark.parametrize(
    ("tf", "pt"),
    [
        ("vision_model.vit.embeddings.cls_token", "vision_model.embeddings.cls_token"),
        ("vision_model.clip.vision_model.embeddings.x", "vision_model.vision_model.embeddings.x"),
        ("text_model.bert.pooler.dense.kernel", "text_model.pooler.dense.kernel"),
        ("text_model.clip.text_model.embeddings.x", "text_model.text_model.x"),
        ("visual_projection.kernel", "visual_projection.kernel"),
        ("logit_scale", "logit_scale"),
        ("", ""),
    ],
)
def test_rename(tf: str, pt: str) -> None:
    assert tf_to_pt_weight_rename(tf) == (pt,)


def test_rename_refuses_three_scopes() -> None:
    with pytest.raises(ValueError, match=r"^Unexpected weight name .*: it holds vision_model 3 times$"):
        tf_to_pt_weight_rename("vision_model.vision_model.vision_model.x")


parts = st.sampled_from(["vision_model", "text_model", "bert", "clip", "x", "layer", "0", "", "weight"])


@given(st.lists(parts, max_size=9).map(".".join))
def test_rename_is_the_seed(name: str) -> None:
    if name.count("vision_model") > 2:
        with pytest.raises(ValueError):
            seed(name)
        with pytest.raises(ValueError):
            tf_to_pt_weight_rename(name)
    else:
        assert tf_to_pt_weight_rename(name) == seed(name)


def test_rename_is_the_seed_on_every_name() -> None:
    found = names()
    assert len(found) > 500
    assert [tf_to_pt_weight_rename(name) for name in found] == [seed(name) for name in found]


def test_conversions_replace_the_first_match_only() -> None:
    assert erase_main_layer("text_model.clip.text_model.embeddings.x") == "text_model.text_model.embeddings.x"


def config(pair: str) -> TwoTowerConfig:
    vision, text = pair.split("+")
    towers = {"vision_config": {"model_type": vision}, "text_config": {"model_type": text}}
    return check_config({"model_type": "vision-text-dual-encoder", **towers})


@pytest.mark.parametrize("towers", [pair for pair, said in TABLES.items() if said["tf"]])
def test_restore_is_the_inverse(towers: str) -> None:
    checked = config(towers)
    for name in TABLES[towers]["tf"]:
        tf = dotted(name)
        assert restore_main_layer(erase_main_layer(tf), checked) == tf


def test_restore_needs_the_right_config() -> None:
    name = "text_model.bert.pooler.dense.kernel"
    assert restore_main_layer(erase_main_layer(name), config("vit+roberta")) == "text_model.roberta.pooler.dense.kernel"

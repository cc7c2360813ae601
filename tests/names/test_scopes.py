"""The scope rules and their inverse, on every name of every pair."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from converter.names.scopes import erase_main_layer, restore_main_layer, tf_to_pt_weight_rename
from tests.names.tables import canonical_names
from tests.towers import TOWERS

if TYPE_CHECKING:
    from tests.names.conftest import Odd, Pair


def dotted(tf_name: str) -> str:
    """A TensorFlow name as the scope rules take it: list levels and slashes as dots."""
    return re.sub(r"_\._", ".", tf_name).replace("/", ".")


def test_main_layers(pair: Pair) -> None:
    for tower, model_type in ((pair.config.vision, pair.vision), (pair.config.text, pair.text)):
        assert tower.rules["main_layer"] == TOWERS[model_type].main_layer


# What the last component of a TensorFlow name is called in PyTorch, where they differ.
LEAVES = {"kernel": "weight", "gamma": "weight", "beta": "bias", "embeddings": "weight"}
LEAVES |= {"moving_mean": "running_mean", "moving_variance": "running_var"}


def test_erase_gives_the_pytorch_name(pair: Pair) -> None:
    """Up to the leaves: so no two tensors of one shape have been exchanged."""
    for rule in pair.rules.tensors:
        tower = pair.vision if rule.name.startswith("vision_model.") else pair.text
        assert in_pytorch(rule.names["tf"], tower) == rule.names["pt"]


def test_erase_gives_the_pytorch_name_of_odd_configs(odd: Odd) -> None:
    for rule in odd.tower.tensors:
        assert in_pytorch(rule.names["tf"], odd.said["config"]["model_type"]) == rule.names["pt"]


def in_pytorch(tf_name: str, tower: str) -> str:
    module, dot, leaf = erase_main_layer(dotted(tf_name)).rpartition(".")
    return module + dot + {**LEAVES, **TOWERS[tower].leaves}.get(leaf, leaf)


def test_restore_is_the_inverse_of_erase(pair: Pair) -> None:
    for rule in pair.rules.tensors:
        name = dotted(rule.names["tf"])
        assert restore_main_layer(erase_main_layer(name), pair.config) == name


def test_erase_is_the_inverse_of_restore(pair: Pair) -> None:
    for name in canonical_names(pair.said):
        restored = restore_main_layer(name, pair.config)
        assert erase_main_layer(restored) == name
        in_tower = name.startswith(("vision_model.", "text_model."))
        assert (restored != name) == in_tower


def test_seed_rule_agrees_but_for_texts_with_a_level_more(pair: Pair) -> None:
    """The original replaces every match: on a text tower like CLIP's it takes one level too many."""
    for rule in pair.rules.tensors:
        name = dotted(rule.names["tf"])
        if name.count("text_model.") > 1:
            assert tf_to_pt_weight_rename(name) != (erase_main_layer(name),)
        else:
            assert tf_to_pt_weight_rename(name) == (erase_main_layer(name),)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("vision_model.vit.embeddings.cls_token", "vision_model.embeddings.cls_token"),
        ("vision_model.clip.vision_model.post_layernorm.beta", "vision_model.vision_model.post_layernorm.beta"),
        ("text_model.bert.embeddings.LayerNorm.gamma", "text_model.embeddings.LayerNorm.gamma"),
        ("text_model.clip.text_model.embeddings.x.y", "text_model.text_model.x.y"),
        ("visual_projection.kernel", "visual_projection.kernel"),
        ("logit_scale", "logit_scale"),
    ],
)
def test_seed_rule_to_the_letter(given: str, expected: str) -> None:
    assert tf_to_pt_weight_rename(given) == (expected,)


def test_seed_rule_refuses_a_third_level() -> None:
    with pytest.raises(ValueError, match=r"Unexpected weight name vision_model\.vision_model\.vision_model\.x"):
        tf_to_pt_weight_rename("vision_model.vision_model.vision_model.x")

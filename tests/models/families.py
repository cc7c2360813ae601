"""What the tests of models run over, in one table: every family, and configs of each at odd values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from transformers import AltCLIPConfig, ChineseCLIPConfig, CLIPConfig, MetaClip2Config, Siglip2Config, SiglipConfig

from tests.compat.towers import FAMILIES as OF_FAMILIES
from tests.models import reference
from tests.towers import SIDES

OWN = {"projection_dim": reference.PROJECTION, "logit_scale_init_value": 1.7}


def _whole(kind: Any, tables: dict[str, dict[str, Any]], own: dict[str, Any], changes: dict[str, Any]) -> Any:
    """A config of a family with towers of its own; ``vision_x=`` and ``text_x=`` change the towers' fields."""
    towers = {
        f"{side}_config": table
        | {n.removeprefix(f"{side}_"): value for n, value in changes.items() if n.startswith(f"{side}_")}
        for side, table in tables.items()
    }
    rest = {name: value for name, value in changes.items() if not name.startswith(("vision_", "text_"))}
    return kind(**towers, **{**own, **rest})


def _tiny(family: str, kind: Any, own: dict[str, Any], changes: dict[str, Any]) -> Any:
    whole = OF_FAMILIES[family]
    return _whole(kind, {side: whole[f"{side}_config"] for side in SIDES}, own, changes)


def make_clip(**changes: Any) -> Any:
    """A CLIP config; ``vision_x=`` and ``text_x=`` change the towers' fields, others its own."""
    tables = {"vision": reference.VISION["clip_vision_model"], "text": reference.TEXT["clip_text_model"]}
    return _whole(CLIPConfig, tables, OWN, changes)


def make_siglip(**changes: Any) -> Any:
    """A SigLIP config, changed as a CLIP config is."""
    return _tiny("siglip", SiglipConfig, {}, changes)


def make_siglip2(**changes: Any) -> Any:
    """A SigLIP 2 config of any resolution, changed as a CLIP config is."""
    return _tiny("siglip2", Siglip2Config, {}, changes)


def make_metaclip(**changes: Any) -> Any:
    """A MetaCLIP 2 config, changed as a CLIP config is."""
    return _tiny("metaclip_2", MetaClip2Config, OWN, changes)


def make_altclip(**changes: Any) -> Any:
    """An AltCLIP config, changed as a CLIP config is."""
    return _tiny("altclip", AltCLIPConfig, OWN, changes)


def make_chinese(**changes: Any) -> Any:
    """A Chinese-CLIP config, changed as a CLIP config is."""
    return _tiny("chinese_clip", ChineseCLIPConfig, OWN, changes)


def make_dual(**changes: Any) -> Any:
    """A dual encoder config of the two plainest towers."""
    return reference.make_config("vit", "bert", **changes)


class Kind(NamedTuple):
    """One family.

    Attributes:
        make: a config of it, with changes.
        torch: its class in PyTorch.
        keras: its class here.
        query: how the weights of queries end in PyTorch, and those of keys.
        vision_dropout: fields that drop something in the vision tower.
        text_dropout: in the text tower.
        no_dropout: fields that drop nothing anywhere.
        learns: to what share a few steps bring the loss of four pairs.
        pools_the_last: whether a text is its last position, padding or not.
        deeper: a text tower with more layers and a vision tower of other width inside, and what names and shapes differ.
    """

    make: Callable[..., Any]
    torch: str
    keras: str
    query: tuple[str, str]
    vision_dropout: dict[str, float]
    text_dropout: dict[str, float]
    no_dropout: dict[str, float]
    deeper: tuple[dict[str, int], str, str]
    learns: float = 0.7
    pools_the_last: bool = False


FAMILIES = {
    "vision-text-dual-encoder": Kind(
        make_dual,
        "VisionTextDualEncoderModel",
        "TFVisionTextDualEncoderModel",
        ("query.weight", "key.weight"),
        {"vision_hidden_dropout_prob": 0.2},
        {"text_hidden_dropout_prob": 0.1},
        {"text_hidden_dropout_prob": 0.0, "text_attention_probs_dropout_prob": 0.0},
        (
            {"text_num_hidden_layers": 3, "vision_intermediate_size": 53},
            "text_model/bert/encoder/layer_._2/",
            "vision_model/vit/encoder/layer_._0/intermediate/dense/kernel",
        ),
    ),
    "clip": Kind(
        make_clip,
        "CLIPModel",
        "TFCLIPModel",
        ("q_proj.weight", "k_proj.weight"),
        {"vision_attention_dropout": 0.2},
        {"text_attention_dropout": 0.2},
        {},
        (
            {"text_num_hidden_layers": 4, "vision_intermediate_size": 53},
            "clip/text_model/encoder/layers_._3/",
            "clip/vision_model/encoder/layers_._0/mlp/fc1/kernel",
        ),
    ),
    "metaclip_2": Kind(
        make_metaclip,
        "MetaClip2Model",
        "TFMetaClip2Model",
        ("q_proj.weight", "k_proj.weight"),
        {"vision_attention_dropout": 0.2},
        {"text_attention_dropout": 0.2},
        {},
        (
            {"text_num_hidden_layers": 4, "vision_intermediate_size": 53},
            "metaclip_2/text_model/encoder/layers_._3/",
            "metaclip_2/vision_model/encoder/layers_._0/mlp/fc1/kernel",
        ),
    ),
    "altclip": Kind(
        make_altclip,
        "AltCLIPModel",
        "TFAltCLIPModel",
        ("query.weight", "key.weight"),
        {"vision_attention_dropout": 0.2},
        {"text_hidden_dropout_prob": 0.1},
        {"text_hidden_dropout_prob": 0.0, "text_attention_probs_dropout_prob": 0.0},
        (
            {"text_num_hidden_layers": 3, "vision_intermediate_size": 53},
            "altclip/text_model/roberta/encoder/layer_._2/",
            "altclip/vision_model/encoder/layers_._0/mlp/fc1/kernel",
        ),
    ),
    "chinese_clip": Kind(
        make_chinese,
        "ChineseCLIPModel",
        "TFChineseCLIPModel",
        ("query.weight", "key.weight"),
        {"vision_attention_dropout": 0.2},
        {"text_hidden_dropout_prob": 0.1},
        {"text_hidden_dropout_prob": 0.0, "text_attention_probs_dropout_prob": 0.0},
        (
            {"text_num_hidden_layers": 3, "vision_intermediate_size": 53},
            "chinese_clip/text_model/encoder/layer_._2/",
            "chinese_clip/vision_model/encoder/layers_._0/mlp/fc1/kernel",
        ),
    ),
    "siglip": Kind(
        make_siglip,
        "SiglipModel",
        "TFSiglipModel",
        ("q_proj.weight", "k_proj.weight"),
        {"vision_attention_dropout": 0.2},
        {"text_attention_dropout": 0.2},
        {},
        (
            {"text_num_hidden_layers": 4, "vision_intermediate_size": 53},
            "siglip/text_model/encoder/layers_._3/",
            "siglip/vision_model/encoder/layers_._0/mlp/fc1/kernel",
        ),
        # A sigmoid for each pair starts at the loss of its own bias.
        learns=0.8,
        pools_the_last=True,
    ),
    "siglip2": Kind(
        make_siglip2,
        "Siglip2Model",
        "TFSiglip2Model",
        ("q_proj.weight", "k_proj.weight"),
        {"vision_attention_dropout": 0.2},
        {"text_attention_dropout": 0.2},
        {},
        (
            {"text_num_hidden_layers": 4, "vision_intermediate_size": 53},
            "siglip2/text_model/encoder/layers_._3/",
            "siglip2/vision_model/encoder/layers_._0/mlp/fc1/kernel",
        ),
        learns=0.8,
        pools_the_last=True,
    ),
}
# By the family's name and what is odd: quick_gelu and gelu, or sides that leave a rest. The end of a CLIP text is the highest
# id, or the first of its own.
WHOLES: dict[str, dict[str, Any]] = {
    "clip": {},
    "clip of old files": {
        "vision_hidden_act": "gelu",
        "text_hidden_act": "gelu",
        "text_eos_token_id": 2,
        "vision_image_size": 22,
        "vision_patch_size": 4,
    },
    "clip of other sizes": {
        "vision_hidden_size": 30,
        "vision_num_attention_heads": 5,
        "vision_num_channels": 1,
        "text_hidden_size": 42,
        "text_num_attention_heads": 7,
        "text_num_hidden_layers": 2,
        "text_eos_token_id": 500,
        "projection_dim": 11,
    },
    "metaclip_2": {},
    "metaclip_2 with an end of its own": {"text_eos_token_id": 70, "text_hidden_act": "gelu", "projection_dim": 12},
    "altclip": {},
    "altclip of other sizes": {
        "vision_image_size": 22,
        "vision_patch_size": 4,
        "text_hidden_size": 42,
        "text_num_attention_heads": 7,
        "text_hidden_act": "relu",
        "text_layer_norm_eps": 0.2,
        "text_type_vocab_size": 3,
        "text_project_dim": 33,
        "text_pad_token_id": 3,
    },
    "chinese_clip": {},
    "chinese_clip of other sizes": {
        "vision_image_size": 22,
        "vision_patch_size": 4,
        "text_hidden_size": 42,
        "text_num_attention_heads": 7,
        "text_hidden_act": "relu",
        "text_layer_norm_eps": 0.2,
        "text_type_vocab_size": 3,
    },
    "siglip": {},
    "siglip of other sizes": {
        "vision_hidden_size": 30,
        "vision_num_attention_heads": 5,
        "vision_num_channels": 1,
        "vision_image_size": 22,
        "vision_patch_size": 4,
        "vision_hidden_act": "gelu",
        "text_hidden_size": 42,
        "text_num_attention_heads": 7,
        "text_num_hidden_layers": 2,
        "text_hidden_act": "quick_gelu",
        "text_projection_size": 30,
        "text_layer_norm_eps": 0.2,
    },
    "siglip2": {},
    "siglip2 of other sizes": {
        "vision_hidden_size": 30,
        "vision_num_attention_heads": 5,
        "vision_num_channels": 1,
        "vision_num_patches": 16,
        "vision_patch_size": 3,
        "vision_hidden_act": "gelu",
        "text_hidden_size": 42,
        "text_num_attention_heads": 7,
        "text_num_hidden_layers": 2,
        "text_hidden_act": "quick_gelu",
        "text_projection_size": 30,
        "text_layer_norm_eps": 0.2,
    },
}


def config_of(name: str) -> Any:
    """A config by its name: of ``WHOLES``, or ``vision+text`` for a dual encoder of these towers."""
    if name in WHOLES:
        return FAMILIES[name.partition(" ")[0]].make(**WHOLES[name])
    return reference.make_config(*name.split("+"))


def kind_of(config: Any) -> Kind:
    """The family of a config."""
    return FAMILIES[config.model_type]


def prefix_of(model: Any, side: str) -> str:
    """What the names of a tower's variables begin with in a model."""
    return f"{reference.MAIN_LAYERS.get(model.config.model_type, '')}{side}_model/"

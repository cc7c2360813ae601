"""Tiny towers for the compatibility tests: the configs of fixtures/towers.toml, by what transformers 4.57.6 can do."""

from __future__ import annotations

from typing import Any

from tests.towers import IN_TENSORFLOW_4, TOWERS

Configs = dict[str, dict[str, Any]]

# Chat templates of a tokenizer: the first is saved beside its vocabulary, the others in a folder.
TEMPLATES = {"default": "{{ messages }}", "rag": "{{ documents }}", "tool_use": "{{ tools }} è"}
ALL_VISION: Configs = {t: dict(tower.config) for t, tower in TOWERS.items() if tower.side == "vision"}
ALL_TEXT: Configs = {t: dict(tower.config) for t, tower in TOWERS.items() if tower.side == "text"}
# What transformers 4.57.6 can have in a dual encoder in TensorFlow; it can have all in PyTorch.
VISION: Configs = {t: config for t, config in ALL_VISION.items() if t in IN_TENSORFLOW_4}
TEXT: Configs = {t: config for t, config in ALL_TEXT.items() if t in IN_TENSORFLOW_4}

PROJECTION = 26
LOGIT_SCALE = 3.31  # exp of it is 27.4; the default would be 2.6592

# Every family but the dual encoder, whose towers are above: a tiny config of each.
# The first version of transformers that has a family, where 4.46 has not.
SINCE = {"metaclip_2": "4.56", "siglip2": "4.49"}
FAMILIES: dict[str, dict[str, Any]] = {
    "clip": {
        "projection_dim": 22,
        "logit_scale_init_value": 2.6592,
        "vision_config": VISION["clip_vision_model"],
        "text_config": ALL_TEXT["clip_text_model"],
    },
    "metaclip_2": {
        "projection_dim": 22,
        "logit_scale_init_value": 2.6592,
        "vision_config": VISION["clip_vision_model"],
        "text_config": {**ALL_TEXT["clip_text_model"], "eos_token_id": 2},
    },
    "altclip": {
        "projection_dim": 22,
        "logit_scale_init_value": 2.6592,
        "vision_config": VISION["clip_vision_model"],
        "text_config": {**TEXT["roberta"], "project_dim": 28},
    },
    "chinese_clip": {
        "projection_dim": 24,
        "logit_scale_init_value": 2.6592,
        "vision_config": VISION["clip_vision_model"],
        "text_config": TEXT["bert"],
    },
    "siglip": {
        "vision_config": ALL_VISION["siglip_vision_model"],
        "text_config": {
            "vocab_size": 83,
            # In transformers 4.46 the head is as wide as the tower, and both towers are.
            "hidden_size": ALL_VISION["siglip_vision_model"]["hidden_size"],
            "intermediate_size": 58,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
            "max_position_embeddings": 19,
        },
    },
    "siglip2": {
        "vision_config": {
            "hidden_size": 32,
            "intermediate_size": 52,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_patches": 25,
            "patch_size": 6,
        },
        "text_config": {
            "vocab_size": 89,
            "hidden_size": 32,
            "intermediate_size": 56,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
            "max_position_embeddings": 21,
        },
    },
}

"""Tiny towers for the compatibility tests: a config per type, no two sizes alike, so that no mix-up fits by chance."""

from __future__ import annotations

from typing import Any

VISION: dict[str, dict[str, Any]] = {
    "clip_vision_model": {
        "hidden_size": 24,
        "intermediate_size": 40,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "image_size": 20,
        "patch_size": 5,
        "projection_dim": 17,
    },
    "vit": {
        "hidden_size": 28,
        "intermediate_size": 46,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "image_size": 24,
        "patch_size": 8,
    },
    "deit": {
        "hidden_size": 36,
        "intermediate_size": 54,
        "num_hidden_layers": 3,
        "num_attention_heads": 6,
        "image_size": 30,
        "patch_size": 6,
    },
    "swin": {
        "embed_dim": 12,
        "depths": [2, 1],
        "num_heads": [2, 3],
        "window_size": 4,
        "mlp_ratio": 3.0,
        "image_size": 32,
        "patch_size": 2,
    },
}

TEXT: dict[str, dict[str, Any]] = {
    "bert": {
        "vocab_size": 97,
        "hidden_size": 32,
        "intermediate_size": 58,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 41,
        "type_vocab_size": 2,
    },
    "roberta": {
        "vocab_size": 101,
        "hidden_size": 20,
        "intermediate_size": 50,
        "num_hidden_layers": 2,
        "num_attention_heads": 5,
        "max_position_embeddings": 43,
        "type_vocab_size": 1,
        "pad_token_id": 1,
    },
    "xlm-roberta": {
        "vocab_size": 103,
        "hidden_size": 44,
        "intermediate_size": 62,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "max_position_embeddings": 47,
        "type_vocab_size": 1,
        "pad_token_id": 1,
    },
    "camembert": {
        "vocab_size": 107,
        "hidden_size": 48,
        "intermediate_size": 66,
        "num_hidden_layers": 1,
        "num_attention_heads": 8,
        "max_position_embeddings": 39,
        "type_vocab_size": 1,
        "pad_token_id": 1,
    },
    "albert": {
        "vocab_size": 89,
        "embedding_size": 18,
        "hidden_size": 40,
        "intermediate_size": 70,
        "num_hidden_layers": 3,
        "num_attention_heads": 5,
        "max_position_embeddings": 37,
        "type_vocab_size": 2,
    },
}

# What transformers 4.57.6 cannot have in a TensorFlow dual encoder, but can in a PyTorch one.
ALL_VISION: dict[str, dict[str, Any]] = VISION | {
    "beit": {
        "hidden_size": 52,
        "intermediate_size": 74,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "image_size": 28,
        "patch_size": 7,
        "use_relative_position_bias": True,
        "layer_scale_init_value": 0.3,
    },
    "dinov2": {
        "hidden_size": 56,
        "mlp_ratio": 2,
        "num_hidden_layers": 2,
        "num_attention_heads": 7,
        "image_size": 25,
        "patch_size": 5,
    },
    "dinov2_with_registers": {
        "hidden_size": 76,
        "mlp_ratio": 3,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_register_tokens": 5,
        "image_size": 33,
        "patch_size": 11,
    },
    "siglip_vision_model": {
        "hidden_size": 60,
        "intermediate_size": 78,
        "num_hidden_layers": 2,
        "num_attention_heads": 6,
        "image_size": 27,
        "patch_size": 9,
    },
}

ALL_TEXT: dict[str, dict[str, Any]] = TEXT | {
    "ernie": {
        "vocab_size": 131,
        "hidden_size": 80,
        "intermediate_size": 94,
        "num_hidden_layers": 2,
        "num_attention_heads": 5,
        "max_position_embeddings": 31,
        "type_vocab_size": 3,
        "use_task_id": True,
        "task_type_vocab_size": 4,
    },
    "mpnet": {
        "vocab_size": 109,
        "hidden_size": 64,
        "intermediate_size": 82,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 35,
        "pad_token_id": 1,
    },
    "clip_text_model": {
        "vocab_size": 113,
        "hidden_size": 68,
        "intermediate_size": 86,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 33,
        "bos_token_id": 111,
        "eos_token_id": 112,
        "pad_token_id": 1,
    },
    "xlm-roberta-xl": {
        "vocab_size": 127,
        "hidden_size": 72,
        "intermediate_size": 90,
        "num_hidden_layers": 2,
        "num_attention_heads": 6,
        "max_position_embeddings": 45,
        "type_vocab_size": 1,
        "pad_token_id": 1,
    },
}

PROJECTION = 26
LOGIT_SCALE = 3.31  # exp of it is 27.4; the default would be 2.6592

# Every family but the dual encoder, whose towers are above: a tiny config of each.
FAMILIES: dict[str, dict[str, Any]] = {
    "clip": {
        "projection_dim": 22,
        "logit_scale_init_value": 2.6592,
        "vision_config": VISION["clip_vision_model"],
        "text_config": ALL_TEXT["clip_text_model"],
    },
}

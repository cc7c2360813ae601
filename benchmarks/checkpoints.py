"""Makes the checkpoints that the benchmarks convert: `python benchmarks/checkpoints.py NAME FOLDER`.

CLIP + BERT of any size, seeded random float32 values, written tensor by tensor with NumPy alone.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

SEED = 11
CHUNK = 1 << 22  # elements


@dataclass(frozen=True, slots=True)
class Size:
    """What a benchmark checkpoint looks like.

    Attributes:
        vision: fields of the CLIP vision config.
        text: fields of the BERT config.
        projection: width of the common space.
    """

    vision: dict[str, int]
    text: dict[str, int]
    projection: int


SIZES = {
    # As clip-italian/clip-italian: CLIP ViT-B/32 and bert-base-italian-xxl, 401 tensors, 796 MB.
    "clip-italian": Size(
        {
            "hidden_size": 768,
            "intermediate_size": 3072,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "image_size": 224,
            "patch_size": 32,
        },
        {
            "vocab_size": 32102,
            "hidden_size": 768,
            "intermediate_size": 3072,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "max_position_embeddings": 512,
        },
        512,
    ),
    # The cost per tensor: 20,017 of them in 22 MB.
    "20000-tensors": Size(
        {
            "hidden_size": 16,
            "intermediate_size": 40,
            "num_hidden_layers": 625,
            "num_attention_heads": 2,
            "image_size": 32,
            "patch_size": 8,
        },
        {
            "vocab_size": 1000,
            "hidden_size": 24,
            "intermediate_size": 56,
            "num_hidden_layers": 625,
            "num_attention_heads": 3,
            "max_position_embeddings": 64,
        },
        20,
    ),
}


def tensors(size: Size) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Lists the nested PyTorch names and shapes of a checkpoint."""
    yield from _vision(size.vision)
    yield from _text(size.text)
    yield "visual_projection.weight", (size.projection, size.vision["hidden_size"])
    yield "text_projection.weight", (size.projection, size.text["hidden_size"])
    yield "logit_scale", ()


def _vision(config: dict[str, int]) -> Iterator[tuple[str, tuple[int, ...]]]:
    width, inner, patch = config["hidden_size"], config["intermediate_size"], config["patch_size"]
    root = "vision_model.vision_model"
    yield f"{root}.embeddings.class_embedding", (width,)
    yield f"{root}.embeddings.position_embedding.weight", (1 + (config["image_size"] // patch) ** 2, width)
    yield f"{root}.embeddings.patch_embedding.weight", (width, 3, patch, patch)
    yield from _module(f"{root}.pre_layrnorm", (width,))
    for layer in range(config["num_hidden_layers"]):
        at = f"{root}.encoder.layers.{layer}"
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            yield from _module(f"{at}.self_attn.{name}", (width, width))
        yield from _module(f"{at}.layer_norm1", (width,))
        yield from _module(f"{at}.mlp.fc1", (inner, width))
        yield from _module(f"{at}.mlp.fc2", (width, inner))
        yield from _module(f"{at}.layer_norm2", (width,))
    yield from _module(f"{root}.post_layernorm", (width,))


def _text(config: dict[str, int]) -> Iterator[tuple[str, tuple[int, ...]]]:
    width, inner = config["hidden_size"], config["intermediate_size"]
    yield "text_model.embeddings.word_embeddings.weight", (config["vocab_size"], width)
    yield "text_model.embeddings.position_embeddings.weight", (config["max_position_embeddings"], width)
    yield "text_model.embeddings.token_type_embeddings.weight", (2, width)
    yield from _module("text_model.embeddings.LayerNorm", (width,))
    for layer in range(config["num_hidden_layers"]):
        at = f"text_model.encoder.layer.{layer}"
        for name in ("self.query", "self.key", "self.value", "output.dense"):
            yield from _module(f"{at}.attention.{name}", (width, width))
        yield from _module(f"{at}.attention.output.LayerNorm", (width,))
        yield from _module(f"{at}.intermediate.dense", (inner, width))
        yield from _module(f"{at}.output.dense", (width, inner))
        yield from _module(f"{at}.output.LayerNorm", (width,))
    yield from _module("text_model.pooler.dense", (width, width))


def _module(name: str, shape: tuple[int, ...]) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", shape
    yield f"{name}.bias", shape[:1]


def write(size: Size, folder: Path) -> None:
    """Writes config.json and model.safetensors (header length, JSON header, tensors in order) into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    shapes = dict(sorted(tensors(size)))
    end = 0
    for name, shape in shapes.items():
        begin, end = end, end + 4 * math.prod(shape)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    noise = np.random.default_rng(SEED)
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for left in range(end // 4, 0, -CHUNK):
            file.write((0.04 * noise.standard_normal(min(left, CHUNK), dtype=np.float32)).tobytes())
    config = {
        "architectures": ["VisionTextDualEncoderModel"],
        "model_type": "vision-text-dual-encoder",
        "projection_dim": size.projection,
        "logit_scale_init_value": 2.6592,
        "vision_config": {"model_type": "clip_vision_model", **size.vision},
        "text_config": {"model_type": "bert", **size.text},
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write(SIZES[sys.argv[1]], Path(sys.argv[2]))

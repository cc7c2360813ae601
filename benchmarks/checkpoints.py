"""Makes the checkpoints that the benchmarks convert: `python benchmarks/checkpoints.py NAME FOLDER`.

CLIP + BERT of any size, full CLIP and other vision towers beside BERT, seeded random float32 values, written tensor by
tensor with NumPy alone. Names and shapes of other towers are those of the converter's rules. Prints how many tensors and
bytes they are, as JSON.
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

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from converter.names.configs import check_config  # noqa: E402
from converter.names.rules import compile_rules  # noqa: E402

SEED = 11
CHUNK = 1 << 22  # elements
LOGIT_SCALE = 2.6592
TRAINED_SCALE = 4.6  # near where CLIP's training ends


@dataclass(frozen=True, slots=True)
class Size:
    """What a benchmark checkpoint looks like.

    Attributes:
        vision: fields of the vision config: CLIP's by default.
        text: fields of the BERT config, of full CLIP those of its text tower.
        projection: width of the common space.
        shard: bytes of data per file at most; None for one file.
        full_clip: whether it is a CLIPModel instead of a dual encoder of CLIP's vision tower and BERT.
    """

    vision: dict[str, Any]
    text: dict[str, Any]
    projection: int
    shard: int | None = None
    full_clip: bool = False


SMALL_BERT = {
    "vocab_size": 1000,
    "hidden_size": 128,
    "intermediate_size": 512,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 64,
}
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
    # As openai/clip-vit-base-patch32, a full CLIPModel: 398 tensors, 605 MB.
    "clip-vit-b-32": Size(
        {
            "hidden_size": 768,
            "intermediate_size": 3072,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "image_size": 224,
            "patch_size": 32,
        },
        {
            "vocab_size": 49408,
            "hidden_size": 512,
            "intermediate_size": 2048,
            "num_hidden_layers": 12,
            "num_attention_heads": 8,
            "max_position_embeddings": 77,
            "eos_token_id": 49407,
        },
        512,
        full_clip=True,
    ),
    # As laion/CLIP-ViT-H-14-laion2B-s32B-b79K, a full CLIPModel: 3.94 GB.
    "clip-vit-h-14": Size(
        {
            "hidden_size": 1280,
            "intermediate_size": 5120,
            "num_hidden_layers": 32,
            "num_attention_heads": 16,
            "image_size": 224,
            "patch_size": 14,
            "hidden_act": "gelu",
        },
        {
            "vocab_size": 49408,
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "max_position_embeddings": 77,
            "eos_token_id": 49407,
            "hidden_act": "gelu",
        },
        1024,
        full_clip=True,
    ),
    # A full CLIPModel to load before another one is measured.
    "clip-tiny": Size(
        {
            "hidden_size": 128,
            "intermediate_size": 512,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "image_size": 32,
            "patch_size": 8,
        },
        {
            "vocab_size": 1000,
            "hidden_size": 64,
            "intermediate_size": 256,
            "num_hidden_layers": 1,
            "num_attention_heads": 1,
            "max_position_embeddings": 77,
            "eos_token_id": 999,
        },
        64,
        full_clip=True,
    ),
    # CLIP ViT-L and BERT-large with some more layers and XLM-R's vocabulary: 4.05 GB in shards of at most 1 GB.
    "4gb": Size(
        {
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_hidden_layers": 28,
            "num_attention_heads": 16,
            "image_size": 224,
            "patch_size": 14,
        },
        {
            "vocab_size": 250002,
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_hidden_layers": 32,
            "num_attention_heads": 16,
            "max_position_embeddings": 514,
        },
        768,
        10**9,
    ),
    # The vision towers of DINOv3 ViT-B/16 and of Swin V2-T, each beside a small BERT: for the time that images take.
    "dinov3-vit-b-16": Size(
        {
            "model_type": "dinov3_vit",
            "hidden_size": 768,
            "intermediate_size": 3072,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "image_size": 224,
            "patch_size": 16,
            "num_register_tokens": 4,
        },
        SMALL_BERT,
        512,
    ),
    "swinv2-tiny": Size(
        {
            "model_type": "swinv2",
            "embed_dim": 96,
            "depths": [2, 2, 6, 2],
            "num_heads": [3, 6, 12, 24],
            "window_size": 8,
            "image_size": 256,
            "patch_size": 4,
        },
        SMALL_BERT,
        512,
    ),
    # How the cost grows: 97 MB, 1.0 GB, and 16 GB in shards of at most 2 GB.
    "0.1gb": Size(
        {
            "hidden_size": 384,
            "intermediate_size": 1536,
            "num_hidden_layers": 4,
            "num_attention_heads": 6,
            "image_size": 224,
            "patch_size": 32,
        },
        {
            "vocab_size": 30000,
            "hidden_size": 384,
            "intermediate_size": 1536,
            "num_hidden_layers": 3,
            "num_attention_heads": 6,
            "max_position_embeddings": 512,
        },
        512,
    ),
    "1gb": Size(
        {
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_hidden_layers": 8,
            "num_attention_heads": 16,
            "image_size": 224,
            "patch_size": 32,
        },
        {
            "vocab_size": 50000,
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_hidden_layers": 8,
            "num_attention_heads": 16,
            "max_position_embeddings": 512,
        },
        512,
    ),
    "16gb": Size(
        {
            "hidden_size": 2048,
            "intermediate_size": 8192,
            "num_hidden_layers": 36,
            "num_attention_heads": 16,
            "image_size": 224,
            "patch_size": 32,
        },
        {
            "vocab_size": 180000,
            "hidden_size": 2048,
            "intermediate_size": 8192,
            "num_hidden_layers": 36,
            "num_attention_heads": 16,
            "max_position_embeddings": 512,
        },
        512,
        2 * 10**9,
    ),
    # For trying the benchmark out: 97 KB in shards.
    "tiny": Size(
        {
            "hidden_size": 16,
            "intermediate_size": 40,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 32,
            "patch_size": 8,
        },
        {
            "vocab_size": 100,
            "hidden_size": 24,
            "intermediate_size": 56,
            "num_hidden_layers": 2,
            "num_attention_heads": 3,
            "max_position_embeddings": 64,
        },
        20,
        30_000,
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
    if "model_type" in size.vision:
        for rule in compile_rules(check_config(_config(size))).tensors:
            yield rule.names["pt"], rule.shape
        return
    level = "" if size.full_clip else "vision_model."
    yield from _vision(size.vision, f"{level}vision_model")
    yield from _clip_text(size.text) if size.full_clip else _text(size.text)
    yield "visual_projection.weight", (size.projection, size.vision["hidden_size"])
    yield "text_projection.weight", (size.projection, size.text["hidden_size"])
    yield "logit_scale", ()


def _vision(config: dict[str, Any], root: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    width, patch = config["hidden_size"], config["patch_size"]
    yield f"{root}.embeddings.class_embedding", (width,)
    yield f"{root}.embeddings.position_embedding.weight", (1 + (config["image_size"] // patch) ** 2, width)
    yield f"{root}.embeddings.patch_embedding.weight", (width, 3, patch, patch)
    yield from _module(f"{root}.pre_layrnorm", (width,))
    yield from _clip_layers(config, root)
    yield from _module(f"{root}.post_layernorm", (width,))


def _clip_text(config: dict[str, Any]) -> Iterator[tuple[str, tuple[int, ...]]]:
    width = config["hidden_size"]
    yield "text_model.embeddings.token_embedding.weight", (config["vocab_size"], width)
    yield "text_model.embeddings.position_embedding.weight", (config["max_position_embeddings"], width)
    yield from _clip_layers(config, "text_model")
    yield from _module("text_model.final_layer_norm", (width,))


def _clip_layers(config: dict[str, Any], root: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    width, inner = config["hidden_size"], config["intermediate_size"]
    for layer in range(config["num_hidden_layers"]):
        at = f"{root}.encoder.layers.{layer}"
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            yield from _module(f"{at}.self_attn.{name}", (width, width))
        yield from _module(f"{at}.layer_norm1", (width,))
        yield from _module(f"{at}.mlp.fc1", (inner, width))
        yield from _module(f"{at}.mlp.fc2", (width, inner))
        yield from _module(f"{at}.layer_norm2", (width,))


def _text(config: dict[str, Any]) -> Iterator[tuple[str, tuple[int, ...]]]:
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


def shards(size: Size) -> list[dict[str, tuple[int, ...]]]:
    """Distributes names and shapes over files, in order of names."""
    files: list[dict[str, tuple[int, ...]]] = [{}]
    held = 0
    for name, shape in sorted(tensors(size)):
        nbytes = 4 * math.prod(shape)
        if size.shard is not None and files[-1] and held + nbytes > size.shard:
            files.append({})
            held = 0
        files[-1][name] = shape
        held += nbytes
    return files


def write(size: Size, folder: Path) -> dict[str, int]:
    """Writes config.json and model.safetensors, or its shards and their index, into a folder; counts what it wrote."""
    folder.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(SEED)
    files = shards(size)
    weight_map: dict[str, str] = {}
    nbytes = 0
    for number, shapes in enumerate(files, 1):
        name = f"model-{number:05}-of-{len(files):05}.safetensors" if len(files) > 1 else "model.safetensors"
        nbytes += _write_file(folder / name, shapes, noise, TRAINED_SCALE if size.full_clip else LOGIT_SCALE)
        weight_map |= dict.fromkeys(shapes, name)
    if len(files) > 1:
        index = {"metadata": {"total_size": nbytes}, "weight_map": weight_map}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    (folder / "config.json").write_text(json.dumps(_config(size), indent=2) + "\n", encoding="utf-8")
    return {"tensors": len(weight_map), "bytes": nbytes}


def _write_file(path: Path, shapes: dict[str, tuple[int, ...]], noise: np.random.Generator, scale: float) -> int:
    """Writes one safetensors file (header length, JSON header, tensors in order); gives its bytes of data."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        begin, end = end, end + 4 * math.prod(shape)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, shape in shapes.items():
            mean = np.float32(scale if name == "logit_scale" else _mean(name))
            for left in range(math.prod(shape), 0, -CHUNK):
                file.write((mean + 0.04 * noise.standard_normal(min(left, CHUNK), dtype=np.float32)).tobytes())
    return end


def _mean(name: str) -> float:
    """The mean of the values. A norm scales by about 1: with less every text comes out alike, layer after layer."""
    return 1.0 if "norm" in name.lower() and name.endswith(".weight") else 0.0


def _config(size: Size) -> dict[str, Any]:
    return {
        "architectures": ["CLIPModel" if size.full_clip else "VisionTextDualEncoderModel"],
        "model_type": "clip" if size.full_clip else "vision-text-dual-encoder",
        "projection_dim": size.projection,
        "logit_scale_init_value": LOGIT_SCALE,
        "vision_config": {"model_type": "clip_vision_model", **size.vision},
        "text_config": {"model_type": "clip_text_model" if size.full_clip else "bert", **size.text},
    }


if __name__ == "__main__":
    print(json.dumps(write(SIZES[sys.argv[1]], Path(sys.argv[2]))))

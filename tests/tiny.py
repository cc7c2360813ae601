"""Tiny checkpoints of every pair and family, written with NumPy and the safetensors library: random values everywhere."""

from __future__ import annotations

import copy
import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors.numpy import load_file, save_file

from converter.names.configs import check_config
from converter.names.families import JOINED
from converter.names.rules import compile_rules
from tests.compat.towers import FAMILIES, LOGIT_SCALE, PROJECTION, TEXT, VISION

Array = np.ndarray[Any, Any]
Arrays = dict[str, Array]
PAIRS = [(vision, text) for vision in VISION for text in TEXT]
FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"
FIXTURE = FIXTURES / "clip-bert-tiny"
EXPECTED = FIXTURES / "clip-bert-tiny-expected"
_TOWERS = ("vision_config", "text_config")
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


def config_of(
    vision: str = "vit", text: str = "bert", /, *, family: str = JOINED, **changes: Mapping[str, Any]
) -> dict[str, Any]:
    """The config of a tiny pair, or of another family, which has towers of its own.

    Args:
        vision: model type, for the dual encoder.
        text: model type, for the dual encoder.
        family: model type of the whole.
        **changes: ``vision_fields``, ``text_fields`` or (top-level) ``fields``.
    """
    if family != JOINED:
        whole = FAMILIES[family]
        towers = {side: {**whole[side], **changes.get(side.replace("config", "fields"), {})} for side in _TOWERS}
        return copy.deepcopy({"model_type": family, **whole, **towers, **changes.get("fields", {})})
    return copy.deepcopy(
        {
            "model_type": JOINED,
            "projection_dim": PROJECTION,
            "logit_scale_init_value": 2.6592,
            "vision_config": {"model_type": vision, **VISION[vision], **changes.get("vision_fields", {})},
            "text_config": {"model_type": text, **TEXT[text], **changes.get("text_fields", {})},
            **changes.get("fields", {}),
        }
    )


# Every pair of the dual encoder and every other family, for tests that hold for all of them.
MODELS: dict[str, dict[str, Any]] = {"+".join(pair): config_of(*pair) for pair in PAIRS} | {
    family: config_of(family=family) for family in FAMILIES
}
# One of each family.
OF_FAMILIES: dict[str, dict[str, Any]] = {JOINED: config_of(), **{name: config_of(family=name) for name in FAMILIES}}


def tensors_of(config: Mapping[str, Any], dtype: Any = np.float32, seed: int = 7) -> Arrays:
    """Random tensors under nested PyTorch names, each as its config says; the temperature is off its default."""
    noise = np.random.default_rng(seed)
    tensors: Arrays = {}
    once: Arrays = {}
    checked = check_config(config)
    for rule in compile_rules(checked).tensors:
        made = np.asarray(noise.standard_normal(rule.shape), np.float32)
        if rule.counts:
            tensors[rule.names["pt"]] = np.asarray(1000 * np.abs(made), np.int64)
            continue
        # A variance is positive.
        made = (np.abs(made) + 0.5 if rule.name.endswith("running_var") else made).astype(dtype)
        # What some writers keep once is the same everywhere.
        tensors[rule.names["pt"]] = once.setdefault(rule.once[0], made) if rule.once else made
    scale = tensors[checked.family.scale]
    tensors[checked.family.scale] = np.full(scale.shape, LOGIT_SCALE, np.float32).astype(dtype)
    return tensors


def in_tensorflow(config: Mapping[str, Any], tensors: Arrays) -> Arrays:
    """What TensorFlow must get, moved by NumPy alone."""
    axes = {"dense": (1, 0), "conv2d": (2, 3, 1, 0)}
    found: Arrays = {}
    for rule in compile_rules(check_config(config)).tensors:
        array: Array = tensors[rule.names["pt"]]
        name, layout = rule.names["tf"], rule.layouts["tf"]
        found[name] = array.reshape(1) if layout == "scalar" else array.transpose(axes.get(layout))
        if layout not in axes and layout != "scalar":
            found[name] = array
    return found


def write_checkpoint(
    folder: Path, config: Mapping[str, Any], tensors: Mapping[str, Array], framework: str = "pt"
) -> Path:
    """Writes a safetensors checkpoint folder with the safetensors library and gives it back."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2), "utf-8")
    save_file(dict(tensors), folder / "model.safetensors", metadata={"format": framework})
    return folder


def write_tiny(
    folder: Path, vision: str = "vit", text: str = "bert", dtype: Any = np.float32, family: str = JOINED
) -> Arrays:
    """Writes a tiny PyTorch checkpoint of a pair, or of another family, and gives its tensors."""
    config = config_of(vision, text, family=family)
    tensors = tensors_of(config, dtype)
    write_checkpoint(folder, config, tensors)
    return tensors


def load(path: Path) -> Arrays:
    """Reads a safetensors file with the safetensors library."""
    tensors: Arrays = load_file(path)
    return tensors


def assert_same(found: Mapping[str, Array], expected: Mapping[str, Array]) -> None:
    """Compares two sets of tensors by names, dtypes, shapes and bytes: 0 is not -0, NaN is that NaN."""
    assert expected
    assert sorted(found) == sorted(expected)
    for name, ours in expected.items():
        theirs = found[name]
        assert (theirs.dtype, theirs.shape) == (ours.dtype, ours.shape), name
        assert theirs.tobytes() == ours.tobytes(), name


def safetensors_bytes(header: Any, data: bytes = b"") -> bytes:
    """A safetensors file with any header, text or JSON value, however wrong."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data

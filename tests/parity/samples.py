"""Recordings made up for tests, with every kind of tap, and no model behind them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from converter.parity.batches import Batch
from converter.parity.runners.golden import Recording

Array = np.ndarray[Any, Any]

METADATA = {
    "framework": "PyTorch",
    "source": "tiny",
    "config_sha256": "00",
    "versions": '{"torch": "2.0"}',
    "device": "cpu",
    "attention": '{"text": "eager", "vision": "sdpa"}',
    "dtype": "float32",
    "precision": "{}",
}
# texts, sequence, images, heads, width: pairwise different
TEXTS, SEQUENCE, IMAGES, HEADS, WIDTH = 3, 5, 4, 2, 7
SHAPES: dict[str, tuple[int, ...]] = {
    "vision.embeddings": (IMAGES, 10, 6),
    "vision.attentions.0": (IMAGES, HEADS, 10, 10),
    "vision.layers.0": (IMAGES, 10, 6),
    "vision.layers.1": (IMAGES, 10, 6),
    "vision.last_hidden_state": (IMAGES, 10, 6),
    "vision.pooled": (IMAGES, 6),
    "text.embeddings": (TEXTS, SEQUENCE, WIDTH),
    "text.attentions.0": (TEXTS, HEADS, SEQUENCE, SEQUENCE),
    "text.layers.0": (TEXTS, SEQUENCE, WIDTH),
    "text.last_hidden_state": (TEXTS, SEQUENCE, WIDTH),
    "text.pooled": (TEXTS, WIDTH),
    "image_features": (IMAGES, 9),
    "text_features": (TEXTS, 9),
    "image_embeds": (IMAGES, 9),
    "text_embeds": (TEXTS, 9),
    "logits_per_image": (IMAGES, TEXTS),
    "logits_per_text": (TEXTS, IMAGES),
    "loss": (),
}
# rows of 5, 2 and 1 positions; the last on the right, as padding on the left leaves it
MASK = np.array([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [0, 0, 0, 0, 1]])


def inputs(**changed: Array) -> dict[str, Array]:
    """Well-formed inputs, some of them changed."""
    draw = np.random.default_rng(5)
    return {
        "pixel_values": draw.standard_normal((IMAGES, 3, 8, 6), dtype=np.float32),
        "input_ids": draw.integers(1, 50, (TEXTS, SEQUENCE)),
        "attention_mask": MASK.copy(),
        **changed,
    }


def taps(seed: int = 0, dtype: str = "float32") -> dict[str, Array]:
    """One array of random values for every tap."""
    draw = np.random.default_rng(seed)
    return {name: np.asarray(draw.standard_normal(shape), dtype) for name, shape in SHAPES.items()}


def recording(*found: Mapping[str, Array]) -> Recording:
    """A run of one batch for each dictionary of taps."""
    return Recording(METADATA, tuple(Batch(f"batch {number}", inputs(), each) for number, each in enumerate(found)))


def changed(found: Mapping[str, Array], name: str, index: tuple[int, ...], value: float) -> dict[str, Array]:
    """Taps with one value replaced."""
    array = found[name].copy()
    array[index] = value
    return {**found, name: array}

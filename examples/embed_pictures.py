"""Embeds many pictures, batch by batch: `python examples/embed_pictures.py FOLDER OUT.npz PICTURE [PICTURE ...]`.

FOLDER is a dual encoder of either framework with its processor; torch is not needed. `tf.data` reads and prepares the
next batch while the model is busy with this one. OUT.npz holds `names` and, of length 1 each, `embeds`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

# Before Keras and TensorFlow: beside PyTorch with CUDA, what transformers imports later would crash.
from converter import TFVisionTextDualEncoderModel

# isort: split
import numpy as np
import tensorflow as tf
from PIL import Image
from transformers import AutoImageProcessor


def embed(folder: str, pictures: list[str], batch: int = 32) -> np.ndarray[Any, Any]:
    """Embeddings ``(pictures, projection_dim)``, in order."""
    model = TFVisionTextDualEncoderModel.from_pretrained(folder)
    processor = AutoImageProcessor.from_pretrained(folder)

    def batches() -> Iterator[np.ndarray[Any, Any]]:
        for start in range(0, len(pictures), batch):
            images = [Image.open(name).convert("RGB") for name in pictures[start : start + batch]]
            yield processor(images=images, return_tensors="np")["pixel_values"]

    pixels = tf.TensorSpec((None, model.config.vision_config.num_channels, None, None), tf.float32)
    prepared = tf.data.Dataset.from_generator(batches, output_signature=pixels).prefetch(2)
    encode = tf.function(model.get_image_features, input_signature=[pixels])
    features = np.concatenate([encode(images).numpy() for images in prepared])
    embeds: np.ndarray[Any, Any] = features / np.linalg.norm(features, axis=-1, keepdims=True)
    return embeds


if __name__ == "__main__":
    folder, out, *pictures = sys.argv[1:]
    embeds = embed(folder, pictures)
    np.savez(out, names=pictures, embeds=embeds)
    print(f"{out}: {len(embeds)} pictures, {embeds.shape[1]} numbers each")

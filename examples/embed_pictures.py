"""Embeds many pictures, batch by batch: `python examples/embed_pictures.py FOLDER OUT.npz PICTURE [PICTURE ...]`.

Install: `pip install '.[tf]'`. FOLDER is a dual encoder of either framework with its processor; torch is not needed.
`tf.data` reads and prepares the next batch while the model is busy with this one. OUT.npz holds `names` and, of length 1
each, `embeds`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

# Before Keras and TensorFlow: beside PyTorch with CUDA, what transformers imports later would crash.
from converter import ConverterError, TFVisionTextDualEncoderModel

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
    parser = argparse.ArgumentParser(description="Embeds many pictures, batch by batch.")
    parser.add_argument("folder", metavar="FOLDER", help="a dual encoder with its processor")
    parser.add_argument("out", metavar="OUT.npz")
    parser.add_argument("pictures", metavar="PICTURE", nargs="+")
    given = parser.parse_args()
    try:
        embeds = embed(given.folder, given.pictures)
        np.savez(given.out, names=given.pictures, embeds=embeds)
    except (ConverterError, OSError) as error:
        parser.exit(1, f"{parser.prog}: {error}\n")
    print(f"{given.out}: {len(embeds)} pictures, {embeds.shape[1]} numbers each")

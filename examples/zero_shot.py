"""Compares a picture with captions: `python examples/zero_shot.py FOLDER PICTURE CAPTION [CAPTION ...]`.

FOLDER is a dual encoder of either framework with its tokenizer and processor files; torch is not needed.
"""

from __future__ import annotations

import sys
from pathlib import Path

# Before Keras and TensorFlow: beside PyTorch with CUDA, what transformers imports later would crash.
from converter import TFVisionTextDualEncoderModel

# isort: split
from keras import ops
from PIL import Image
from transformers import AutoImageProcessor, AutoTokenizer


def probabilities(folder: str, picture: str, captions: list[str]) -> list[float]:
    """How well each caption describes the picture; the numbers add up to 1."""
    model = TFVisionTextDualEncoderModel.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    processor = AutoImageProcessor.from_pretrained(folder)

    texts = tokenizer(captions, padding=True, return_tensors="np")
    images = processor(images=Image.open(picture).convert("RGB"), return_tensors="np")
    outputs = model(**texts, pixel_values=images["pixel_values"])
    return [float(p) for p in ops.softmax(outputs.logits_per_image, axis=-1)[0]]


if __name__ == "__main__":
    folder, picture, *captions = sys.argv[1:]
    for caption, probability in zip(captions, probabilities(folder, picture, captions), strict=True):
        print(f"{probability:6.1%}  {caption}  ({Path(picture).name})")

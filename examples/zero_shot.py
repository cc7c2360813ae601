"""Compares a picture with captions: `python examples/zero_shot.py FOLDER PICTURE CAPTION [CAPTION ...]`.

Install: `pip install '.[tf]'`. FOLDER is a dual encoder of either framework with its tokenizer and processor files;
torch is not needed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

# Before Keras and TensorFlow: beside PyTorch with CUDA, what transformers imports later would crash.
from converter import ConverterError, TFVisionTextDualEncoderModel

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
    parser = argparse.ArgumentParser(description="Compares a picture with captions.")
    parser.add_argument("folder", metavar="FOLDER", help="a dual encoder with its tokenizer and processor")
    parser.add_argument("picture", metavar="PICTURE")
    parser.add_argument("captions", metavar="CAPTION", nargs="+")
    given = parser.parse_args()
    try:
        found = probabilities(given.folder, given.picture, given.captions)
    except (ConverterError, OSError) as error:
        parser.exit(1, f"{parser.prog}: {error}\n")
    for caption, probability in zip(given.captions, found, strict=True):
        print(f"{probability:6.1%}  {caption}  ({Path(given.picture).name})")

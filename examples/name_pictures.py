"""Names pictures by the most probable of some captions: `python examples/name_pictures.py FOLDER PICTURES`.

Install: `pip install '.[tf]'`. FOLDER is a dual encoder of either framework with its tokenizer and processor files; torch is
not needed. PICTURES is a folder of pictures, with the right caption of each by file name in its captions.json.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

# Before Keras and TensorFlow: beside PyTorch with CUDA, what transformers imports later would crash.
from converter import ConverterError, TFVisionTextDualEncoderModel

# isort: split
import numpy as np
from keras import ops
from PIL import Image
from transformers import AutoImageProcessor, AutoTokenizer


def name_pictures(folder: str, pictures: list[Path], captions: list[str]) -> list[tuple[str, float]]:
    """For each picture the caption that describes it best, and how probable that is among all captions."""
    model = TFVisionTextDualEncoderModel.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    processor = AutoImageProcessor.from_pretrained(folder)

    texts = tokenizer(captions, padding=True, return_tensors="np")
    images = processor(images=[Image.open(picture).convert("RGB") for picture in pictures], return_tensors="np")
    outputs = model(**texts, pixel_values=images["pixel_values"])
    probabilities = ops.convert_to_numpy(ops.softmax(outputs.logits_per_image, axis=-1))
    return [
        (captions[best], float(row[best]))
        for row, best in zip(probabilities, np.argmax(probabilities, -1), strict=True)
    ]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Names pictures by the most probable of some captions.")
    parser.add_argument("folder", metavar="FOLDER", help="a dual encoder with its tokenizer and processor")
    parser.add_argument("pictures", metavar="PICTURES", type=Path, help="a folder of pictures with a captions.json")
    given = parser.parse_args()
    try:
        captions = json.loads((given.pictures / "captions.json").read_text("utf-8"))
        named = name_pictures(
            given.folder, [given.pictures / name for name in captions], list(dict.fromkeys(captions.values()))
        )
    except (ConverterError, OSError, ValueError) as error:
        parser.exit(1, f"{parser.prog}: {error}\n")
    right = 0
    for name, (caption, probability) in zip(captions, named, strict=True):
        right += caption == captions[name]
        verdict = "" if caption == captions[name] else f"  WRONG, it is {captions[name]}"
        print(f"{probability:6.1%} {'█' * round(12 * probability):12}  {caption:20} {name}{verdict}")
    print(f"{right} of {len(captions)} pictures named right")
    raise SystemExit(right != len(captions))

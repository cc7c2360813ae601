"""Fine-tunes a dual encoder with its image tower locked (LiT): `python examples/fine_tune.py FOLDER OUT`.

Install: `pip install '.[tf,torch]'`. FOLDER is a dual encoder of either framework with its tokenizer and processor. The
pictures are coloured shapes, made here, with captions in Italian. OUT/tf is the tuned checkpoint with tokenizer and
processor, OUT/pt the same for PyTorch, verified against it.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Before Keras and TensorFlow: beside PyTorch with CUDA, what transformers imports later would crash.
from converter import ConverterError, TFVisionTextDualEncoderModel, tf2pt, verify
from converter.models import named_variables

# isort: split
import keras
import numpy as np
from PIL import Image, ImageDraw
from transformers import AutoImageProcessor, AutoTokenizer

# One word for a masculine shape, one for a feminine.
COLOURS = {
    "rosso rossa": (200, 30, 40),
    "blu blu": (40, 60, 200),
    "verde verde": (40, 160, 60),
    "giallo gialla": (230, 210, 50),
    "nero nera": (20, 20, 20),
    "bianco bianca": (245, 245, 245),
}
SHAPES = ("un cerchio", "un quadrato", "una croce", "una linea")
EPOCHS, BATCHES = 15, 20


def drawn(shape: str, colour: tuple[int, int, int], noise: np.random.Generator) -> Image.Image:
    """A picture of one shape on a grey ground; place, size, tint and grain are random."""
    side = 64
    image = Image.new("RGB", (side, side), tuple([int(noise.integers(90, 150))] * 3))
    draw, radius = ImageDraw.Draw(image), int(noise.integers(12, 24))
    x, y = (int(noise.integers(radius, side - radius)) for _ in range(2))
    tint = tuple(int(np.clip(value + noise.integers(-15, 16), 0, 255)) for value in colour)
    box, thick = (x - radius, y - radius, x + radius, y + radius), radius // 3
    if shape == "un cerchio":
        draw.ellipse(box, fill=tint)
    elif shape == "un quadrato":
        draw.rectangle(box, fill=tint)
    else:
        draw.rectangle((x - radius, y - thick, x + radius, y + thick), fill=tint)
    if shape == "una croce":
        draw.rectangle((x - thick, y - radius, x + thick, y + radius), fill=tint)
    grain = np.asarray(image, np.float64) + noise.normal(0, 6, (side, side, 3))
    return Image.fromarray(np.clip(grain, 0, 255).astype(np.uint8))


def all_pairs(noise: np.random.Generator) -> Iterator[tuple[Image.Image, str]]:
    """One new picture of every colour and shape, with its caption."""
    for shape in SHAPES:
        for words, colour in COLOURS.items():
            yield drawn(shape, colour, noise), f"{shape} {words.split()[shape.startswith('una')]}"


class Pictures(keras.utils.PyDataset):  # type: ignore[misc]
    """Batches of pictures and captions, of which no two in a batch are alike, as the loss wants it."""

    def __init__(self, folder: str, batches: int, seed: int) -> None:
        super().__init__()
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.processor = AutoImageProcessor.from_pretrained(folder)
        self.batches = [self.batch(np.random.default_rng((seed, number))) for number in range(batches)]

    def batch(self, noise: np.random.Generator) -> dict[str, Any]:
        """The model's inputs for all pairs."""
        images, captions = zip(*all_pairs(noise), strict=True)
        texts = self.tokenizer(list(captions), padding=True, return_tensors="np")
        return {
            "input_ids": texts["input_ids"],
            "attention_mask": texts["attention_mask"],
            "pixel_values": self.processor(images=list(images), return_tensors="np")["pixel_values"],
        }

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, number: int) -> tuple[dict[str, Any]]:
        return (self.batches[number],)


def weights(tower: Any) -> dict[str, Any]:
    """Copies of a tower's weights by their names in a checkpoint."""
    return {name: keras.ops.convert_to_numpy(variable).copy() for name, variable in named_variables(tower).items()}


def right(model: Any, pictures: Pictures) -> float:
    """The share of pictures for which the caption with the highest score is their own."""
    best = [np.argmax(model(batch).logits_per_image, axis=-1) for batch in pictures.batches]
    return float(np.mean([found == np.arange(len(found)) for found in best]))


def fine_tune(folder: str, out: str, epochs: int = EPOCHS) -> dict[str, Any]:
    """Trains text tower and projections, saves them, and makes and verifies the PyTorch checkpoint."""
    keras.utils.set_random_seed(7)
    model = TFVisionTextDualEncoderModel.from_pretrained(folder)
    pictures, unseen = Pictures(folder, BATCHES, seed=1), Pictures(folder, 4, seed=2)
    before, locked = right(model, unseen), weights(model.vision_model)

    model.vision_model.trainable = False
    model.compile(optimizer=keras.optimizers.AdamW(2e-3), jit_compile=False)
    losses = model.fit(pictures, epochs=epochs, verbose=0).history["loss"]

    moved = [name for name, value in weights(model.vision_model).items() if value.tobytes() != locked[name].tobytes()]
    for part in (model, pictures.tokenizer, pictures.processor):
        part.save_pretrained(Path(out, "tf"))
    tf2pt(Path(out, "tf"), Path(out, "pt"))
    equal = verify(Path(out, "pt")).passed
    return {"losses": losses, "right": (before, right(model, unseen)), "moved": moved, "equal": equal}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Fine-tunes a dual encoder with its image tower locked.")
    parser.add_argument("folder", metavar="FOLDER", help="a dual encoder with its tokenizer and processor")
    parser.add_argument("out", metavar="OUT", help="a folder that does not exist yet")
    given = parser.parse_args()
    try:
        result = fine_tune(given.folder, given.out)
    except (ConverterError, OSError) as error:
        parser.exit(1, f"{parser.prog}: {error}\n")
    print(f"loss: {result['losses'][0]:.2f} in the first epoch, {result['losses'][-1]:.2f} in the last")
    print("right caption of 24 for unseen pictures: {:.0%} before, {:.0%} after".format(*result["right"]))
    print(f"locked weights that moved: {len(result['moved'])}")
    print(f"PyTorch gives the same outputs: {result['equal']}")
    if result["moved"] or not result["equal"]:
        raise SystemExit(1)

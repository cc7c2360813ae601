"""Converts a live model's weights to TensorFlow without a file in between: `python examples/from_memory.py FOLDER OUT`.

FOLDER stands for whatever gives you a running PyTorch model, a training script for one. The names of a `state_dict()` differ
from those of files since transformers 5.9, and by family; they are read as they are.
"""

from __future__ import annotations

import sys

from transformers import VisionTextDualEncoderModel

from converter import Conversion, pt2tf


def convert_live_model(model: VisionTextDualEncoderModel, out: str) -> Conversion:
    """Writes a TensorFlow checkpoint of the weights that the model has now, on whatever device they are."""
    return pt2tf(model.state_dict(), out, config=model.config.to_dict())


if __name__ == "__main__":
    folder, out = sys.argv[1:]
    result = convert_live_model(VisionTextDualEncoderModel.from_pretrained(folder), out)
    print(f"{out}: {result.tensors} tensors, {result.nbytes / 1e6:.1f} MB, compared bit for bit: {result.checked}")

"""Converts a live model's weights to TensorFlow without a file in between: `python examples/from_memory.py FOLDER OUT`.

Install: `pip install '.[torch]'`. FOLDER represents any source of a running PyTorch model, such as a training script.
The names of a `state_dict()` differ from those of files since transformers 5.9, and by family; they are read unchanged.
OUT is complete: tokenizer and processor are saved beside the weights.
"""

from __future__ import annotations

import argparse
from typing import Any

from transformers import AutoImageProcessor, AutoTokenizer, VisionTextDualEncoderModel

from converter import Conversion, ConverterError, pt2tf


def convert_live_model(model: VisionTextDualEncoderModel, beside: list[Any], out: str) -> Conversion:
    """Writes a TensorFlow checkpoint of the weights that the model has now, on whatever device they are.

    Args:
        model: a dual encoder.
        beside: what the model is used with, its tokenizer and its image processor.
        out: a folder that does not exist yet.
    """
    result = pt2tf(model.state_dict(), out, config=model.config.to_dict())
    for part in beside:
        part.save_pretrained(out)
    return result


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Converts a live model's weights to TensorFlow.")
    parser.add_argument("folder", metavar="FOLDER", help="a PyTorch dual encoder with its tokenizer and processor")
    parser.add_argument("out", metavar="OUT", help="a folder that does not exist yet")
    given = parser.parse_args()
    try:
        live = VisionTextDualEncoderModel.from_pretrained(given.folder)
        beside = [kind.from_pretrained(given.folder) for kind in (AutoTokenizer, AutoImageProcessor)]
        result = convert_live_model(live, beside, given.out)
    except (ConverterError, OSError, ValueError) as error:
        parser.exit(1, f"{parser.prog}: {error}\n")
    print(
        f"{given.out}: {result.tensors} tensors, {result.nbytes / 1e6:.1f} MB, compared bit for bit: {result.checked}"
    )

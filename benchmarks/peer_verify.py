"""The benchmark's peer: transformers 4.57.6 loads both sides of a checkpoint, runs each once, and compares.

Runs in the environment of transformers 4.57.6: `python benchmarks/peer_verify.py PT TF`. The TensorFlow side is what such a
script reads: a folder with tf_model.h5. One batch of 4 images and 3 texts of 11 ids, logits alone: less than `convert
verify` does.
"""

from __future__ import annotations

import sys

import numpy as np
import torch  # before TensorFlow
from transformers import TFVisionTextDualEncoderModel, VisionTextDualEncoderModel


def main() -> None:
    """Exits with 1 where the logits differ by more than 1e-4."""
    in_torch, in_tensorflow = sys.argv[1:]
    draw = np.random.default_rng(0)
    reference = VisionTextDualEncoderModel.from_pretrained(in_torch).eval()
    candidate = TFVisionTextDualEncoderModel.from_pretrained(in_tensorflow)
    size = reference.config.vision_config.image_size
    inputs = {
        "pixel_values": draw.standard_normal((4, 3, size, size), dtype=np.float32),
        "input_ids": draw.integers(1, reference.config.text_config.vocab_size, (3, 11)),
        "attention_mask": np.tril(np.ones((3, 11), np.int64), 8),
    }
    with torch.no_grad():
        theirs = reference(**{name: torch.from_numpy(array) for name, array in inputs.items()}).logits_per_image.numpy()
    ours = candidate(**inputs, training=False).logits_per_image.numpy()
    difference = float(np.abs(ours - theirs).max())
    print(f"greatest difference of the logits: {difference:.1e}")
    sys.exit(0 if difference <= 1e-4 else 1)


if __name__ == "__main__":
    main()

"""What the benchmark compares with: transformers 4.57.6 converts a local PyTorch checkpoint and saves tf_model.h5.

Runs in the environment of transformers 4.57.6: `python benchmarks/peer_convert.py SRC OUT`.
"""

from __future__ import annotations

import sys

import torch  # noqa: F401  # before TensorFlow
from transformers import TFVisionTextDualEncoderModel

if __name__ == "__main__":
    source, out = sys.argv[1:]
    TFVisionTextDualEncoderModel.from_pretrained(source, from_pt=True).save_pretrained(out)

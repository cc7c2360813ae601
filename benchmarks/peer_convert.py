"""What the benchmark compares with: transformers 4.57.6 converts a local PyTorch checkpoint and saves tf_model.h5.

Runs in the environment of transformers 4.57.6: `python benchmarks/peer_convert.py SRC OUT`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch  # noqa: F401  # before TensorFlow
import transformers

if __name__ == "__main__":
    source, out = sys.argv[1:]
    architecture = json.loads(Path(source, "config.json").read_text("utf-8"))["architectures"][0]
    getattr(transformers, f"TF{architecture}").from_pretrained(source, from_pt=True).save_pretrained(out)

"""What the benchmark compares with: transformers converts a local checkpoint, from PyTorch to TensorFlow or from Flax to it.

Run `python benchmarks/peer_convert.py SRC OUT` in the environment of transformers 4.57.6 for a PyTorch source. A Flax source
needs the environment with Flax and transformers 4.50.3, the last version whose ``from_flax`` works.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def main() -> None:
    """Loads the source as another framework's, and saves it."""
    source, out = map(Path, sys.argv[1:])
    flax = any(source.glob("flax_model*"))
    if flax:
        sys.path.insert(0, str(Path(sys.prefix) / "transformers-4.50"))
    import torch  # noqa: F401  # before TensorFlow
    import transformers

    name = json.loads((source / "config.json").read_text("utf-8"))["architectures"][0].removeprefix("Flax")
    if flax:
        assert transformers.__version__.startswith("4.50."), transformers.__version__
        getattr(transformers, name).from_pretrained(source, from_flax=True).save_pretrained(out)
    else:
        getattr(transformers, f"TF{name}").from_pretrained(source, from_pt=True).save_pretrained(out)


if __name__ == "__main__":
    main()

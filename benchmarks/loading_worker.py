"""Loads a checkpoint once and prints seconds and memory: `python benchmarks/loading_worker.py WHO FOLDER SMALL`.

WHO is `ours`, `peer` (transformers 4.57.6, TensorFlow files) or `peer-pt` (the same from PyTorch files). SMALL is a small
checkpoint of the same kind, loaded before, so that imports and what frameworks start on first use are not counted. Knows
nothing of the converter but for `ours`, so that another interpreter can run it.
"""

from __future__ import annotations

import gc
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def loader(who: str) -> Callable[[str], Any]:
    """What loads a model."""
    if who == "ours":
        from converter import TFVisionTextDualEncoderModel

        return lambda folder: TFVisionTextDualEncoderModel.from_pretrained(folder)
    if who == "peer-pt":
        import torch  # noqa: F401 - before TensorFlow, which crashes a later import of torch's GPU builds
    import transformers

    transformers.logging.set_verbosity_error()
    model = transformers.TFVisionTextDualEncoderModel
    return lambda folder: model.from_pretrained(folder, from_pt=who == "peer-pt")


def megabytes(field: str) -> float:
    """A field of this process's status: VmRSS is memory held now, VmHWM the most since the last reset."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith(field))


def main() -> None:
    """Loads the small one, then the other, measured."""
    who, folder, small = sys.argv[1:]
    load = loader(who)
    load(small)
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM, see proc(5)
    before = megabytes("VmRSS")
    begin = time.perf_counter()
    model = load(folder)
    seconds = time.perf_counter() - begin
    peak, held = megabytes("VmHWM"), megabytes("VmRSS")
    weights = sum(float(v.numpy().nbytes) for v in model.weights if str(v.dtype) != "uint32")
    print(
        json.dumps(
            {"seconds": seconds, "peak_mb": peak - before, "held_mb": held - before, "weights_mb": weights / 1e6}
        )
    )


if __name__ == "__main__":
    main()

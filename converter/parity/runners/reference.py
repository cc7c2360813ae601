"""The PyTorch reference, in a process of its own.

``python -m converter.parity.runners.reference`` is that process; it reads requests as ``serving`` describes them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from converter.parity.batches import Batch
from converter.parity.runners.asking import ask_run
from converter.parity.runners.golden import Recording
from converter.parity.runners.isolation import Worker
from converter.parity.runners.options import SHARED_ENVIRONMENT, ReferenceOptions
from converter.parity.runners.serving import hide, remember_models, serve

NEEDS = (
    "pip install 'dual-encoder-converter[torch]', or name the interpreter of an environment that has torch and "
    "transformers (--reference-python)"
)
# PyTorch alone is imported; kernels that add in a fixed order.
ENVIRONMENT = {
    **SHARED_ENVIRONMENT,
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "USE_TORCH": "1",
    "USE_TF": "0",
    "USE_FLAX": "0",
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    # Threads that wait in a loop take the processor from the other side, which runs at the same time.
    "OMP_WAIT_POLICY": "PASSIVE",
}


def start_reference(python: Path | None = None, log: Path | None = None) -> Worker:
    """Starts a process for PyTorch runs.

    Args:
        python: interpreter of an environment with torch, transformers, numpy and safetensors; by default this one.
        log: where its output is kept.
    """
    return Worker("PyTorch reference", "converter.parity.runners.reference", ENVIRONMENT, python, log)


def run_reference(
    source: Path,
    batches: Sequence[Batch],
    options: ReferenceOptions | None = None,
    python: Path | None = None,
    seconds: float = 600.0,
) -> Recording:
    """Runs the PyTorch model of a folder in a process of its own.

    Args:
        source: a folder with config.json and PyTorch weights.
        batches: what to run it on.
        options: how.
        python: interpreter of another environment.
        seconds: time limit, the start included.

    Returns:
        Inputs, taps and what ran where.

    Raises:
        ParityError: the folder's weights are not those its config describes, or the process did not answer.
    """
    with start_reference(python) as worker:
        return ask_run(worker, source, batches, asdict(options or ReferenceOptions()), seconds)


def _load() -> Callable[[dict[str, Any]], dict[str, Any]]:
    # SciPy is none: transformers imports it for the losses of object detection, which takes half a second.
    hide("tensorflow", "tf_keras", "keras", "jax", "flax", "scipy")
    remember_models()
    from converter.parity.runners import processing, torch_model

    return lambda request: (processing if "processor" in request else torch_model).answer(request)


if __name__ == "__main__":
    serve(_load, NEEDS)

"""The PyTorch reference, in its own process; for a Flax checkpoint Flax itself, if that can run.

``python -m converter.parity.runners.reference`` is that process; it reads requests as ``serving`` describes them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib import metadata
from importlib.util import find_spec
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
# Only PyTorch is imported; its kernels add in a fixed order.
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


Answer = Callable[[dict[str, Any]], dict[str, Any]]
# Tells the process to use Flax if its environment has it.
_WANTED = "PARITY_FLAX"
# Packages that transformers imports if installed, and those that import SciPy in turn.
_ON_SCIPY = ("sklearn", "librosa", "bitsandbytes")


def start_reference(python: Path | None = None, log: Path | None = None, flax: bool = False) -> Worker:
    """Starts a process for PyTorch runs.

    Args:
        python: interpreter of an environment with torch, transformers, numpy and safetensors; by default this one.
        log: where its output is kept.
        flax: run Flax models instead, if the environment has flax and a transformers with Flax classes; ``runs_flax``
            says so.
    """
    environment = {**ENVIRONMENT, _WANTED: "1" if flax else "0"}
    return Worker("PyTorch reference", "converter.parity.runners.reference", environment, python, log)


def runs_flax(worker: Worker, seconds: float) -> bool:
    """Whether a process of ``start_reference`` runs Flax models, and not PyTorch's."""
    return bool(worker.ask({"asks": "flax"}, seconds)["flax"])


def run_reference(
    source: Path,
    batches: Sequence[Batch],
    options: ReferenceOptions | None = None,
    python: Path | None = None,
    seconds: float = 600.0,
) -> Recording:
    """Runs the PyTorch model of a folder in its own process.

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


def _has_flax() -> bool:
    """Whether Flax models can run here: transformers 5 has none."""
    try:
        versions = {name: metadata.version(name) for name in ("flax", "jax", "transformers")}
    except metadata.PackageNotFoundError:
        return False
    return versions["transformers"].startswith("4.")


def _answering(run: Answer, flax: bool) -> Answer:
    """Answers what a model's run has to, a processor's, and whether it is Flax that runs here."""
    from converter.parity.runners import processing

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        if "asks" in request:
            return {"flax": flax}
        return (processing.answer if "processor" in request else run)(request)

    return answer


def _load_flax() -> Answer:
    os.environ.update(USE_FLAX="1", USE_TORCH="0")
    hide("tensorflow", "tf_keras", "keras", "torch")
    remember_models()
    from converter.parity.runners import flax_model

    return _answering(flax_model.answer, flax=True)


def _spared() -> tuple[str, ...]:
    """SciPy, which transformers imports for the losses of object detection and which takes half a second to import.

    Not if an installed package cannot do without SciPy.
    """
    return () if any(map(find_spec, _ON_SCIPY)) else ("scipy",)


def _load() -> Answer:
    if os.environ.get(_WANTED) == "1" and _has_flax():
        return _load_flax()
    hide("tensorflow", "tf_keras", "keras", "jax", "flax", *_spared())
    remember_models()
    from converter.parity.runners import torch_model

    return _answering(torch_model.answer, flax=False)


if __name__ == "__main__":
    serve(_load, NEEDS)

"""The candidate: our Keras model, in its own process with the requested backend.

``python -m converter.parity.runners.candidate`` is that process; it reads requests as ``serving`` describes them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from converter.parity.batches import Batch
from converter.parity.runners.asking import ask_run
from converter.parity.runners.golden import Recording
from converter.parity.runners.isolation import Worker
from converter.parity.runners.options import SHARED_ENVIRONMENT, CandidateOptions
from converter.parity.runners.serving import hide, remember_models, serve

NEEDS = {
    "tensorflow": "pip install 'dual-encoder-converter[tf]'",
    "jax": "pip install 'dual-encoder-converter[jax]'",
}
ENVIRONMENT = {
    **SHARED_ENVIRONMENT,
    # a folder of the process's own: the user's keras.json may change the epsilon or the order of axes
    "KERAS_HOME": "keras",
    "TF_CPP_MIN_LOG_LEVEL": "1",
    "TF_DETERMINISTIC_OPS": "1",
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
}


def start_candidate(options: CandidateOptions, python: Path | None = None, log: Path | None = None) -> Worker:
    """Starts a process for Keras runs.

    Args:
        options: ``backend``, ``device`` and, on JAX, ``dtype`` are those of every run in this process.
        python: interpreter of an environment with keras, the backend and transformers; by default this one.
        log: where its output is kept.
    """
    name = f"Keras candidate on {options.backend}"
    return Worker(name, "converter.parity.runners.candidate", _environment(options), python, log)


def _environment(options: CandidateOptions) -> Mapping[str, str]:
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_gpu_deterministic_ops=true".strip()
    chosen = {**ENVIRONMENT, "KERAS_BACKEND": options.backend, "XLA_FLAGS": flags}
    # without it JAX makes float32 of float64; what it has compiled before a change of mind would stay as it was
    chosen["JAX_ENABLE_X64"] = "1" if options.dtype == "float64" else "0"
    if options.device == "cpu":
        return {**chosen, "CUDA_VISIBLE_DEVICES": "-1", "JAX_PLATFORMS": "cpu"}
    return chosen


def run_candidate(
    source: Path,
    batches: Sequence[Batch],
    options: CandidateOptions | None = None,
    python: Path | None = None,
    seconds: float = 600.0,
) -> Recording:
    """Runs our model of a checkpoint folder in its own process.

    Args:
        source: a folder with config.json and weights of either framework.
        batches: what to run it on.
        options: how.
        python: interpreter of another environment.
        seconds: time limit, the start included.

    Returns:
        Inputs, taps and what ran where.

    Raises:
        ParityError: the folder cannot be loaded, or the process did not answer.
    """
    options = options or CandidateOptions()
    with start_candidate(options, python) as worker:
        return ask_run(worker, source, batches, asdict(options), seconds)


def _load() -> Callable[[dict[str, Any]], dict[str, Any]]:
    hide("torch", "flax", *(("jax",) if os.environ["KERAS_BACKEND"] == "tensorflow" else ("tensorflow", "tf_keras")))
    remember_models()
    from converter.parity.runners.keras_model import answer

    return answer


if __name__ == "__main__":
    serve(_load, NEEDS[os.environ["KERAS_BACKEND"]])

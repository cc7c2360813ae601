"""Loads and runs our model inside the candidate's process, on the backend that its environment chose."""

from __future__ import annotations

import contextlib
import gc
import json
import platform
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import transformers

from converter.errors import ParityError, WorkerError
from converter.models.loading import load_two_towers
from converter.models.parts import Composite
from converter.parity.batches import INTEGER_INPUTS, Batch
from converter.parity.runners.golden import Recording, config_sha256, read_recording, write_recording
from converter.parity.runners.options import CandidateOptions
from converter.parity.taps import TOWERS, Array, InnerTaps, attending, collect_taps, stage_depths


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Runs one model: request and recording as ``asking.write_request`` has them."""
    options = CandidateOptions(**request["options"])
    if keras.backend.backend() != options.backend:
        raise ParityError(f"Keras runs on {keras.backend.backend()} here; start another process for {options.backend}")
    keras.backend.clear_session()  # of the model before this one; the caller does not wait for that
    gc.collect()
    source = Path(request["source"])
    precision = set_precision(options)
    gpu = choose_gpu(options.device)
    batches = read_recording(Path(request["inputs"]), taps=False).batches
    with contextlib.nullcontext() if gpu is None else keras.device(f"gpu:{gpu}"):
        model = load_two_towers(None, str(source), in_place=True)
        ran = tuple(_run(model, batch, options) for batch in batches)
    metadata = {
        "framework": f"Keras on {options.backend}",
        "source": source.name,
        "config_sha256": config_sha256(source),
        "versions": json.dumps(_versions(options.backend), sort_keys=True),
        "device": "cpu" if gpu is None else f"cuda:{gpu}{_gpu_name(gpu, options.backend)}",
        "attention": json.dumps({"text": "ours", "vision": "ours"}),
        "dtype": options.dtype,
        "precision": json.dumps(precision, sort_keys=True),
    }
    write_recording(Recording(metadata, ran), Path(request["out"]))
    return {"device": metadata["device"]}


def set_precision(options: CandidateOptions) -> dict[str, Any]:
    """Full precision of the requested dtype, and kernels that give the same result twice.

    Returns:
        What was set, for the metadata.

    Raises:
        ParityError: this process has been started for another dtype.
    """
    keras.config.set_floatx(options.dtype)
    keras.config.set_dtype_policy(options.dtype)
    if options.backend == "jax":
        import jax

        if jax.config.jax_enable_x64 != (options.dtype == "float64"):
            raise ParityError(f"JAX was not started for {options.dtype} here; start another process for it")
        jax.config.update("jax_default_matmul_precision", "highest")
        return {"jax_default_matmul_precision": "highest", "jax_enable_x64": jax.config.jax_enable_x64}
    import tensorflow as tf

    tf.config.experimental.enable_tensor_float_32_execution(False)
    tf.config.experimental.enable_op_determinism()
    return {"tf32": tf.config.experimental.tensor_float_32_execution_enabled(), "deterministic": True}


def choose_gpu(device: str) -> int | None:
    """The number of the requested GPU; None for the CPU.

    Raises:
        WorkerError: the backend sees no such GPU.
    """
    if device == "cpu":
        return None
    count = _count_gpus()
    number = int(device.partition(":")[2] or 0)
    if device == "auto" and not count:
        return None
    if number >= count:
        raise WorkerError(
            f"device {device} was requested, but {keras.backend.backend()} sees {count} GPUs; choose cpu or auto"
        )
    return number


def _count_gpus() -> int:
    if keras.backend.backend() == "jax":
        import jax

        try:
            return len(jax.devices("gpu"))
        except RuntimeError:  # there is no such platform
            return 0
    import tensorflow as tf

    return len(tf.config.list_physical_devices("GPU"))


def _gpu_name(number: int, backend: str) -> str:
    if backend == "jax":
        import jax

        return f" ({jax.devices('gpu')[number].device_kind})"
    import tensorflow as tf

    details = tf.config.experimental.get_device_details(tf.config.list_physical_devices("GPU")[number])
    return f" ({details.get('device_name', 'GPU')})"


def _versions(backend: str) -> dict[str, str]:
    versions = {"python": platform.python_version(), "keras": keras.__version__}
    versions["transformers"] = transformers.__version__
    if backend == "jax":
        import jax

        return {**versions, "jax": jax.__version__}
    import tensorflow as tf

    return {**versions, "tensorflow": tf.__version__}


def _run(model: Any, batch: Batch, options: CandidateOptions) -> Batch:
    # a vocabulary fits in 32 bits, and JAX has no 64 by default
    inputs = {name: array.astype(np.int32) if name in INTEGER_INPUTS else array for name, array in batch.inputs.items()}
    inputs["pixel_values"] = inputs["pixel_values"].astype(options.dtype)
    inner = InnerTaps()
    with contextlib.ExitStack() as stack:
        for tower in TOWERS:
            stack.enter_context(_tapped(getattr(model, f"{tower}_model"), tower, inner))
        output = model(
            **inputs,
            output_hidden_states=True,
            output_attentions=options.attentions,
            return_loss=options.loss and batch.is_square,
            return_dict=True,
            training=False,
        )
    outputs = {tower: getattr(output, f"{tower}_model_output") for tower in TOWERS}
    pooled = {tower: given.pooler_output for tower, given in outputs.items()}
    projected = {tower: model.project(tower, given) for tower, given in outputs.items()}
    found = inner.named(stage_depths(model.config))
    taps = collect_taps(output, pooled, projected, attending(model.config, options.attentions), _to_numpy, found)
    if "loss" in taps:
        # (1,) as TFCLIPOutput has it, where PyTorch's loss is a scalar; reshape refuses more than one value
        taps["loss"] = taps["loss"].reshape(())
    return Batch(batch.title, batch.inputs, taps)


@contextlib.contextmanager
def _tapped(tower: Composite, name: str, inner: InnerTaps) -> Iterator[None]:
    """Keeps what the dense parts that end the branches of a tower's blocks give, while the context lasts."""
    blocks = list(_blocks(tower))
    kept = [(block, role, getattr(block, role)) for block in blocks for role in block.ends.values()]
    for block in blocks:
        for kind, role in block.ends.items():
            # Past Keras' bookkeeping of attributes: no layer comes or goes.
            object.__setattr__(block, role, _Kept(getattr(block, role), partial(inner.keep, name, kind)))
    try:
        yield
    finally:
        for block, role, part in kept:
            object.__setattr__(block, role, part)


def _blocks(held: Composite) -> Iterator[Any]:
    for part in held.held.values():
        if hasattr(part, "ends"):
            yield part
        elif isinstance(part, Composite):
            yield from _blocks(part)


class _Kept:
    """A part whose results are kept."""

    def __init__(self, part: Any, keep: Callable[[Any], None]) -> None:
        self._part, self._keep = part, keep

    def __call__(self, x: Any) -> Any:
        result = self._part(x)
        self._keep(result)
        return result


def _to_numpy(tensor: Any) -> Array:
    array: Array = np.asarray(keras.ops.convert_to_numpy(tensor))
    return array

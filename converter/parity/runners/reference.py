"""The PyTorch reference: what a run may be asked for, and how to have one, in a process of its own.

``python -m converter.parity.runners.reference`` is that process; it reads requests as ``serving`` describes them.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from converter.errors import ParityError, printable
from converter.parity.batches import PRECISIONS, Batch, same_inputs
from converter.parity.runners.golden import Recording, config_of, read_recording, write_recording
from converter.parity.runners.isolation import Worker
from converter.parity.runners.serving import hide, remember_models, serve
from converter.parity.samples import Samples

ATTENTION = ("eager", "sdpa")
_DEVICE = re.compile(r"auto|cpu|cuda(:\d{1,3})?")
# Whatever reads the Hub is told not to; PyTorch alone is imported; kernels that add in a fixed order.
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "USE_TORCH": "1",
    "USE_TF": "0",
    "USE_FLAX": "0",
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    # Threads that wait in a loop take the processor from the other side, which runs at the same time.
    "OMP_WAIT_POLICY": "PASSIVE",
    "NVIDIA_TF32_OVERRIDE": "0",
}


@dataclass(frozen=True, slots=True)
class ReferenceOptions:
    """How the reference runs.

    Attributes:
        device: ``"auto"`` (CUDA where there is one), ``"cpu"``, ``"cuda"`` or ``"cuda:<number>"``.
        dtype: ``"float32"`` or ``"float64"``.
        attention: ``"eager"``, which alone returns attention maps, or ``"sdpa"``, which alone is exact in float64.
        attentions: whether to record attention maps.
        loss: whether to record the contrastive loss, of batches with as many images as texts.

    Raises:
        ParityError: an option is none of these, or attention maps are asked of ``"sdpa"``.
    """

    device: str = "auto"
    dtype: str = "float32"
    attention: str = "sdpa"
    attentions: bool = False
    loss: bool = False

    def __post_init__(self) -> None:
        check_device(self.device)
        for name, allowed in (("dtype", PRECISIONS), ("attention", ATTENTION)):
            if getattr(self, name) not in allowed:
                raise ParityError(f"{name} is {printable(getattr(self, name), 60)}, expected {' or '.join(allowed)}")
        if self.attentions and self.attention != "eager":
            raise ParityError("attention maps were asked for with sdpa, which returns none; choose eager attention")


def check_device(device: str) -> None:
    """Raises ParityError where a device is not ``auto``, ``cpu``, ``cuda`` or ``cuda:<number>``."""
    if not _DEVICE.fullmatch(device):
        raise ParityError(f"device is {printable(device, 60)}, expected auto, cpu, cuda or cuda:<number>")


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


def ask_run(
    worker: Worker, source: Path, batches: Sequence[Batch], options: dict[str, Any], seconds: float
) -> Recording:
    """Has a worker that is already running, reference or candidate, run one model; see ``run_reference``."""
    with tempfile.TemporaryDirectory(prefix="parity-") as folder:
        request = write_request(Path(folder), source, batches, options)
        return read_answer(request, worker.ask(request, seconds), batches)


def read_answer(request: Mapping[str, Any], answer: Mapping[str, Any], batches: Sequence[Batch]) -> Recording:
    """Reads what a run recorded; its metadata gain the seconds and the peak memory (bytes) that the worker tells.

    Raises:
        ParityError: the run was not of the inputs that were asked for, all of them.
    """
    recording = read_recording(Path(request["out"]))
    ran, asked = ([(batch.title, batch.inputs) for batch in some] for some in (recording.batches, batches))
    same = len(ran) == len(asked) and all(
        title == wanted and same_inputs(inputs, given)
        for (title, inputs), (wanted, given) in zip(ran, asked, strict=True)
    )
    if not same:
        raise ParityError(
            f"{request['source']}: was not run on the {len(asked)} batches that it was given; run it again"
        )
    told = {name: str(answer[name]) for name in ("seconds", "peak_memory") if answer.get(name) is not None}
    return replace(recording, metadata={**recording.metadata, **told})


def write_request(folder: Path, source: Path, batches: Sequence[Batch], options: dict[str, Any]) -> dict[str, Any]:
    """Writes the inputs of a run and returns the request for it; the recording will be at its ``out``.

    Raises:
        ParityError: there is no batch, or no config.json in ``source`` or beside it.
    """
    if not batches:
        raise ParityError("there is no batch to run, so that nothing could be compared")
    source = source.absolute()
    if not config_of(source).is_file():
        raise ParityError(f"{source}: no config.json there; expected a folder as save_pretrained writes it")
    inputs, out = folder / "inputs.safetensors", folder / "taps.safetensors"
    write_recording(Recording({}, tuple(batches)), inputs)
    return {"source": str(source), "inputs": str(inputs), "out": str(out), "options": options}


def ask_samples(worker: Worker, folder: Path, samples: Samples, seconds: float) -> Batch:
    """Has a reference worker put texts and pictures through a folder's tokenizer and image processor.

    Args:
        worker: of ``start_reference``.
        folder: a checkpoint with its tokenizer and processor files.
        samples: what to put through them.
        seconds: time limit.

    Raises:
        ParityError: there is no processor that can be loaded, or what it makes is not for the folder's model.
    """
    with tempfile.TemporaryDirectory(prefix="parity-") as temporary:
        out = Path(temporary, "samples.safetensors")
        request = {
            "processor": str(folder.absolute()),
            "title": samples.title,
            "texts": list(samples.texts),
            "pictures": [str(path) for path in samples.pictures],
            "out": str(out),
        }
        worker.ask(request, seconds)
        return read_recording(out, taps=False).batches[0]


def _load() -> Callable[[dict[str, Any]], dict[str, Any]]:
    # SciPy is none: transformers imports it for the losses of object detection, which takes half a second.
    hide("tensorflow", "tf_keras", "keras", "jax", "flax", "scipy")
    remember_models()
    from converter.parity.runners import processing, torch_model

    return lambda request: (processing if "processor" in request else torch_model).answer(request)


if __name__ == "__main__":
    serve(_load, "torch and transformers here, or name the interpreter of an environment that has them")

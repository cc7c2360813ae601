"""How each side of a comparison is asked to run, and what both processes find in their environment."""

from __future__ import annotations

import re
from dataclasses import dataclass

from converter.errors import OptionError, printable
from converter.parity.batches import PRECISIONS

ATTENTION = ("eager", "sdpa")
BACKENDS = ("tensorflow", "jax")
# Everything that reads the Hub is told not to; float32 means float32.
SHARED_ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "NVIDIA_TF32_OVERRIDE": "0",
}
_DEVICE = re.compile(r"auto|cpu|cuda(:\d{1,3})?")


@dataclass(frozen=True, slots=True)
class ReferenceOptions:
    """How the reference runs.

    Attributes:
        device: ``"auto"`` (CUDA if available), ``"cpu"``, ``"cuda"`` or ``"cuda:<number>"``.
        dtype: ``"float32"`` or ``"float64"``.
        attention: ``"eager"``, the only one that returns attention maps, or ``"sdpa"``, the only one that is exact in
            float64.
        attentions: whether to record attention maps.
        loss: whether to record the loss, of batches with as many images as texts.

    Raises:
        OptionError: an option is invalid, or attention maps are requested from ``"sdpa"``.
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
                raise OptionError(f"{name} is {printable(getattr(self, name), 60)}, expected {' or '.join(allowed)}")
        if self.attentions and self.attention != "eager":
            raise OptionError("sdpa returns no attention maps; choose eager attention")


@dataclass(frozen=True, slots=True)
class FlaxOptions:
    """How transformers 4's Flax model runs, as the reference of a Flax checkpoint.

    Attributes:
        class_name: its class in transformers.
        files: the weights, one file or shards.
        device: as ``ReferenceOptions`` has it.
        dtype: ``"float32"`` or ``"float64"``.
    """

    class_name: str
    files: tuple[str, ...]
    device: str = "auto"
    dtype: str = "float32"


@dataclass(frozen=True, slots=True)
class CandidateOptions:
    """How the candidate runs.

    Attributes:
        backend: of Keras, ``"tensorflow"`` or ``"jax"``; fixed when the process starts.
        device: ``"auto"`` (a GPU where the backend sees one), ``"cpu"``, ``"cuda"`` or ``"cuda:<number>"``; whether
            there is a GPU at all is fixed when the process starts.
        dtype: ``"float32"`` or ``"float64"``; fixed when the process starts where the backend is JAX.
        attentions: whether to record attention maps.
        loss: whether to record the loss, of batches with as many images as texts.

    Raises:
        OptionError: an option is invalid.
    """

    backend: str = "tensorflow"
    device: str = "auto"
    dtype: str = "float32"
    attentions: bool = False
    loss: bool = False

    def __post_init__(self) -> None:
        check_device(self.device)
        for name, allowed in (("dtype", PRECISIONS), ("backend", BACKENDS)):
            if getattr(self, name) not in allowed:
                raise OptionError(f"{name} is {printable(getattr(self, name), 60)}, expected {' or '.join(allowed)}")


def check_device(device: str) -> None:
    """Raises OptionError where a device is not ``auto``, ``cpu``, ``cuda`` or ``cuda:<number>``."""
    if not _DEVICE.fullmatch(device):
        raise OptionError(f"device is {printable(device, 60)}, expected auto, cpu, cuda or cuda:<number>")

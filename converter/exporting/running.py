"""An exported file, run from here: starts its runtime in its own process, and distinguishes a bad file from a bad environment."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from converter.errors import ExportError, OptionError, ParityError, WorkerCrash, WorkerError, printable
from converter.exporting.options import Precision
from converter.exporting.targets import Target
from converter.parity.runners.isolation import Worker
from converter.parity.runners.options import SHARED_ENVIRONMENT

ENVIRONMENT = {
    **SHARED_ENVIRONMENT,
    "TF_CPP_MIN_LOG_LEVEL": "2",
    "CUDA_VISIBLE_DEVICES": "-1",
    "KERAS_BACKEND": "tensorflow",
    "TF_ENABLE_ONEDNN_OPTS": "0",  # its sums differ in their last bits from those of TensorFlow itself
}
_FAST = {"TF_ENABLE_ONEDNN_OPTS": "1"}
Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class FoundInput:
    """An input as the file itself has it; ``shape`` has None where an axis is free."""

    name: str
    shape: tuple[int | None, ...]
    dtype: str


@dataclass(frozen=True, slots=True)
class FoundSignature:
    """A signature as the file itself has it."""

    inputs: tuple[FoundInput, ...]
    outputs: tuple[str, ...]


class Runtime:
    """A file of an export in its own runtime. A context manager: leaving it ends the process.

    Raises:
        ExportError: the file cannot be opened or run, or crashes its runtime.
        WorkerError: the runtime is not available here, which says nothing about the file.
    """

    def __init__(
        self,
        target: Target,
        folder: Path,
        precision: Precision,
        seconds: float,
        threads: int | None = None,
        exact: bool = True,
    ) -> None:
        """Takes what to run.

        Args:
            target: its format.
            folder: the export.
            precision: of the file.
            seconds: time limit of each request.
            threads: that the runtime may use; None: one.
            exact: for comparing; False: as the runtime comes, for timing.
        """
        self.target, self._home, self._seconds = target, folder.absolute(), seconds
        self.where = target.shown(precision)
        self._precision, self._threads = precision, threads
        self._environment = ENVIRONMENT if exact else {**ENVIRONMENT, **_FAST}
        self._folder = tempfile.TemporaryDirectory(prefix="export-")
        self._worker: Worker | None = None
        self.signatures: Mapping[str, FoundSignature] = {}

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def run(self, name: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Runs a signature; after a crash the process is restarted before the next run."""
        out = Path(self._folder.name, "outputs.safetensors")
        out.unlink(missing_ok=True)
        self._ask({"run": name, "inputs": self._kept(inputs), "outputs": str(out)})
        try:
            return dict(load_file(out))
        except (OSError, ValueError, SafetensorError) as error:
            raise ExportError(f"{self.where}: {name} gave no arrays: {printable(str(error))}") from None

    def milliseconds(self, name: str, inputs: Mapping[str, Array], times: int) -> float:
        """Time of one run of a signature, the median of several."""
        return float(self._ask({"time": name, "inputs": self._kept(inputs), "times": times})["milliseconds"])

    def _kept(self, inputs: Mapping[str, Array]) -> str:
        path = Path(self._folder.name, "inputs.safetensors")
        save_file({key: np.ascontiguousarray(value) for key, value in inputs.items()}, path)
        return str(path)

    def _start(self) -> None:
        name = f"{self.target.label} runtime"
        self._worker = Worker(name, self.target.runner, self._environment)
        opened = self.target.opened(self._home, self._precision)
        asked = {"open": opened, "threads": self._threads or 1, "precision": self._precision}
        self.signatures = _signatures(self._ask(asked)["signatures"], self.where)

    def _ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        if self._worker is None:
            self._start()
        worker = self._worker
        if worker is None:
            raise RuntimeError("enter the context before asking: that starts the process")
        try:
            return worker.ask(request, self._seconds)
        except WorkerCrash as error:
            worker.close()
            self._worker = None
            raise ExportError(f"{self.where}: {error}") from None
        except (WorkerError, OptionError):
            raise
        except ParityError as error:  # what the process refused
            raise ExportError(str(error)) from None

    def _close(self) -> None:
        if self._worker is not None:
            self._worker.close()
        self._folder.cleanup()


def _signatures(raw: Any, where: str) -> dict[str, FoundSignature]:
    """A process's description of a file from anywhere: the names are the file's own."""
    try:
        return {
            str(name): FoundSignature(
                tuple(
                    FoundInput(name, _shape(one["shape"]), str(one["dtype"])) for name, one in _named(said["inputs"])
                ),
                tuple(name for name, _ in _named(said["outputs"])),
            )
            for name, said in raw.items()
        }
    except (KeyError, TypeError, ValueError, AttributeError):
        raise ExportError(f"{where}: its runtime describes no signatures; export again") from None


def _named(raw: Any) -> list[tuple[str, Any]]:
    """Name and description of each, given by name or in a list; in a list, a name is enough."""
    if isinstance(raw, Mapping):
        return [(str(name), one) for name, one in raw.items()]
    return [(one, {}) if isinstance(one, str) else (str(one["name"]), one) for one in raw]


def _shape(raw: Any) -> tuple[int | None, ...]:
    if not isinstance(raw, list):
        raise TypeError("no shape")
    return tuple(None if size is None or int(size) < 0 else int(size) for size in raw)

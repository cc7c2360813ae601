"""ONNX Runtime in its own process: opens the graphs of an export, runs them, and times them.

``python -m converter.exporting.runners.onnx`` is that process; it reads requests as ``serving`` describes them:

- ``{"open": {signature: path}, "threads": n}``: opens each file; inputs and outputs of each, and the operators used.
- ``{"run": signature, "inputs": path, "outputs": path}``: reads and writes arrays as safetensors files.
- ``{"time": signature, "inputs": path, "times": n}``: the median of n runs, in milliseconds.

A session is kept until another signature is needed: two sessions of a large model need twice the memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from converter.errors import ParityError, printable
from converter.exporting.onnx_file import OnnxFile, read_onnx
from converter.exporting.runners.timing import milliseconds
from converter.parity.runners.isolation import Worker
from converter.parity.runners.options import SHARED_ENVIRONMENT
from converter.parity.runners.serving import hide, serve

NEEDS = "pip install 'dual-encoder-converter[onnx]'"
MAX_WORDS = 500  # of a runtime's message
_DTYPES = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(int64)": "int64", "tensor(uint8)": "uint8"}

Array = np.ndarray[Any, Any]


def start_onnx(python: Path | None = None, log: Path | None = None) -> Worker:
    """Starts a process for ONNX Runtime.

    Args:
        python: interpreter of an environment with onnxruntime; by default this one.
        log: where its output is kept.
    """
    return Worker("ONNX Runtime", "converter.exporting.runners.onnx", SHARED_ENVIRONMENT, python, log)


class Sessions:
    """Opened graphs, one of them in memory at a time."""

    def __init__(self, runtime: Any) -> None:
        self._runtime = runtime
        self._paths: dict[str, Path] = {}
        self._threads = 1
        self._held: tuple[str, Any] | None = None

    def answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Answers one request; see the module.

        Raises:
            ParityError: a file cannot be opened or run, in the words of the runtime.
        """
        if "open" in request:
            self._held, self._threads = None, int(request.get("threads", 1))
            self._paths = {name: Path(path) for name, path in request["open"].items()}
            return {"signatures": {name: self._open(name) for name in self._paths}}
        if "run" in request:
            outputs = self._run(request["run"], _read(request["inputs"]))
            _write(outputs, request["outputs"])
            return {"outputs": list(outputs)}
        name, inputs = request["time"], _read(request["inputs"])
        return {"milliseconds": milliseconds(lambda: self._run(name, inputs), int(request["times"]))}

    def _open(self, name: str) -> dict[str, Any]:
        said = read_onnx(self._paths[name])  # refuses weights outside the folder before the runtime sees the file
        session = self._session(name)
        return {**_described(session), "operators": dict(said.operators), **_limits(said)}

    def _session(self, name: str) -> Any:
        if self._held is not None and self._held[0] == name:
            return self._held[1]
        if name not in self._paths:
            raise ParityError(f"{printable(name)} was not opened; there are {', '.join(self._paths) or 'none'}")
        self._held = None
        options = self._runtime.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        with self._words(self._paths[name], "cannot be opened"):
            session = self._runtime.InferenceSession(
                str(self._paths[name]), options, providers=["CPUExecutionProvider"]
            )
        self._held = name, session
        return session

    def _run(self, name: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
        session = self._session(name)
        asked = [value.name for value in session.get_inputs()]
        if missing := [field for field in asked if field not in inputs]:
            raise ParityError(f"{self._paths[name].name}: inputs {', '.join(map(printable, missing))} are missing")
        with self._words(self._paths[name], "cannot be run"):
            found = session.run(None, {field: inputs[field] for field in asked})
        return dict(zip((value.name for value in session.get_outputs()), found, strict=True))

    def _words(self, path: Path, what: str) -> Any:
        return _Words(path, what, self._runtime)


class _Words:
    """Turns an error of the runtime, which has its own kinds, into one of ours."""

    def __init__(self, path: Path, what: str, runtime: Any) -> None:
        self._path, self._what = path, what
        self._kinds = tuple(
            kind
            for kind in vars(runtime.capi.onnxruntime_pybind11_state).values()
            if isinstance(kind, type) and issubclass(kind, Exception)
        )

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is not None and isinstance(error, (*self._kinds, RuntimeError, ValueError)):
            words = printable(" ".join(str(error).split()), MAX_WORDS)
            raise ParityError(f"{self._path.name} {self._what}: {words}") from None


def _described(session: Any) -> dict[str, Any]:
    def values(held: Sequence[Any]) -> list[dict[str, Any]]:
        return [
            {
                "name": value.name,
                "dtype": _DTYPES.get(value.type, value.type),
                "shape": [size if isinstance(size, int) else None for size in value.shape],
                "axes": list(value.shape),
            }
            for value in held
        ]

    return {"inputs": values(session.get_inputs()), "outputs": values(session.get_outputs())}


def _limits(said: OnnxFile) -> dict[str, Any]:
    return {"opsets": dict(said.opsets), "weights": len(said.weights), "constants": len(said.constants)}


def _read(path: str) -> dict[str, Array]:
    from safetensors.numpy import load_file

    found: dict[str, Array] = load_file(path)
    return found


def _write(arrays: Mapping[str, Array], path: str) -> None:
    from safetensors.numpy import save_file

    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, path)


def _load() -> Callable[[dict[str, Any]], dict[str, Any]]:
    hide("torch", "tensorflow", "jax", "transformers", "keras")
    import onnxruntime

    return Sessions(onnxruntime).answer


if __name__ == "__main__":
    serve(_load, NEEDS)

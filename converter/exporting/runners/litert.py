"""A .tflite file in LiteRT, in its own process, because an invalid file may end it.

``python -m converter.exporting.runners.litert`` is that process. Requests, as ``converter.parity.runners.serving`` has them:

- ``{"open": path, "threads": n}`` gives ``signatures`` (by name ``inputs`` and ``outputs``, each by name ``shape``, null
  where an axis is free, and ``dtype``), ``operators``, ``axes``, ``runtime`` (the least one) and ``versions``;
- ``{"run": signature, "inputs": file, "outputs": file}`` reads and writes safetensors files;
- ``{"time": signature, "inputs": file, "times": n}`` gives ``milliseconds``, the median of n runs after a warm-up.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import mmap
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from converter.errors import ParityError, listed, printable, unreadable
from converter.exporting.runners.timing import milliseconds
from converter.parity.runners.isolation import Worker
from converter.parity.runners.serving import hide, serve
from converter.system.processes import limit_memory, mapped_memory

Array = np.ndarray[Any, Any]
NEEDS = "pip install 'dual-encoder-converter[litert]'"
ENVIRONMENT = {"CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "1"}
MAX_WORKING_BYTES = 8 * 2**30


def start_litert(python: Path | None = None, log: Path | None = None) -> Worker:
    """Starts a process for LiteRT.

    Args:
        python: interpreter of an environment with ai-edge-litert; by default this one.
        log: where its output is kept.
    """
    return Worker("LiteRT", "converter.exporting.runners.litert", ENVIRONMENT, python, log)


class Session:
    """The file that is open, and what is asked of it."""

    def __init__(self) -> None:
        self.runners: dict[str, Any] = {}
        self.inputs: dict[str, dict[str, dict[str, Any]]] = {}
        self.path = ""
        self.heard = ""

    def answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Answers one request.

        Raises:
            ParityError: the file or the inputs are refused, by us or by LiteRT.
        """
        if "open" in request:
            return self.open(Path(request["open"]), int(request.get("threads", 1)))
        if "run" in request:
            from safetensors.numpy import save_file

            save_file(self.run(request["run"], read_inputs(request)), request["outputs"])
            return {}
        inputs = read_inputs(request)
        return {"milliseconds": milliseconds(lambda: self.run(request["time"], inputs), int(request["times"]))}

    def open(self, path: Path, threads: int) -> dict[str, Any]:
        """Opens a file in place of the one before it, and says what is in it."""
        from ai_edge_litert.interpreter import Interpreter

        from converter.exporting.litert_graph import read_graph

        self.runners, self.path, self.heard = {}, path.name, ""
        data = _mapped(path)
        limit_memory(MAX_WORKING_BYTES + 4 * len(data), mapped_memory())
        with self._refusing("cannot be opened"):
            interpreter = Interpreter(model_path=str(path), num_threads=threads)
            self.runners = {name: interpreter.get_signature_runner(name) for name in interpreter.get_signature_list()}
            self.inputs = {name: _described(runner.get_input_details()) for name, runner in self.runners.items()}
            outputs = {name: _described(runner.get_output_details()) for name, runner in self.runners.items()}
            graph = read_graph(data)
        return {
            "signatures": {name: {"inputs": self.inputs[name], "outputs": outputs[name]} for name in self.runners},
            "operators": graph.operators,
            "axes": graph.axes,
            "runtime": graph.least,
            "versions": {"ai-edge-litert": importlib.metadata.version("ai-edge-litert")},
        }

    def run(self, signature: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Runs a signature; every shape must be one that the file says it takes, and every id one that its dtype can hold.

        Raises:
            ParityError: an input is missing, not known, or of another shape; or LiteRT fails.
        """
        runner = self.runners.get(signature)
        if runner is None:
            raise ParityError(
                f"{self.path}: has no signature {printable(signature)!r}, but {listed(list(self.runners))}"
            )
        takes = self.inputs[signature]
        if inputs.keys() != takes.keys():
            raise ParityError(f"{self.path}: {signature} takes {listed(sorted(takes))}; got {listed(sorted(inputs))}")
        given = {name: self._fitting(name, array, takes[name]) for name, array in inputs.items()}
        with self._refusing(f"{signature} failed"):
            found = runner(**given)
        return {name: np.ascontiguousarray(array) for name, array in found.items()}

    def _fitting(self, name: str, array: Array, wanted: Mapping[str, Any]) -> Array:
        # LiteRT resizes to any input, and may return numbers for inputs that the file is not made for.
        fits = len(array.shape) == len(wanted["shape"]) and all(
            size in (None, found) for size, found in zip(wanted["shape"], array.shape, strict=True)
        )
        if not fits:
            raise ParityError(f"{self.path}: {name} has shape {list(array.shape)}; expected {wanted['shape']}")
        cast = array.astype(wanted["dtype"])
        if array.dtype.kind in "iu" and not np.array_equal(cast, array):
            raise ParityError(f"{self.path}: {name} holds numbers that {wanted['dtype']} cannot; expected ids")
        return cast

    @contextlib.contextmanager
    def _refusing(self, said: str) -> Iterator[None]:
        try:
            yield
        except (ValueError, RuntimeError, LookupError, TypeError, AttributeError, struct.error) as error:
            # LiteRT repeats everything that it has said about the file before.
            heard, self.heard = self.heard, str(error)
            raise ParityError(f"{self.path}: {said}: {printable(self.heard.removeprefix(heard), 300)}") from None


def read_inputs(request: Mapping[str, Any]) -> dict[str, Array]:
    """The inputs of a request, by name."""
    from safetensors.numpy import load_file

    found: dict[str, Array] = load_file(request["inputs"])
    return found


def _mapped(path: Path) -> mmap.mmap:
    from converter.exporting.litert_graph import MARK

    try:
        with path.open("rb") as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except ValueError:  # nothing can be mapped of an empty file
        raise ParityError(f"{path.name}: empty; export again") from None
    except OSError as error:
        raise ParityError(unreadable(path, error)) from None
    if data[4:8] != MARK:
        raise ParityError(f"{path.name}: not a LiteRT file; export again")
    return data


def _described(details: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    # A scalar has neither; a file whose shapes are all known has no signature of them.
    shapes = {
        key: one["shape_signature"] if len(one["shape_signature"]) else one["shape"] for key, one in details.items()
    }
    return {
        key: {
            "shape": [None if size < 0 else int(size) for size in shape],
            "dtype": np.dtype(details[key]["dtype"]).name,
        }
        for key, shape in shapes.items()
    }


def _load() -> Callable[[dict[str, Any]], dict[str, Any]]:
    hide("tensorflow", "tf_keras", "keras", "torch", "jax", "flax", "transformers")
    import ai_edge_litert.interpreter  # noqa: F401 -- whether it is there

    return Session().answer


if __name__ == "__main__":
    serve(_load, NEEDS)

"""The requests that every runtime's process answers: to open a file, describe it, run it and time it.

Requests, each a JSON object (``serving`` adds and takes ``reply``); arrays go through safetensors files:

- ``{"open": path, "threads": n, "precision": p}`` -> ``{"signatures": {name: {"inputs": [...], "outputs": [names]}}}``; an
  input is ``{"name", "shape" (null where free), "dtype"}``;
- ``{"run": signature, "inputs": file, "outputs": file}`` -> ``{}``;
- ``{"time": signature, "inputs": file, "times": n}`` -> ``{"milliseconds": median of n}``, one run before not counted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from safetensors.numpy import load_file, save_file

from converter.errors import ExportError, printable
from converter.exporting.runners.timing import milliseconds

Array = np.ndarray[Any, Any]
_SHOWN = 300  # characters of a runtime's message


class Session(Protocol):
    """An opened file."""

    def signatures(self) -> Mapping[str, Mapping[str, Any]]:
        """Its description, as the answer to ``open``."""
        ...

    def run(self, name: str, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        """Outputs by name."""
        ...


# Path of the file or folder, number of threads (None: the runtime's own choice), precision.
Open = Callable[[Path, int | None, str], Session]
Answer = Callable[[dict[str, Any]], dict[str, Any]]


def answering(open_file: Open) -> Answer:
    """Answers requests about one file after the other, in one process."""
    opened: list[Session] = []

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        if "open" in request:
            opened.clear()
            path = Path(request["open"])
            with _Words(f"{path.name}: cannot be opened"):
                opened.append(open_file(path, request.get("threads"), request.get("precision", "float32")))
                return {"signatures": opened[0].signatures()}
        (session,) = opened
        name = request.get("run") or request["time"]
        inputs = load_file(request["inputs"])
        with _Words(f"{printable(name, 40)} cannot be run"):
            if "time" in request:
                return {"milliseconds": milliseconds(lambda: session.run(name, inputs), int(request["times"]))}
            found = {key: np.ascontiguousarray(value) for key, value in session.run(name, inputs).items()}
        save_file(found, request["outputs"])
        return {}

    return answer


class _Words:
    """Turns any exception of a runtime about a file into a refusal in its own words, shortened and printable."""

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, Exception) and not isinstance(error, MemoryError | ImportError | ExportError):
            words = printable(" ".join(str(error).split()), _SHOWN)
            raise ExportError(f"{self._what}: {type(error).__name__}: {words}") from None

"""The worker's side of a separate process: reads requests, answers each with a file, and distinguishes the kinds of faults.

Requests are JSON lines on standard input, ``{"reply": path, ...}``. A reply is a JSON object with one key. It is
``answer``, ``refused`` (the input's fault), ``unable`` (the environment's), ``missing`` (a package), ``memory`` (it ran out)
or ``failed`` (a bug; its traceback is logged).
"""

from __future__ import annotations

import functools
import gc
import json
import sys
import time
import traceback
from collections.abc import Callable
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from converter.errors import ConverterError, MissingPackage, WorkerError
from converter.system.processes import peak_memory

_Answer = Callable[[dict[str, Any]], dict[str, Any]]


def serve(load: Callable[[], _Answer], needs: str) -> None:
    """Answers requests until standard input ends.

    Args:
        load: imports the framework and gives the function that takes a request without ``reply`` and returns what the
            caller gets; seconds and memory are added.
        needs: what to do where an import fails, for the refusal of every request.
    """
    gc.disable()  # a framework is hundreds of thousands of objects that stay: looking for garbage takes a fifth of the time
    try:
        answer = load()
    except ImportError as error:
        traceback.print_exc()
        answer = _refusing(f"cannot be started: {error}; {needs}")
    gc.freeze()
    gc.enable()
    for line in sys.stdin:
        request = json.loads(line)
        reply = Path(request.pop("reply"))
        partial = reply.with_suffix(".partial")
        partial.write_text(json.dumps(_outcome(answer, request)), "utf-8")
        partial.replace(reply)  # the caller never sees half a reply


def hide(*packages: str) -> None:
    """Makes packages look as if they were not installed, to everything that is imported from now on.

    Frameworks import each other if they can: TensorFlow imports JAX, and transformers imports torch. That costs seconds
    and hundreds of MB, and crashes if TensorFlow comes before a GPU build of torch.
    """
    plain = PathFinder.find_spec

    def find_spec(name: str, path: Any = None, target: Any = None) -> Any:
        return None if name.partition(".")[0] in packages else plain(name, path, target)

    PathFinder.find_spec = find_spec  # type: ignore[assignment, method-assign]


def remember_models() -> None:
    """Lets transformers, which is still to be imported, look through its 450 folders of models once.

    It does so twice, and its ``lru_cache`` remembers 128 of them: a quarter of a second.
    """
    module, function = "transformers.utils.import_utils", "create_import_structure_from_path"
    plain = PathFinder.find_spec

    def find_spec(name: str, path: Any = None, target: Any = None) -> Any:
        spec = plain(name, path, target)
        if name == module and spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def exec_module(made: Any) -> None:
                execute(made)
                cached: Any = getattr(made, function, None)
                if hasattr(cached, "cache_info"):
                    setattr(made, function, functools.cache(cached.__wrapped__))

            spec.loader.exec_module = exec_module  # type: ignore[method-assign, assignment]
        return spec

    PathFinder.find_spec = find_spec  # type: ignore[assignment, method-assign]


def _refusing(reason: str) -> _Answer:
    def refuse(_: dict[str, Any]) -> dict[str, Any]:
        raise MissingPackage(reason)

    return refuse


def _outcome(answer: _Answer, request: dict[str, Any]) -> dict[str, Any]:
    start = time.perf_counter()
    try:
        found = answer(request)
    except (MissingPackage, ImportError) as error:  # transformers imports some packages when a model first needs them
        return {"missing": str(error)}
    except WorkerError as error:
        return {"unable": str(error)}
    except ConverterError as error:
        return {"refused": str(error)}
    except Exception as error:
        traceback.print_exc()
        sys.stderr.flush()
        # torch.OutOfMemoryError and XLA's RESOURCE_EXHAUSTED are not MemoryError, and not here to be named
        text = f"{type(error).__name__}: {error}"
        if isinstance(error, MemoryError) or "OutOfMemory" in text or "RESOURCE_EXHAUSTED" in text:
            return {"memory": text}
        return {"failed": text}
    return {"answer": {**found, "seconds": time.perf_counter() - start, "peak_memory": peak_memory()}}

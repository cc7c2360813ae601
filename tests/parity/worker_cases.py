"""A worker that misbehaves on request, for the tests of what its caller makes of it."""

from __future__ import annotations

import ctypes
import importlib.resources
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from converter.errors import ParityError
from converter.parity.runners.serving import serve


def say(text: str) -> None:
    """Writes a line as a library would, past whatever the worker answers with."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def deep(calls: int) -> None:
    """Aborts as a C++ library does that cannot have memory, below a stack that is longer than what is shown of a log."""
    if calls:
        deep(calls - 1)
    say("terminate called after throwing an instance of 'std::bad_alloc'")
    os.abort()


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Does what ``request["do"]`` says."""
    match request["do"]:
        case "echo":
            return {"echo": request["value"]}
        case "environment":
            return {"path": sys.path, "folder": str(Path.cwd()), "value": os.environ.get(request["value"])}
        case "rules":
            return {"folder": str(importlib.resources.files("rename_rules"))}
        case "refuse":
            raise ParityError("the folder is empty; fill it")
        case "bug":
            raise KeyError("of the bug")
        case "memory":
            raise MemoryError("Unable to allocate 9 TiB")
        case "device memory":
            raise type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory")
        case "print":
            say('{"answer": "not this one"}')
            return {"printed": True}
        case "segfault":
            say("about to crash\x1b[31m")
            ctypes.string_at(0)
        case "abort":
            deep(40)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "exit":
            say("giving up")
            os._exit(3)
        case "sleep":
            say("sleeping")
            time.sleep(600)
        case "child":
            if os.fork() == 0:
                time.sleep(600)
            return {"pid": os.getpid()}
    return {}


if __name__ == "__main__":
    serve(lambda: answer, "nothing")

"""Sees to it that reading a file does nothing else: no file opened beside it, nothing written, started or connected to."""

from __future__ import annotations

import functools
import os
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

MOST_SECONDS = 5.0  # of the processor
MOST_BYTES = 300 * 10**6  # more than before
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_FORBIDDEN = (
    "os.system", "os.exec", "os.posix_spawn", "os.spawn", "subprocess.", "socket.", "os.remove", "os.rename",
    "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod", "os.chown", "os.utime", "os.putenv",
    "shutil.", "pickle.find_class", "ctypes.dlopen", "urllib.", "tempfile.", "builtins.input", "code.__new__",
)  # fmt: skip


class Escaped(BaseException):
    """Reading a file did more than reading that file; not an Exception, so that no reader hides it."""


class _Hook:
    """An audit hook, which Python never takes away again; watches while it has a folder."""

    def __init__(self) -> None:
        self.folder: str | None = None
        self.seen: list[str] = []
        self._readable = tuple(str(Path(path).resolve()) for path in {sys.prefix, sys.base_prefix, *_roots()})
        self._readable += (f"/proc/{os.getpid()}/statm",)

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.folder is None or not self._is_forbidden(event, arguments):
            return
        self.seen.append(f"{event}{arguments!r:.300}")
        raise Escaped(self.seen[-1])

    def _is_forbidden(self, event: str, arguments: tuple[Any, ...]) -> bool:
        if event != "open":
            return event.startswith(_FORBIDDEN)
        path, mode, flags = arguments
        if flags & _WRITING or (isinstance(mode, str) and set(mode) & set("wax+")):
            return True
        if isinstance(path, int):
            return False
        real = os.path.realpath(os.fsdecode(path))
        return not real.startswith((f"{self.folder}/", *self._readable))


def _roots() -> tuple[Path, Path]:
    """Where the package and its rules lie."""
    root = Path(__file__).resolve().parents[2]
    return root / "converter", root / "rename_rules"


@functools.cache
def _hook() -> _Hook:
    hook = _Hook()
    sys.addaudithook(hook)
    return hook


@contextmanager
def nothing_else(folder: Path, factor: float = 1.0) -> Iterator[None]:
    """Fails where the block does more than reading below ``folder``, or takes too much time or memory for it.

    Args:
        folder: all that may be read, the package's own files aside; its files must stay as they are.
        factor: how much slower than usual the code runs, being watched itself.
    """
    hook, before = _hook(), _listing(folder)
    hook.seen.clear()
    hook.folder = str(folder.resolve())
    peak, started = _peak(), time.process_time()
    try:
        yield
    finally:
        hook.folder = None
    if hook.seen:
        raise Escaped(hook.seen[0])
    if (seconds := time.process_time() - started) > MOST_SECONDS * factor:
        raise Escaped(f"took {seconds:.1f} s of the processor")
    if (more := _peak() - peak) > MOST_BYTES:
        raise Escaped(f"took {more / 10**6:.0f} MB more than before")
    if (after := _listing(folder)) != before:
        raise Escaped(f"changed its folder: {before ^ after}")


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _listing(folder: Path) -> set[tuple[str, int, int]]:
    with os.scandir(folder) as entries:
        stats = [(entry.name, entry.stat(follow_symlinks=False)) for entry in entries]
    return {(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats}

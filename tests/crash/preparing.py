"""What is done to a child before it converts: powers taken away, limits set, system calls that fail."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import io
import os
import resource
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from converter.system import renaming
from converter.tensors import batches


def without_kernel() -> None:
    """As on a file system without renameat2's flags, and a kernel without copy_file_range."""
    renaming._in_kernel = lambda *_: False
    del os.copy_file_range


def killed_at_a_rename(number: int) -> None:
    """Ends the process right before one of the renames that replace files."""
    real, seen = Path.rename, 0

    def rename(path: Path, place: Path) -> Path:
        nonlocal seen
        seen += 1
        if seen == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(path, place)

    Path.rename = rename  # type: ignore[method-assign, assignment]


def a_disk_full_for_a_rename(number: int) -> None:
    """One of the renames that replace files finds no room for a name."""
    real, seen = Path.rename, 0

    def rename(path: Path, place: Path) -> Path:
        nonlocal seen
        seen += 1
        if seen == number:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return real(path, place)

    Path.rename = rename  # type: ignore[method-assign, assignment]


def without_powers() -> None:
    """Root that may do no more than the owner of a file may (capset(2), all capabilities cleared)."""
    if os.geteuid() != 0:
        return
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    if ctypes.CDLL(None, use_errno=True).capset(header, (ctypes.c_uint32 * 6)()) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def with_few_files(most: int) -> None:
    """Lets no more files be open than that, standard streams included."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def with_small_files(most: int) -> None:
    """Lets no file grow beyond that; Python has the signal ignored that says so, which leaves EFBIG."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))


def without_holes() -> None:
    """As on a file system without sparse files: a file that is made longer is filled with zeros at once."""
    real = Path.open

    class Filled(io.FileIO):
        def truncate(self, size: int | None = None) -> int:
            if size is not None:
                self.write(b"\0" * (size - self.seek(0, os.SEEK_END)))
            return super().truncate(size)

    def opened(path: Path, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        return Filled(path, mode) if mode == "xb" else real(path, mode, *arguments, **options)

    Path.open = opened  # type: ignore[method-assign]


def without_looking_at_the_disk() -> None:
    """The disk fills only later: in the beginning there seems to be room."""
    real = shutil.disk_usage
    shutil.disk_usage = lambda path: real(path)._replace(free=10**15)  # type: ignore[assignment]


def failing_renames(code: int) -> None:
    """renameat2 that answers with an error, as file systems do that do not have it."""

    class Library:
        def __init__(self, *_: object, **__: object) -> None:
            pass

        @staticmethod
        def renameat2(*_: object) -> int:
            ctypes.set_errno(code)
            return -1

    renaming.ctypes.CDLL = Library  # type: ignore[attr-defined, misc, assignment]


def failing_copies(code: int) -> None:
    """copy_file_range that answers with an error; 0 is what some kernels answer of what they cannot copy."""

    def copy(*_: object) -> int:
        if code == 0:
            return 0
        raise OSError(code, os.strerror(code))

    os.copy_file_range = copy  # type: ignore[assignment]
    batches.GATHERED_BYTES = 1  # the kernel copies large tensors alone


def signalled_within_hdf5(number: int, fate: str) -> None:
    """A signal that comes while HDF5 calls back: what its handler raises is given back as something else, or lost."""
    real = h5py.h5o.get_info

    def get_info(*arguments: object) -> object:
        h5py.h5o.get_info = real
        try:
            signal.raise_signal(number)
        except SystemExit:
            if fate != "lost":
                raise {"SystemError": SystemError, "RuntimeError": RuntimeError}[fate]("an exception set") from None
        return real(*arguments)

    h5py.h5o.get_info = get_info


def signalled_on_the_threshold(number: int, event: str, name: str) -> None:
    """A signal that comes when a ``with`` statement has just been entered, or begins to be left.

    Args:
        number: of the signal.
        event: ``"return"`` of what enters, or ``"call"`` of what leaves.
        name: of the function with the ``yield``.
    """
    code = {"return": "__enter__", "call": "__exit__"}[event]

    def trace(frame: Any, now: str, _: object) -> Any:
        if frame.f_code.co_name == code and frame.f_code.co_filename == contextlib.__file__:
            generator = getattr(frame.f_locals.get("self"), "gen", None)
            if getattr(generator, "__name__", "") == name:
                if now == event:
                    sys.settrace(None)
                    signal.raise_signal(number)
                return trace
        return None

    sys.settrace(trace)


def writing_slowly() -> None:
    """What is written by Python goes to the disk piece by piece, so that a signal lands within it."""

    def write_bytes(path: Path, data: bytes) -> int:
        with path.open("wb", buffering=0) as file:
            for start in range(0, len(data), 64):
                file.write(data[start : start + 64])
                time.sleep(0.001)
        return len(data)

    Path.write_bytes = write_bytes  # type: ignore[method-assign, assignment]


def without_torch(megabytes: int) -> None:
    """``reference`` and ``verify`` without a model: the recording of that size is made up, no process is started."""
    from converter.parity import verify
    from converter.parity.batches import Batch
    from converter.parity.runners.golden import Recording
    from tests.parity.samples import METADATA, inputs, taps

    pooled = np.zeros((megabytes * 2**10, 256), np.float32)
    made = Recording(METADATA, (Batch("one", inputs(), taps() | {"text.pooled": pooled}),))
    verify.start_reference = lambda *_: contextlib.nullcontext()  # type: ignore[assignment]
    verify.all_batches = lambda *_: (made.batches, "")  # type: ignore[assignment]
    verify.ask_run = lambda *_: made  # type: ignore[assignment]


NO_RENAMES = (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP)
NO_COPIES = (errno.ENOSYS, errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM, 0)

"""flax's own reader beside ours: what we take from a Flax file, flax must find there too, bit for bit."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from converter.specs import Checkpoint, StoredTensor

Restore = Callable[[bytes], Any]
_ASK = "import site; print(site.getsitepackages()[0])"


@functools.cache
def flaxs_reader() -> Restore | None:
    """``flax.serialization.msgpack_restore``; None where FLAX_PYTHON names no environment that has it.

    The packages of that environment come last on the path: the version of Python must be this one's.
    """
    if (python := os.environ.get("FLAX_PYTHON")) is None:
        return None
    sys.path.append(subprocess.run([python, "-c", _ASK], check=True, capture_output=True, text=True).stdout.strip())
    from flax import serialization

    restore: Restore = serialization.msgpack_restore
    return restore


def check_same(checkpoint: Checkpoint, path: Path, restore: Restore) -> None:
    """Compares names, dtypes, shapes and bytes with what flax reads from the same file."""
    data = path.read_bytes()
    tree = restore(data)
    while isinstance(tree.get("params"), dict):
        tree = tree["params"]
    theirs = dict(_flat(tree, ()))
    assert set(theirs) == set(checkpoint.tensors), set(theirs) ^ set(checkpoint.tensors)
    for name, array in theirs.items():
        ours = checkpoint.tensors[name]
        assert (ours.shape, ours.dtype) == (array.shape, array.dtype.name), name
        assert _bytes(data, ours) == array.tobytes(), name


def _flat(tree: Mapping[str, Any], above: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(value, (*above, key))
        elif isinstance(value, np.ndarray | np.generic) and not np.iscomplexobj(value):
            yield "/".join((*above, key)), value


def _bytes(data: bytes, tensor: StoredTensor) -> bytes:
    assert tensor.extent is not None
    runs = tensor.extent.runs(0, tensor.extent.nbytes)
    return b"".join(data[offset : offset + nbytes] for offset, nbytes in runs)

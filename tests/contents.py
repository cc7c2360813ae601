"""What is in a written file, read without the converter, in a form that two files can be compared in."""

from __future__ import annotations

import re
from pathlib import Path

import h5py
import numpy as np

from fixtures.same_tensors import read


def read_tensors(path: Path) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """Dtype, shape and bytes of every tensor of a safetensors file."""
    tensors = read(path)
    assert tensors
    return tensors


def read_h5(path: Path) -> dict[str, object]:
    """Every group's attributes and every dataset's dtype, shape and bytes."""
    with h5py.File(path) as file:
        found: dict[str, object] = {"/": attributes(file)}

        def visit(path: str, item: h5py.Group | h5py.Dataset) -> None:
            is_group = isinstance(item, h5py.Group)
            value = attributes(item) if is_group else (str(item.dtype), item.shape, item[()].tobytes())
            found[unnumbered(path)] = value

        file.visititems(visit)
    return found


def attributes(item: h5py.Group) -> dict[str, list[str]]:
    """Attributes as text, except the Keras version, which depends on the file's writer."""
    return {
        name: [unnumbered(text.decode() if isinstance(text, bytes) else text) for text in np.ravel(value).tolist()]
        for name, value in item.attrs.items()
        if name != "keras_version"
    }


def unnumbered(name: str) -> str:
    """A name without the number that a second model of the same process has in its root scope."""
    return re.sub(r"\b(tf\w+_model)_\d+\b", r"\1", name)

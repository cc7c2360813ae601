"""tf_model.h5 files written with plain h5py, in every way that HDF5 has, sound or not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from converter.specs import StoredTensor

Array = np.ndarray[Any, Any]
ROOT = "tf_vision_text_dual_encoder_model"
TOP = "top_level_model_weights"


@contextmanager
def sound_file(path: Path, **options: Any) -> Iterator[tuple[h5py.File, h5py.Group]]:
    """A file with one layer, ``a``, whose ``weight_names`` is set at the end to what was put below ``a/r``."""
    with h5py.File(path, "w", **options) as file:
        file.attrs["layer_names"] = np.array([b"a"])
        layer = file.create_group("a")
        yield file, layer
        if "weight_names" not in layer.attrs:
            names = [f"r/{name}".encode() for name in layer.get("r", {})]
            layer.attrs["weight_names"] = np.array(names or np.zeros(0, "S1"))


def write_h5(
    path: Path,
    tensors: Mapping[str, Array],
    *,
    root: str = ROOT,
    attribute_bytes: int = 64_512,
    userblock: int = 0,
    **dataset: Any,
) -> None:
    """Writes TensorFlow tensors as Keras 2 does.

    Args:
        path: must not exist.
        tensors: by name without root scope and ``:0``.
        root: root scope to write.
        attribute_bytes: longer lists of names are split.
        userblock: bytes in front of the HDF5 file.
        dataset: options of every ``create_dataset`` that has axes, for example ``compression="gzip"``.
    """
    groups: dict[str, list[str]] = {}
    for name in tensors:
        groups.setdefault(name.split("/")[0] if "/" in name else TOP, []).append(name)
    with h5py.File(path, "x", userblock_size=userblock) as file:
        split_names(file, "layer_names", [group for group in groups if group != TOP], attribute_bytes)
        file.attrs["backend"] = b"tensorflow"
        for group, names in groups.items():
            layer = file.create_group(group)
            split_names(layer, "weight_names", [f"{root}/{name}:0" for name in names], attribute_bytes)
            for name in names:
                options = dataset if tensors[name].size and tensors[name].ndim else {}
                layer.create_dataset(f"{root}/{name}:0", data=tensors[name], **options)


def split_names(holder: h5py.Group, attribute: str, names: list[str], limit: int) -> None:
    """Writes a list of names as Keras 2 does: numbered attributes where one would be too long."""
    data = [name.encode() for name in names]
    parts = 1
    while any(np.array(part).nbytes > limit for part in np.array_split(np.array(data), parts)):
        parts += 1
    if parts == 1:
        holder.attrs[attribute] = data
    else:
        for number, part in enumerate(np.array_split(np.array(data), parts)):
            holder.attrs[f"{attribute}{number}"] = part


def read_all(path: Path) -> dict[str, Array]:
    """Reads every tensor with h5py, by the lists of names, as transformers does."""
    found: dict[str, Array] = {}
    with h5py.File(path, "r") as file:
        for layer in file:
            names = list(file[layer].attrs.get("weight_names", ()))
            for number in range(100):
                names += list(file[layer].attrs.get(f"weight_names{number}", ()))
            for name in names:
                text = name.decode() if isinstance(name, bytes) else name
                found[text.partition("/")[2].removesuffix(":0")] = np.asarray(file[layer][text])
    return found


def value(tensor: StoredTensor) -> Array:
    """Reads a tensor where its extent says, else by rows, two at a time."""
    if tensor.extent is None:
        assert tensor.read_rows is not None
        rows = tensor.shape[0] if tensor.shape else 1
        parts = [tensor.read_rows(row, min(row + 2, rows)) for row in range(0, rows, 2)]
        return np.concatenate([np.atleast_1d(part) for part in parts]).reshape(tensor.shape)
    with tensor.extent.path.open("rb") as file:
        file.seek(tensor.extent.offset)
        return np.frombuffer(file.read(tensor.extent.nbytes), tensor.dtype).reshape(tensor.shape)

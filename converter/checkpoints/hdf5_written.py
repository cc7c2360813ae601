"""Reads back a ``tf_model.h5`` that this process has just written, in a third of the time that a stranger's takes.

Nobody else writes to a staging folder. So links, filters and external data need no search; each tensor that the file
lists is found, and its shape, dtype and place are read from the file.
"""

from __future__ import annotations

import math
from pathlib import Path

import h5py

from converter.checkpoints.hdf5 import CONTAINER, corrupt, listed_names, type_of, unreadable_hdf5
from converter.errors import printable
from converter.specs import Checkpoint, Extent, StoredTensor
from converter.tensors.casts import DTYPES

# What HDF5 can hold; it takes 20 ms to import bfloat16.
_DTYPES = tuple(dtype for dtype in DTYPES if dtype != "bfloat16")


def read_written(path: Path) -> Checkpoint:
    """Reads where every tensor lies.

    Raises:
        CorruptCheckpoint: the file lists a tensor that it does not hold as one run of bytes.
    """
    try:
        with h5py.File(path, "r", locking=False) as file:
            return Checkpoint("tf", CONTAINER, _tensors(path, file), (path,))
    except (RuntimeError, KeyError, OSError, ValueError, TypeError) as error:
        raise unreadable_hdf5(path, "HDF5 cannot read it", error) from None


def _tensors(path: Path, file: h5py.File) -> dict[str, StoredTensor]:
    size = path.stat().st_size
    tensors: dict[str, StoredTensor] = {}
    dtype = _DTYPES[0]
    for where, name in listed_names(path, file):
        dataset = h5py.h5d.open(file.id, where.encode())
        kind, shape = dataset.get_type(), dataset.get_space().get_simple_extent_dims()
        if not kind.equal(type_of(dtype)):  # as that of the tensor before
            dtype = next((known for known in _DTYPES if kind.equal(type_of(known))), "")
        nbytes = math.prod(shape) * DTYPES.get(dtype, 0)
        offset = dataset.get_offset() if nbytes else 0
        if not dtype or offset is None or offset + nbytes > size or name in tensors:
            raise corrupt(path, f"{printable(where)} is not stored as it was written")
        tensors[name] = StoredTensor(name, dtype, shape, Extent(path, offset, nbytes))
    return tensors

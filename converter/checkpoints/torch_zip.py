"""The ``pytorch_model.bin`` container of torch 1.6 and later, without torch: a zip archive with a pickle in it.

All entries are in one folder. ``data.pkl`` describes the tensors, and ``data/<key>`` are the storages; there are also
``byteorder`` and ``version``. Nothing is compressed, so a contiguous tensor is a run of bytes of the file.
Source: torch/serialization.py (_save, _load), caffe2/serialize/inline_container.cc.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path

from converter.checkpoints import foreign
from converter.checkpoints.pickle_machine import MAX_PICKLE_BYTES
from converter.checkpoints.state_dicts import find_state_dict
from converter.checkpoints.strides import MAX_EXPANDED_BYTES, contiguous, reach, row_reader
from converter.checkpoints.torch_pickle import View, read_pickle, write_pickle
from converter.checkpoints.zip_directory import Entry, entry_names, read_directory, seal, write_directory
from converter.errors import CorruptCheckpoint, UnsupportedContainer, listed, printable
from converter.specs import MAX_NAME_CHARACTERS, Checkpoint, Extent, Shape, StoredTensor
from converter.tensors.casts import DTYPES

MAX_NOTE_BYTES = 100

__all__ = ["read_header", "seal", "write_header"]


def read_header(path: Path) -> Checkpoint:
    """Finds every tensor of a ``pytorch_model.bin``, also inside a training script's dict.

    Contiguous tensors have an extent, other views into a storage are read by rows.

    Raises:
        UnsupportedContainer: big-endian, TorchScript, another zip archive, or a pickle of more than tensors.
        CorruptCheckpoint: the archive, the pickle or a tensor's place is invalid.
    """
    entries = _entries(path)
    tensors = {}
    saved = read_pickle(path, _read(path, entries["data.pkl"]))
    state_dict, beside = find_state_dict(path, saved, lambda value: isinstance(value, View))
    for name, value in state_dict.items():
        if not isinstance(name, str) or len(name) > MAX_NAME_CHARACTERS:
            raise _corrupt(path, f"a tensor's name is {printable(repr(name), 60)}")
        tensors[name] = _stored(path, name, value, entries)
    return Checkpoint("pt", "PyTorch pickle (zip)", tensors, (path,), beside=beside)


def write_header(path: Path, tensors: Iterable[tuple[str, str, Shape]]) -> dict[str, StoredTensor]:
    """Creates a ``pytorch_model.bin`` of its full size and says where each tensor's bytes go.

    torch checks the archive's checksums, so ``seal`` must follow when all bytes are written.

    Args:
        path: must not exist.
        tensors: name, dtype and shape of each.

    Returns:
        By name, in file order.
    """
    described = list(tensors)
    folder = path.stem
    sizes = [math.prod(shape) * DTYPES[dtype] for _, dtype, shape in described]
    contents: list[tuple[str, bytes | int]] = [
        (f"{folder}/data.pkl", write_pickle(described)),
        (f"{folder}/byteorder", b"little"),
        *((f"{folder}/data/{number}", size) for number, size in enumerate(sizes)),
        (f"{folder}/version", b"3\n"),
    ]
    offsets = write_directory(path, contents)
    return {
        name: StoredTensor(name, dtype, shape, Extent(path, offsets[f"{folder}/data/{number}"], sizes[number]))
        for number, (name, dtype, shape) in enumerate(described)
    }


def _entries(path: Path) -> dict[str, Entry]:
    """The archive's entries by their name below their common folder."""
    names = entry_names(path)
    if any(name.count("/") == 1 and name.endswith("/constants.pkl") for name in names):
        raise UnsupportedContainer(
            f"{path}: a TorchScript archive, which holds a program and not only weights; save the state_dict of the "
            "module with torch.save"
        )
    if any(name.count("/") == 1 and name.endswith("/archive_format") for name in names):
        raise UnsupportedContainer(
            f"{path}: a program that torch.export saved, not only weights; save the state_dict of the module with torch.save"
        )
    if names and all(name.endswith(".npy") for name in names):
        raise UnsupportedContainer(f"{path}: {foreign.NPZ}")
    if not any(name.count("/") == 1 and name.endswith("/data.pkl") for name in names):
        raise UnsupportedContainer(
            f"{path}: a zip archive that torch.save did not write (no data.pkl), which holds "
            f"{listed(sorted(names), 5)}; unpack it, and name the folder with config.json and the weights"
        )
    entries = read_directory(path)
    folder = next(iter(entries), "").partition("/")[0] + "/"
    below = {name.removeprefix(folder): entry for name, entry in entries.items() if name.startswith(folder)}
    if "data.pkl" not in below:
        raise _corrupt(path, f"its data.pkl lies outside the folder {printable(folder)}")
    if len(below) != len(entries):
        raise _corrupt(path, f"it holds entries outside the folder {printable(folder)}")
    order = _read(path, below["byteorder"], MAX_NOTE_BYTES) if "byteorder" in below else b"little"
    if order != b"little":
        raise UnsupportedContainer(
            f"{path}: its byte order is {printable(repr(order))}, expected little; load and save it on a little-endian "
            "machine"
        )
    return below


def _read(path: Path, entry: Entry, limit: int = MAX_PICKLE_BYTES) -> bytes:
    if entry.nbytes > limit:
        raise _corrupt(path, f"{printable(entry.name)} has {entry.nbytes:,} bytes, accepted are up to {limit:,}")
    with path.open("rb") as file:
        file.seek(entry.data)
        return file.read(entry.nbytes)


def _stored(path: Path, name: str, view: View, entries: Mapping[str, Entry]) -> StoredTensor:
    """Checks that a view is inside its storage, and the storage inside the archive."""
    where = f"tensor {printable(name)}"
    entry = entries.get(f"data/{view.storage.key}")
    if entry is None:
        raise _corrupt(path, f"{where} is in storage {printable(view.storage.key, 40)}, which the archive lacks")
    held, width = view.storage.nbytes, DTYPES[view.dtype]
    if held > entry.nbytes:
        raise _corrupt(path, f"the storage of {where} would have {held:,} bytes, the archive holds {entry.nbytes:,}")
    end = (view.offset + reach(view.shape, view.stride)) * width
    if 0 not in view.shape and end > held:
        raise _corrupt(path, f"{where} would reach to byte {end:,} of a storage of {held:,}")
    nbytes = math.prod(view.shape) * width
    if nbytes > max(held, MAX_EXPANDED_BYTES):
        raise _corrupt(path, f"{where} would expand a storage of {held:,} bytes to {nbytes:,}")
    offset = entry.data + view.offset * width
    if nbytes == 0 or contiguous(view.shape, view.stride):
        return StoredTensor(name, view.dtype, view.shape, Extent(path, offset if nbytes else entry.data, nbytes))
    reader = row_reader(path, offset, view.dtype, view.shape, view.stride)
    return StoredTensor(name, view.dtype, view.shape, None, reader)


def _corrupt(path: Path, what: str) -> CorruptCheckpoint:
    return CorruptCheckpoint(f"{path}: not a valid PyTorch checkpoint: {what}; download or save it again")

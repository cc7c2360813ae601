"""Which module writes a weights file, by its name, and reads it back. Each is imported when it is needed."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from converter.checkpoints import shards
from converter.checkpoints.detect import read_header
from converter.specs import Checkpoint, Framework, Shape, StoredTensor


def write_header(
    path: Path, tensors: Iterable[tuple[str, str, Shape]], framework: Framework, root: str | None
) -> dict[str, StoredTensor]:
    """Creates a weights file, everything in it but the values of the tensors.

    Args:
        path: by whose ending the container is chosen.
        tensors: name, dtype and shape of each.
        framework: whose names they are.
        root: the scope that names in a ``tf_model.h5`` begin with; None in shards.

    Returns:
        By name, where the values of each go.
    """
    if path.name.endswith(".h5"):
        from converter.checkpoints import hdf5

        return hdf5.write_header(path, tensors, root)
    if path.name.endswith(".bin"):
        from converter.checkpoints import torch_zip

        return torch_zip.write_header(path, tensors)
    if path.name.endswith(".msgpack"):
        from converter.checkpoints import flax

        return flax.write_header(path, tensors)
    from converter.checkpoints import safetensors

    return safetensors.write_header(path, tensors, framework)


def seal(path: Path, threads: int) -> None:
    """Writes what follows from the values, when they are all there: the CRCs of an archive.

    Args:
        path: the file.
        threads: how many may compute.
    """
    if path.suffix == ".bin":
        from converter.checkpoints import torch_zip

        torch_zip.seal(path, threads)


def read_back(path: Path) -> Checkpoint:
    """Reads the header of a file, or of the index of files, that this process has just written.

    No child process tries HDF5 first, which would double the time: no other process writes to a staging folder.
    """
    if shards.is_index(path.name):
        return shards.read_index(path, lambda shard: read_back(shard))
    if path.name.endswith(".h5"):
        from converter.checkpoints.hdf5_written import read_written

        return read_written(path)
    return read_header(path)

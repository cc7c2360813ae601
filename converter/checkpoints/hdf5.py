"""The ``tf_model.h5`` container: walks and writes its groups, and finds every dataset's bytes.

The format is that of transformers 4.x, after Keras 2. The root has the attributes ``layer_names``, ``backend`` and
``keras_version``. There is a group per layer, and ``top_level_model_weights``, which ``layer_names`` does not list.
Each group has an attribute ``weight_names``. A dataset's path is its group, then its full name with root scope and
``:0``. An attribute of more
than 64,512 bytes is split into ``weight_names0``, ``weight_names1`` ... A shard is flat: ``layer_names`` lists the
variables themselves, without root scope, and these are the datasets' paths.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from converter.checkpoints.hdf5_chunks import UnsoundChunks, check_chunks, check_filters, check_packed
from converter.checkpoints.rehearsal import rehearse
from converter.checkpoints.remote import RemoteFile
from converter.errors import (
    TOO_MANY_FILES,
    CorruptCheckpoint,
    SourceError,
    UnsupportedContainer,
    listed,
    printable,
    unreadable,
)
from converter.specs import MAX_AXES, MAX_NAME_CHARACTERS, Checkpoint, Extent, Shape, StoredTensor
from converter.tensors.casts import DTYPES, numpy_dtype
from converter.tensors.layouts import ALIGNMENT

_WHOLE = "model_weights"
_COMPARED = 2**22  # bytes or numbers of a tensor that are compared at once
CONTAINER = "tf_model.h5"
TOP_LEVEL = "top_level_model_weights"
# What Keras keeps below the 64 KB that HDF5 grants an object header.
MAX_ATTRIBUTE_BYTES = 64_512
MAX_NAMES_BYTES = 64 * 2**20
MAX_LINKS = 500_000
_ALIGNED_FROM = 1024  # bytes; copying so little is as fast as finding it


def is_hdf5(path: Path) -> bool:
    """Whether a file is HDF5, with a user block in front of it or without."""
    return not isinstance(path, RemoteFile) and bool(h5py.is_hdf5(path))


def read_header(path: Path) -> Checkpoint:
    """Finds every tensor of a ``tf_model.h5``.

    Plain contiguous datasets have an extent. Chunked, compressed and big-endian ones are read by rows through HDF5;
    the file stays open for them until ``close``.

    Raises:
        UnsupportedContainer: an HDF5 file of another kind.
        CorruptCheckpoint: links out of the file, external or virtual data, filters that need a plugin, or datasets beyond
            the end of the file. Also names that contradict the datasets, and metadata that crashes HDF5.
    """
    if not isinstance(path, RemoteFile):  # a child cannot share the connection
        rehearse(path, try_here)
    return read_here(path)


def read_here(path: Path) -> Checkpoint:
    """Finds every tensor as ``read_header`` does, but in this process: for files that do not crash HDF5."""
    try:
        file = h5py.File(path.open("rb") if isinstance(path, RemoteFile) else path, "r", locking=False)
    except (OSError, RuntimeError) as error:
        raise unreadable_hdf5(path, "HDF5 cannot open it", error) from None
    try:
        below = _check_kind(path, file)
        size = path.stat().st_size
        # A whole model's file holds the states of its optimizer, too.
        paths = {where for where in _walk(path, file) if where.startswith(below)}
        tensors: dict[str, StoredTensor] = {}
        used: set[str] = set()
        for listed_name, plain in listed_names(path, file[below] if below else file):
            where = below + listed_name
            if len(plain) > MAX_NAME_CHARACTERS:
                raise corrupt(path, f"tensor {printable(plain)} has a name of {len(plain):,} characters")
            if where in used:
                raise corrupt(path, f"it lists {printable(plain)} twice")
            if where not in paths:
                raise corrupt(path, f"weight_names lists {printable(where)}, which is not there")
            used.add(where)
            tensor = _dataset(path, file, where, plain, size)
            # Tied weights are in the group of every layer that uses them.
            if plain in tensors and not _are_equal(tensors[plain], tensor):
                raise corrupt(path, f"it holds {printable(plain)} twice, with different values")
            tensors.setdefault(plain, tensor)
        if paths - used:
            raise corrupt(path, f"no weight_names lists these datasets: {listed(sorted(paths - used))}")
    except BaseException as error:
        file.close()
        if isinstance(error, RuntimeError | KeyError | OSError | ValueError | UnicodeError | TypeError):
            raise unreadable_hdf5(path, "HDF5 cannot read it", error) from None
        raise
    if all(tensor.extent is not None for tensor in tensors.values()):
        file.close()
    return Checkpoint("tf", CONTAINER, tensors, (path,), {}, file.close)


def try_here(path: Path) -> None:
    """Reads as ``read_here`` does and closes the file: what a child process tries."""
    read_here(path).close()


def write_header(path: Path, tensors: Iterable[tuple[str, str, Shape]], root: str | None) -> dict[str, StoredTensor]:
    """Creates a ``tf_model.h5`` with every dataset allocated but not written, and says where each one's bytes go.

    Args:
        path: must not exist.
        tensors: name without root scope and ``:0``, dtype and shape of each, in variable-creation order.
        root: root scope of the model; None for a file that is one of several, which are flat.

    Returns:
        By name.
    """
    with _system_errors(path):
        return _write_shard(path, list(tensors)) if root is None else _write_groups(path, tensors, root)


@contextlib.contextmanager
def _system_errors(path: Path) -> Iterator[None]:
    """HDF5 says a full disk as a RuntimeError with the number of the system's error somewhere in its text."""
    try:
        yield
    except RuntimeError as error:
        if found := re.search(r"errno = (\d+)", str(error)):
            raise OSError(int(found[1]), os.strerror(int(found[1])), str(path)) from error
        raise


def _create(path: Path) -> h5py.File:
    """A new file in which all but the smallest tensors begin where frameworks can use them in place."""
    return h5py.File(path, "x", locking=False, alignment_threshold=_ALIGNED_FROM, alignment_interval=ALIGNMENT)


def _write_groups(path: Path, tensors: Iterable[tuple[str, str, Shape]], root: str) -> dict[str, StoredTensor]:
    groups: dict[str, list[tuple[str, str, Shape]]] = {}
    for name, dtype, shape in tensors:
        groups.setdefault(name.split("/")[0] if "/" in name else TOP_LEVEL, []).append((name, dtype, shape))
    groups.setdefault(TOP_LEVEL, [])  # there in what transformers 4.x writes, empty or not
    placed, lists = {}, _properties()
    with _create(path) as file:
        layers = [group for group in groups if group != TOP_LEVEL]
        _write_names(file, "layer_names", layers)
        # What transformers 4.x writes, by which readers choose a method.
        file.attrs["backend"] = np.bytes_(b"tensorflow")
        file.attrs["keras_version"] = np.bytes_(b"2.15.0")
        for group_name, members in groups.items():
            group = file.create_group(group_name)
            _write_names(group, "weight_names", [f"{root}/{name}:0" for name, _, _ in members])
            for name, dtype, shape in members:
                placed[name] = _allocate(path, group, f"{root}/{name}:0", name, dtype, shape, lists)
    return placed


def _write_shard(path: Path, tensors: list[tuple[str, str, Shape]]) -> dict[str, StoredTensor]:
    lists = _properties()
    with _create(path) as file:
        _write_names(file, "layer_names", [f"{name}:0" for name, _, _ in tensors])
        return {name: _allocate(path, file, f"{name}:0", name, dtype, shape, lists) for name, dtype, shape in tensors}


def strip_scope(name: str) -> str:
    """Removes the root scope, under any name, and ``:0`` from a variable's name."""
    return name.partition("/")[2].removesuffix(":0")


def _check_kind(path: Path, file: h5py.File) -> str:
    """Where the layers are: at the root, or in the group that Keras 2 saves a whole model's weights in."""
    if _has_layers(file):
        return ""
    # Keras 3, and tf-keras since 2.12 where the name ends with .weights.h5: variables are numbered, layer by layer.
    if {"layers", "vars", "_layer_checkpoint_dependencies"}.intersection(file):
        raise UnsupportedContainer(
            f"{path}: weights in Keras' .weights.h5 format, which stores no variable names; load them into the model, "
            "write it with save_pretrained, and convert the tf_model.h5"
        )
    if isinstance(file.get(_WHOLE, getlink=True), h5py.HardLink):
        if isinstance(file[_WHOLE], h5py.Group) and _has_layers(file[_WHOLE]):
            return f"{_WHOLE}/"
        raise UnsupportedContainer(
            f"{path}: a whole Keras model saved as HDF5; load it with Keras 2 and write it with save_pretrained"
        )
    raise UnsupportedContainer(
        f"{path}: an HDF5 file without the attribute layer_names of a tf_model.h5; write the model with save_pretrained"
    )


def _has_layers(holder: h5py.Group) -> bool:
    return "layer_names" in holder.attrs or "layer_names0" in holder.attrs


def _are_equal(first: StoredTensor, second: StoredTensor) -> bool:
    """Whether two tensors are equal bit for bit, some of each in memory at once; remotely only by shape."""
    if (first.dtype, first.shape) != (second.dtype, second.shape):
        return False
    if first.extent is not None and second.extent is not None:
        if isinstance(first.extent.path, RemoteFile):
            return True
        steps = range(0, first.extent.nbytes, _COMPARED)
        return all(_piece(first.extent, start) == _piece(second.extent, start) for start in steps)
    rows = first.shape[0] if first.shape else 1
    step = max(1, _COMPARED // max(first.size // max(rows, 1), 1))
    pieces = ((start, min(start + step, rows)) for start in range(0, rows, step))
    return all(_rows(first, *piece).tobytes() == _rows(second, *piece).tobytes() for piece in pieces)


def _piece(extent: Extent, start: int) -> bytes:
    with extent.path.open("rb") as file:
        file.seek(extent.offset + start)
        return file.read(min(_COMPARED, extent.nbytes - start))


def _rows(tensor: StoredTensor, start: int, stop: int) -> np.ndarray[Any, Any]:
    if tensor.read_rows is not None:
        return tensor.read_rows(start, stop)
    extent, dtype = tensor.extent, numpy_dtype(tensor.dtype)
    if extent is None:
        raise ValueError(f"{tensor.name} has neither an extent nor a reader")
    width = tensor.size // tensor.shape[0] if tensor.shape else 1
    offset = extent.offset + start * width * dtype.itemsize
    return np.fromfile(extent.path, dtype, (stop - start) * width, offset=offset)


def _walk(path: Path, file: h5py.File) -> set[str]:
    """Every dataset's path. Links are looked at, not followed; anything but a hard link is refused."""
    datasets: set[str] = set()
    count = 0

    def visit(name: bytes, info: Any) -> str | None:
        """Gives back what is wrong, which ends the walk; an exception would leave h5py as a SystemError."""
        nonlocal count
        count += 1
        if count > MAX_LINKS:
            return f"it holds more than {MAX_LINKS:,} links"
        if info.type != h5py.h5l.TYPE_HARD:
            return f"{printable(name.decode(errors='replace'))} is a link to another place and holds no data"
        try:
            text = name.decode()
            if h5py.h5o.get_info(file.id, name).type == h5py.h5o.TYPE_DATASET:
                datasets.add(text)
        except (RuntimeError, KeyError, OSError, ValueError) as error:
            return f"HDF5 cannot read it: {printable(str(error))}"
        return None

    problem = file.id.links.visit(visit, info=True)
    if problem is not None:
        raise corrupt(path, problem)
    return datasets


def listed_names(path: Path, file: h5py.Group) -> Iterator[tuple[str, str]]:
    """The path of every dataset that the file lists, and the tensor's name."""
    layers = _read_names(path, file, "layer_names")
    if layers and all(name.endswith(":0") for name in layers):
        yield from ((name, name.removesuffix(":0")) for name in layers)
        return
    groups = [*layers, *([TOP_LEVEL] if TOP_LEVEL in file and TOP_LEVEL not in layers else [])]
    unlisted = sorted(set(file) - set(groups))
    if unlisted or len(set(groups)) != len(groups):
        raise corrupt(path, f"layer_names lists {listed(layers)}; the file also holds {listed(unlisted)}")
    for group in groups:
        if group not in file or not isinstance(file[group], h5py.Group):
            raise corrupt(path, f"layer_names lists {printable(group)}, which is not a group of it")
        for name in _read_names(path, file[group], "weight_names"):
            yield f"{group}/{name}", strip_scope(name)


def _read_names(path: Path, holder: h5py.Group, attribute: str) -> list[str]:
    """Reads a list of names from an attribute, or from the numbered ones that it was split into."""
    if attribute in holder.attrs:
        parts = [attribute]
    else:
        parts = []
        while f"{attribute}{len(parts)}" in holder.attrs:
            parts.append(f"{attribute}{len(parts)}")
    if not parts:
        raise corrupt(path, f"{printable(holder.name)} has no attribute {attribute}")
    names: list[str] = []
    for part in parts:
        held = holder.attrs.get_id(part)
        count = math.prod(held.shape)
        if count and (held.get_storage_size() > MAX_NAMES_BYTES or count > MAX_LINKS):
            raise corrupt(path, f"attribute {part} has {held.get_storage_size():,} bytes")
        names += [name.decode() if isinstance(name, bytes) else str(name) for name in np.ravel(holder.attrs[part])]
    return names


def _write_names(holder: h5py.Group, attribute: str, names: list[str]) -> None:
    """Writes a list of names as fixed-length bytes, split if it is too long for one attribute."""
    data = np.array([name.encode() for name in names] or np.zeros(0, "S1"))
    if data.nbytes <= MAX_ATTRIBUTE_BYTES:
        holder.attrs[attribute] = data
        return
    parts = math.ceil(data.nbytes / MAX_ATTRIBUTE_BYTES)
    while any(part.nbytes > MAX_ATTRIBUTE_BYTES for part in np.array_split(data, parts)):
        parts += 1
    for number, part in enumerate(np.array_split(data, parts)):
        holder.attrs[f"{attribute}{number}"] = part


def _dataset(path: Path, file: h5py.File, where: str, name: str, size: int) -> StoredTensor:
    # Not by h5py.Dataset, which takes five times as long: some checkpoints have tens of thousands of them.
    opened = h5py.h5d.open(file.id, where.encode())
    properties, space, kind = opened.get_create_plist(), opened.get_space(), opened.get_type()
    layout = properties.get_layout()
    if properties.get_external_count() or layout == h5py.h5d.VIRTUAL:
        raise corrupt(path, f"{printable(where)} keeps its data in another file")
    codes = [properties.get_filter(index)[0] for index in range(properties.get_nfilters())]
    read_as = kind.dtype
    dtype = read_as.newbyteorder("<").name if read_as.kind in "fiu" else str(read_as)
    shape = space.get_simple_extent_dims()
    if dtype not in DTYPES or space.get_simple_extent_type() == h5py.h5s.NULL or len(shape) > MAX_AXES:
        raise corrupt(path, f"{printable(where)} has dtype {printable(dtype, 60)}, which no weight has")
    nbytes = math.prod(shape) * DTYPES[dtype]
    try:
        check_filters(codes)
        if layout == h5py.h5d.CHUNKED:
            check_chunks(h5py.Dataset(opened), codes, size)
    except UnsoundChunks as error:
        raise corrupt(path, f"{printable(where)} {error}") from None
    stored = opened.get_storage_size()
    if layout != h5py.h5d.CHUNKED and stored not in (0, math.prod(shape) * kind.get_size()):
        raise corrupt(path, f"{printable(where)} holds {stored:,} bytes, not {nbytes:,}")
    # Not by read_as: h5py reports a stored bfloat16 as float32, and reads it as that.
    as_stored = kind.equal(type_of(dtype))
    contiguous = layout == h5py.h5d.CONTIGUOUS and as_stored
    offset = opened.get_offset() if contiguous and nbytes else 0
    if contiguous and offset is not None:
        if offset + nbytes > size:
            raise corrupt(path, f"{printable(where)} lies beyond the end of the file: it is truncated")
        return StoredTensor(name, dtype, shape, Extent(path, offset, nbytes))
    return StoredTensor(name, dtype, shape, None, _row_reader(path, h5py.Dataset(opened), codes, where, dtype))


def _row_reader(path: Path, dataset: h5py.Dataset, codes: list[int], where: str, dtype: str) -> Any:
    def read_rows(start: int, stop: int) -> np.ndarray[Any, Any]:
        try:
            if dataset.chunks:
                check_packed(dataset, codes, start, stop)
            rows = dataset[start:stop] if dataset.shape else dataset[()]
        except UnsoundChunks as error:
            raise corrupt(path, f"{printable(where)} {error}") from None
        except (OSError, RuntimeError) as error:
            raise unreadable_hdf5(path, f"HDF5 cannot read {printable(where)}", error) from None
        return np.ascontiguousarray(rows, numpy_dtype(dtype))

    return read_rows


def _properties() -> tuple[Any, Any]:
    """Of every dataset that is written, and of the link to it: contiguous, its space allocated at once and never filled."""
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_layout(h5py.h5d.CONTIGUOUS)
    properties.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    properties.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    properties.set_obj_track_times(False)  # the same input gives the same file, whenever
    links = h5py.h5p.create(h5py.h5p.LINK_CREATE)
    links.set_create_intermediate_group(True)
    return properties, links


def _allocate(
    path: Path, group: h5py.Group, where: str, name: str, dtype: str, shape: Shape, lists: tuple[Any, Any]
) -> StoredTensor:
    """Creates a dataset with the property lists of ``_properties``, and returns its place."""
    space = h5py.h5s.create_simple(shape) if shape else h5py.h5s.create(h5py.h5s.SCALAR)
    dataset = h5py.h5d.create(group.id, where.encode(), type_of(dtype), space, *lists)
    return StoredTensor(
        name, dtype, shape, Extent(path, int(dataset.get_offset() or 0), math.prod(shape) * DTYPES[dtype])
    )


@functools.cache
def type_of(dtype: str) -> Any:
    """HDF5's type for one of ``DTYPES``."""
    return h5py.h5t.py_create(numpy_dtype(dtype), logical=True)


def unreadable_hdf5(path: Path, what: str, error: Exception) -> SourceError:
    """The error for a file that HDF5 does not read: invalid, unless too many files are open."""
    if isinstance(error, OSError) and error.errno in TOO_MANY_FILES:
        return SourceError(unreadable(path, error))
    return corrupt(path, f"{what}: {printable(str(error))}")


def corrupt(path: Path, what: str) -> CorruptCheckpoint:
    """The error for a file that is no ``tf_model.h5``."""
    return CorruptCheckpoint(f"{path}: not a valid tf_model.h5: {what}; download or save it again")

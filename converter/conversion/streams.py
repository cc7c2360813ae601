"""Gives the tensors of a checkpoint one at a time, under either framework's names and in its layout, for models."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from converter.checkpoints.detect import WEIGHTS, open_source
from converter.conversion.plan import Dropped, PlannedTensor, make_plan
from converter.conversion.positions import Positions
from converter.conversion.tower_plan import plan_tower
from converter.errors import SourceError, printable, reading
from converter.folder.files import read_json
from converter.hub.ids import Access
from converter.hub.obtained import Obtained
from converter.hub.obtaining import obtain, told_as_named
from converter.names.buffers import holds
from converter.names.configs import check_config, check_tower_config, config_beside, read_config, tower_section
from converter.names.dialects import normalise
from converter.names.families import Family
from converter.names.frameworks import CANONICAL, KERAS
from converter.names.layout_configs import layout_of
from converter.names.rule_files import Side
from converter.names.rules import compile_rules
from converter.specs import Checkpoint, Framework, Shape, StoredTensor
from converter.system.processes import free_memory
from converter.tensors.casts import DTYPES, numpy_dtype
from converter.tensors.files import Files
from converter.tensors.layouts import ALIGNMENT, LAYOUTS, Make, empty_array
from converter.tensors.moves import kept, read_turned

Array = np.ndarray[Any, Any]
_ASKED_FROM = 2**30  # bytes; smaller tensors are not worth asking the system for


class TensorReader:
    """The tensors of one checkpoint, complete and checked against its config before any is read.

    Attributes:
        config: the unchanged config.json; for a tower, its own part.
        family: of a model with two towers; None for a tower.
        dropped: tensors that are not given out, and why.
        new: names that a model would have and the checkpoint lacks; empty except for towers (a pooler).
        processor: the preprocessor_config.json that another program's config implies, or None.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        config: Mapping[str, Any],
        family: Family | None,
        tensors: Sequence[PlannedTensor],
        dropped: tuple[Dropped, ...] = (),
        new: tuple[str, ...] = (),
        expected: tuple[tuple[StoredTensor, Array], ...] = (),
        processor: Mapping[str, Any] | None = None,
    ) -> None:
        self.config = config
        self.family = family
        self.dropped = dropped
        self.new = new
        self.processor = processor
        self._checkpoint = checkpoint
        self._expected = expected
        self._tensors = {tensor.name: tensor for tensor in tensors}
        self._files = Files()

    def __enter__(self) -> TensorReader:
        self._checkpoint.check()
        for path in self._checkpoint.files:
            self._files.open(path)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._files.__exit__(kind, error, trace)
        self._checkpoint.close()

    @property
    def framework(self) -> Framework:
        """Whose checkpoint it is."""
        return self._checkpoint.framework

    @property
    def container(self) -> str:
        """The kind of its file, for example ``"tf_model.h5"``; shards are another kind."""
        return self._checkpoint.container

    @property
    def files(self) -> tuple[Path, ...]:
        """The source of the tensors."""
        return self._checkpoint.files

    @property
    def names(self) -> tuple[str, ...]:
        """Names in the requested framework, in its order."""
        return tuple(self._tensors)

    @property
    def canonical(self) -> Mapping[str, str]:
        """Canonical names by those that the tensors are given out under."""
        return {name: tensor.canonical for name, tensor in self._tensors.items()}

    @property
    def sources(self) -> Mapping[str, str]:
        """The checkpoint's name of each returned tensor."""
        return {name: tensor.source.name for name, tensor in self._tensors.items()}

    @property
    def shapes(self) -> Mapping[str, Shape]:
        """Shapes by name, in the layout of the requested framework."""
        return {name: tensor.shape for name, tensor in self._tensors.items()}

    @property
    def dtypes(self) -> Mapping[str, str]:
        """Stored dtypes by name."""
        return {name: tensor.source.dtype for name, tensor in self._tensors.items()}

    @property
    def has_extents(self) -> bool:
        """Whether every tensor is a run of bytes, which any number of threads may read."""
        return all(tensor.source.extent is not None for tensor in self._tensors.values())

    @property
    def has_bfloat16(self) -> bool:
        """Whether the container could hold bfloat16; HDF5 cannot."""
        return not self._checkpoint.container.startswith("tf_model.h5")

    def wrong_buffers(self) -> list[str]:
        """Stored buffers that differ from what follows from the config, described."""
        return [
            f"{printable(stored.name)} holds values that config.json does not give"
            for stored, value in self._expected
            if not holds(self._read_whole(stored), value)
        ]

    def read(self, name: str, in_place: bool = False, role: str | None = None) -> Array:
        """Reads one tensor. Safe to call from several threads at once where the container is not chunked HDF5.

        Args:
            name: one of ``names``.
            in_place: give the file's own bytes, mapped copy-on-write, if they need no change and are aligned. Only for a
                process that may end if another process changes the file (``files.Files.mapped``).
            role: read into memory that this thread reuses for the role, which is faster than new pages. The array is good
                until the thread reads for the same role again.

        Returns:
            A writable array of ``shapes[name]``, in the stored dtype (bfloat16 as ml_dtypes has it); a new one without
            ``role``.

        Raises:
            SourceError: it is larger than the memory that is free, which a file with holes can be in a few bytes; what is
                given in place needs none.
        """
        tensor = self._tensors[name]
        extent = tensor.source.extent
        if (
            in_place
            and tensor.layout.axes is None
            and extent is not None
            and not extent.pieces
            and extent.offset % ALIGNMENT == 0
        ):
            with contextlib.suppress(OSError, ValueError):  # not every file system maps files, and none an empty one
                return self._files.mapped(extent, numpy_dtype(tensor.source.dtype)).reshape(tensor.shape)
        if extent is not None and tensor.from_pt and tensor.layout == LAYOUTS["dense"]:
            _check_memory(tensor.source, copies=1)
            into = (empty_array if role is None else kept.maker(role))(tensor.shape, numpy_dtype(tensor.source.dtype))
            read_turned(self._files, tensor.source, into)
            return into
        _check_memory(tensor.source, copies=1 if tensor.layout.axes is None else 2)
        stored = self._read_whole(tensor.source, None if role is None else kept.maker(f"{role}, stored"))
        if tensor.layout.axes is None:
            return stored.reshape(tensor.shape)
        make = None if role is None else kept.maker(role)
        return tensor.layout.from_pt(stored, make) if tensor.from_pt else tensor.layout.to_pt(stored, make)

    def planned(self, name: str) -> PlannedTensor:
        """One tensor's way from the file to the requested framework."""
        return self._tensors[name]

    def stored(self, name: str, rename: str) -> StoredTensor:
        """One tensor as a source of conversions, under another name; its bytes are read when needed."""
        tensor = self._tensors[name]
        if tensor.layout.axes is None and tensor.source.extent is not None:
            return StoredTensor(rename, tensor.dtype, tensor.shape, tensor.source.extent)
        held: list[Array] = []

        def read_rows(start: int, stop: int) -> Array:
            if not held:
                held.append(self.read(name))
            rows = held[0][start:stop] if tensor.shape else held[0]
            if not tensor.shape or stop == tensor.shape[0]:
                held.clear()
            return rows

        return StoredTensor(rename, tensor.dtype, tensor.shape, None, read_rows)

    def _read_whole(self, source: StoredTensor, make: Make | None = None) -> Array:
        if source.extent is None and source.read_rows is not None:
            return source.read_rows(0, source.shape[0] if source.shape else 1)
        stored = (make or empty_array)(source.shape, numpy_dtype(source.dtype))
        if source.extent is not None:
            self._files.read(source.extent, 0, stored)
        return stored


def _check_memory(source: StoredTensor, copies: int) -> None:
    needed = copies * source.size * DTYPES[source.dtype]
    if needed < _ASKED_FROM:
        return
    free = free_memory()
    if free is not None and needed > free:
        raise SourceError(
            f"{printable(source.name)}: needs {needed / 1e6:,.0f} MB of memory, {free / 1e6:,.0f} MB are free; use a "
            "machine with more"
        )


def open_tensors(
    source: str | os.PathLike[str],
    framework: Framework = KERAS,
    revision: str | None = None,
    access: Access = Access(),  # noqa: B008 - frozen
    positions_for: Framework | None = None,
    config: Mapping[str, Any] | None = None,
) -> TensorReader:
    """Opens the checkpoint of a model with two towers, to read its tensors as ``framework`` has them.

    Args:
        source: a folder that ``save_pretrained`` wrote, a weights file in one, or the id of a model on the Hub.
        framework: the framework for names and layouts, independent of the checkpoint's own.
        revision: branch, tag or commit of an id.
        access: settings for requests to the Hub.
        positions_for: whose model shall give the same outputs, where a table of positions has to be moved for that.
        config: of the model; None: the config.json beside the weights.

    Returns:
        A context manager.

    Raises:
        ConverterError: the checkpoint is incomplete or invalid.
    """
    checkpoint, folder = _opened(obtain(source, None, revision, access))
    try:
        read = read_config(config_beside(folder, checkpoint.files)) if config is None else check_config(config)
        moved: Positions = "keep" if positions_for is None else "flax"
        plan = make_plan(checkpoint, read, framework, positions=moved, serves=positions_for)
    except BaseException:
        checkpoint.close()
        raise
    return TensorReader(checkpoint, read.raw, read.family, plan.tensors, plan.dropped, expected=plan.expected)


def _opened(held: Obtained) -> tuple[Checkpoint, Path]:
    """Its headers, and where its config is; the copy of a source in a bucket goes when the checkpoint is closed."""
    try:
        with told_as_named(held):
            checkpoint, folder = open_source(held.path, None)
    except BaseException:
        held.close()
        raise

    def close() -> None:
        checkpoint.close()
        held.close()

    return replace(checkpoint, close=close), folder


def check_whole(source: Path, in_torch: bool = False) -> Framework:
    """Checks the headers of a checkpoint against its config, before a framework builds a model from it.

    Args:
        source: a folder, or a weights file in one.
        in_torch: whether transformers is going to load it into PyTorch. It takes the first weights file of a folder,
            even if only another one could be read.

    Returns:
        Whose checkpoint it is.

    Raises:
        ConverterError: the checkpoint is incomplete or invalid.
    """
    with reading(source):
        if in_torch and source.is_dir():
            source = next((source / name for name in WEIGHTS[CANONICAL] if (source / name).is_file()), source)
    with open_tensors(source, CANONICAL) as reader:
        return reader.framework


def open_tower(source: str | os.PathLike[str], side: Side, positions_for: Framework | None = None) -> TensorReader:
    """Opens one tower, to read its tensors as the models of this package have them.

    Args:
        source: a checkpoint of the tower itself, with or without the base model's prefix and a head, or of a model with
            two towers. Of any framework; a folder, a file, or an id of the Hub.
        side: which tower.
        positions_for: whose model shall give the same outputs, where a table of positions has to be moved for that.

    Returns:
        A context manager. Names begin with the main layer: ``bert/embeddings/word_embeddings/weight``. ``config`` is
        the tower's own.

    Raises:
        ConverterError: the checkpoint does not hold the tower, or not all of it.
    """
    checkpoint, folder = _opened(obtain(source, None))
    try:
        path = config_beside(folder, checkpoint.files)
        raw: Mapping[str, Any] = read_json(path)
        processor = None
        if layout_of(raw) is not None:
            whole = check_config(raw, str(path))
            raw, processor, found = whole.raw, whole.processor, normalise(checkpoint.tensors, compile_rules(whole))
            beside = {**checkpoint.beside, **found.counters}
            checkpoint = replace(checkpoint, tensors=found.tensors, beside=beside)
        section, _ = tower_section(side, raw, str(path))
        tower = check_tower_config(side, raw, str(path))
        plan = plan_tower(checkpoint, tower, positions_for=positions_for)
    except BaseException:
        checkpoint.close()
        raise
    return TensorReader(checkpoint, section, None, plan.tensors, plan.dropped, plan.new, processor=processor)

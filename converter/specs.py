"""The shared nouns: the place of a tensor's bytes, the content of a checkpoint, the name of a tensor."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converter.system.names import is_plain

if TYPE_CHECKING:
    import numpy as np

# A key of ``FRAMEWORKS``; what each of them is to names and layouts, rename_rules/common.toml says.
Framework = str
FRAMEWORKS: tuple[Framework, ...] = ("pt", "tf", "flax")
# Whose checkpoints will do: one framework's, those of several, the first preferred, or what there is.
Wanted = Framework | tuple[Framework, ...] | None
# Of all that is printed as JSON; raised when a key goes or changes its meaning, not when one is added.
JSON_FORMAT = 1
Shape = tuple[int, ...]
MAX_NAME_CHARACTERS = 1000
MAX_AXES = 16
MAX_FILE_NAME_BYTES = 255  # what Linux allows
# Reads rows ``start:stop`` of a tensor (all of it, for a tensor without axes) as stored.
ReadRows = Callable[[int, int], "np.ndarray[Any, Any]"]


@dataclass(frozen=True, slots=True)
class Extent:
    """A run of bytes in a file, or several that are one tensor when they are read one after the other.

    Attributes:
        path: of the file.
        offset: the first byte, counted from the start of the file.
        nbytes: how many there are in all.
        pieces: offset and length of each run if there are several; empty for one.
    """

    path: Path
    offset: int
    nbytes: int
    pieces: tuple[tuple[int, int], ...] = ()

    def runs(self, start: int, stop: int) -> Sequence[tuple[int, int]]:
        """The place of bytes ``start:stop``: offset and length of every run that holds some of them, in order."""
        if not self.pieces:
            stop = min(stop, self.nbytes)
            return ((self.offset + start, stop - start),) if start < stop else ()
        found = []
        for offset, nbytes in self.pieces:
            if start < min(stop, nbytes):
                found.append((offset + start, min(stop, nbytes) - start))
            start, stop = max(0, start - nbytes), max(0, stop - nbytes)
        return found


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor as some container holds it.

    Attributes:
        name: the name the container gives it, without the root scope and ``:0`` that TensorFlow files add.
        dtype: one of ``casts.DTYPES``, for example ``"float32"``.
        shape: as stored, in the layout of the container's framework.
        extent: the place of its bytes, little-endian and in C order; None for a tensor that is not one run of bytes.
        read_rows: reads it when there is no extent (chunked HDF5, tensors in memory).
        layout: key of ``layouts.LAYOUTS`` if it differs from its framework's.
    """

    name: str
    dtype: str
    shape: Shape
    extent: Extent | None = None
    read_rows: ReadRows | None = None
    layout: str | None = None

    @property
    def size(self) -> int:
        """How many elements it has."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a container holds, from its headers only.

    Attributes:
        framework: whose names and layouts it uses.
        container: for people, for example ``"tf_model.h5"`` or ``"PyTorch safetensors"``.
        tensors: by name.
        files: every weights file that it consists of.
        metadata: the container's own metadata.
        close: closes what reading kept open.
        beside: other content of the file that could pass for weights, and why it is not.
        check: compares the tensors with the container's own sums, if it has any.
    """

    framework: Framework
    container: str
    tensors: Mapping[str, StoredTensor]
    files: tuple[Path, ...]
    metadata: Mapping[str, str] = field(default_factory=dict)
    close: Callable[[], None] = lambda: None
    beside: Mapping[str, str] = field(default_factory=dict)
    check: Callable[[], None] = lambda: None


def is_file_name(value: object) -> bool:
    """Whether a value from a file names a file beside that one: not a path, and a name that a file system can have."""
    if not isinstance(value, str) or value in ("", ".", "..") or set(value) & {"/", "\\", "\0"}:
        return False
    if not is_plain(value):
        return False
    try:
        return len(value.encode()) <= MAX_FILE_NAME_BYTES
    except UnicodeEncodeError:  # half a character, which JSON can spell
        return False


def uniform(
    files: list[dict[str, Any]], dropped: list[dict[str, Any]], towers: Mapping[str, str], parameters: int
) -> dict[str, Any]:
    """Fields that several commands' results share, in one shape; ``files`` and the like differ since version 0.1.

    Args:
        files: name and size of each, and the sha256 if it is known.
        dropped: name of each tensor that is left out, and the reason.
        towers: model type by side.
        parameters: how many numbers the tensors hold.
    """
    return {
        "file_records": files,
        "dropped_tensors": dropped,
        "tower_types": dict(towers),
        "parameter_count": parameters,
    }

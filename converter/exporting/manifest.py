"""``export.json``: what an export was made of and what it takes. Decides which names and limits in one are trusted."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from converter.errors import ConfigError, SourceError, printable
from converter.exporting.checking.figures import LOGITS, SIDES
from converter.exporting.checking.inputs import DTYPES, PIXELS, Named
from converter.exporting.normalisation import Normalisation
from converter.exporting.options import Precision
from converter.exporting.targets import TARGETS, Target
from converter.folder.files import inside, read_json
from converter.parity.batches import INPUTS
from converter.specs import JSON_FORMAT, MAX_AXES, is_file_name

NAME = "export.json"
GOLDEN = "reference.safetensors"
SHA256 = ("sha256",)  # which any system has a program for
SIGNATURES = ("similarity", "encode_image", "encode_text")
MAX_EXPORT_BYTES = 32 * 2**20
MAX_FILES = 1000
MAX_LEVELS = 4
_OUTPUTS = (*SIDES.values(), *LOGITS)
_SHA256 = 64


@dataclass(frozen=True, slots=True)
class RecordedFile:
    """A file of an export: a path in its folder, and what it was when it was written."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class RecordedFormat:
    """A format of an export, with its files and signatures; ``raw`` is its whole entry, unchecked."""

    target: Target
    files: tuple[RecordedFile, ...]
    signatures: tuple[Named, ...]
    raw: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Recorded:
    """The needed parts of ``export.json``, checked."""

    precision: Precision
    gate: float
    normalisation: Normalisation | None
    golden: RecordedFile
    formats: tuple[RecordedFormat, ...]
    others: tuple[RecordedFile, ...]

    @property
    def files(self) -> tuple[RecordedFile, ...]:
        """All that are listed."""
        return (*(file for one in self.formats for file in one.files), self.golden, *self.others)


def is_export(folder: Path) -> bool:
    """Whether a folder looks like an export."""
    return (folder / NAME).is_file()


def read_export(folder: Path) -> Recorded:
    """Reads and checks ``export.json``.

    Raises:
        SourceError: it is not what this program writes, or names files elsewhere.
    """
    path = folder / NAME
    try:
        raw = read_json(inside(path, folder), MAX_EXPORT_BYTES)
    except ConfigError as error:
        raise SourceError(str(error)) from None
    try:
        return _recorded(raw)
    except (KeyError, TypeError, ValueError, ArithmeticError, AttributeError, ConfigError) as error:
        raise SourceError(
            f"{path}: not an export of this version ({printable(str(error), 120)}); export again"
        ) from None


def _recorded(raw: Mapping[str, Any]) -> Recorded:
    if raw["format"] != JSON_FORMAT:
        raise ValueError(f"format {raw['format']!r}")
    precision: Any = raw["precision"]
    gate = 1.0 if raw["gate"] is None else float(raw["gate"])
    if precision not in ("float32", "float16", "int8") or not (math.isfinite(gate) and 0 < gate <= 1):
        raise ValueError(f"precision {precision!r}, gate {gate!r}")
    numbers = raw["normalisation"]
    golden = _file(raw["golden"])
    if golden.path != GOLDEN:
        raise ValueError(f"golden file {golden.path!r}")
    formats = tuple(_format(one, precision) for one in raw["exports"])
    others = tuple(_file(one) for one in raw["files"])
    found = Recorded(
        precision,
        gate,
        None if numbers is None else Normalisation.from_json(numbers),
        golden,
        formats,
        others,
    )
    names = [file.path for file in found.files]
    if not formats or len(names) > MAX_FILES or len({one.target.name for one in formats}) != len(formats):
        raise ValueError(f"{len(formats)} formats, {len(names)} files")
    return found


def _format(raw: Mapping[str, Any], precision: Precision) -> RecordedFormat:
    target = TARGETS.get(str(raw["format"]))
    if target is None or precision not in target.place:
        raise ValueError(f"export to {raw['format']!r} in {precision}")
    files = tuple(_file(one) for one in raw["files"])
    for place in target.places(precision):
        if not any(file.path == place or file.path.startswith(f"{place}/") for file in files):
            raise ValueError(f"no {place} among the files")
    signatures = tuple(_signature(name, said) for name, said in raw["signatures"].items())
    if {one.name for one in signatures} != set(SIGNATURES):
        raise ValueError("signatures")
    return RecordedFormat(target, files, signatures, raw)


def _signature(name: str, raw: Mapping[str, Any]) -> Named:
    inputs = {str(one["name"]): (_shape(one["shape"]), str(one["dtype"])) for one in raw["inputs"]}
    outputs = tuple(str(one["name"]) for one in raw["outputs"])
    if not set(inputs) <= {*INPUTS, PIXELS} or any(dtype not in DTYPES for _, dtype in inputs.values()):
        raise ValueError(f"inputs of {name!r}")
    if not outputs or not set(outputs) <= set(_OUTPUTS) or not inputs:
        raise ValueError(f"outputs of {name!r}")
    return Named(name, inputs, outputs)


def _shape(raw: Any) -> tuple[int | None, ...]:
    if not isinstance(raw, list) or not 0 < len(raw) <= MAX_AXES:
        raise ValueError("axes")
    if not all(size is None or (type(size) is int and 0 < size < 2**31) for size in raw):
        raise ValueError("sizes")
    return tuple(raw)


def _file(raw: Mapping[str, Any]) -> RecordedFile:
    """A path below the export's folder: plain names, a few levels, none of them hidden or leading out."""
    name, size, digest = raw["name"], raw["size"], raw["sha256"]
    parts = PurePosixPath(name).parts if isinstance(name, str) else ()
    if not 0 < len(parts) <= MAX_LEVELS or not all(map(is_file_name, parts)) or "/".join(parts) != name:
        raise ValueError(f"file name {name!r}")
    if type(size) is not int or size < 0 or not isinstance(digest, str) or len(digest) != _SHA256:
        raise ValueError(f"size or hash of {name!r}")
    return RecordedFile(name, size, digest)

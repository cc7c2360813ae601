"""The golden reference file: inputs and taps of a run in one safetensors file. Decides what may be read from one.

Tensors are ``batch.<k>.input.<name>`` and ``batch.<k>.tap.<name>``; metadata are strings, ``METADATA`` at least.
A file comes from another machine, so everything in it is checked before it is used.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from converter.errors import OptionError, ParityError, listed, printable
from converter.folder.staging import check_place_of_file, staged_file
from converter.parity.batches import INPUTS, PRECISIONS, Batch, check_inputs, check_title
from converter.parity.taps import Array, is_tap
from converter.specs import JSON_FORMAT

FORMAT = "vision-text-parity"
FORMAT_VERSION = "1"
# Metadata of every run; "versions" and "precision" are JSON objects, "batches" a JSON list of titles.
METADATA = ("source", "config_sha256", "versions", "device", "attention", "dtype", "precision")
MAX_BYTES = 8 * 2**30
MAX_BATCHES = 1000
MAX_METADATA = 100_000
_NAME = re.compile(r"batch\.(0|[1-9]\d{0,3})\.(input|tap)\.([a-z0-9_.]{1,60})")


@dataclass(frozen=True, eq=False)
class Recording:
    """A run's inputs and outputs.

    Attributes:
        metadata: ``METADATA`` and other facts about the run.
        batches: in the order in which they ran; without taps if no model has run yet.
    """

    metadata: Mapping[str, str]
    batches: tuple[Batch, ...]

    def to_json(self) -> dict[str, Any]:
        """What was recorded, without the values, ready for ``json.dumps``: ``docs/recording.schema.json`` describes it."""
        return {
            "format": JSON_FORMAT,
            "metadata": dict(self.metadata),
            "batches": [
                {"title": batch.title, "inputs": list(batch.inputs), "taps": list(batch.taps)} for batch in self.batches
            ],
        }


def config_of(source: Path) -> Path:
    """The config.json of a checkpoint, which is a folder or a weights file in one."""
    return (source if source.is_dir() else source.parent) / "config.json"


def config_sha256(source: Path) -> str:
    """The hash by which a run identifies its config.json, that of the checkpoint ``source``."""
    return hashlib.sha256(config_of(source).read_bytes()).hexdigest()


def check_recording_path(path: Path) -> None:
    """Checks, before any model runs, that a new recording can be written.

    Raises:
        OptionError: ``verify`` would not recognise its name.
        ParityError: the file exists, or could not be made.
    """
    if path.suffix != ".safetensors":
        raise OptionError(f"{path}: the name of a golden reference file ends in .safetensors; choose another name")
    try:
        check_place_of_file(path)
        if os.path.lexists(path):
            raise ParityError(f"{path}: exists already; choose another name")
    except OSError as error:
        raise ParityError(f"{path}: cannot be written: {error.strerror}; choose another place") from None


def write_recording(recording: Recording, path: Path, replace: bool = True) -> None:
    """Writes a recording, whole or not at all.

    Args:
        recording: every batch is checked first.
        path: the file.
        replace: whether one that exists is replaced.

    Raises:
        ParityError: a batch is not well formed, or the file cannot be written.
    """
    tensors: dict[str, Array] = {}
    for number, batch in enumerate(recording.batches):
        check_title(batch.title, f"batch {number}")
        check_inputs(batch.inputs, f"batch {number}")
        for kind, arrays in (("input", batch.inputs), ("tap", batch.taps)):
            tensors.update({f"batch.{number}.{kind}.{name}": np.asarray(a, order="C") for name, a in arrays.items()})
    for name, array in tensors.items():
        if ".tap." in name and str(array.dtype) not in PRECISIONS:
            raise ParityError(f"{name} is {array.dtype}, expected {' or '.join(PRECISIONS)}")
    titles = json.dumps([batch.title for batch in recording.batches])
    metadata = {**recording.metadata, "format": FORMAT, "format_version": FORMAT_VERSION, "batches": titles}
    try:
        with staged_file(path, replace) as fresh:
            save_file(tensors, fresh, metadata=metadata)
            fresh.chmod(
                fresh.parent.stat().st_mode & 0o666
            )  # safetensors 0.8 makes its files readable for their owner only
    except FileExistsError:
        raise ParityError(f"{path}: another process created it meanwhile; choose another name") from None
    except OSError as error:
        raise ParityError(f"{path}: cannot be written: {error.strerror}; choose another place") from None
    except SafetensorError as error:  # the system's message about writing
        why = "the disk is full; free some space" if "(os error 28)" in str(error) else printable(str(error))
        raise ParityError(f"{path}: cannot be written: {why}") from None


def read_metadata(path: Path) -> dict[str, str]:
    """Only the metadata of a golden reference file; none of its tensors is read.

    Raises:
        ParityError: the file is not a golden reference file of this version.
    """
    _check_file(path)
    with _refusing(path), safe_open(path, framework="numpy") as file:
        return _check_metadata(file.metadata() or {}, path, needed=METADATA)


def read_recording(path: Path, taps: bool = True) -> Recording:
    """Reads a recording that may come from anywhere.

    Args:
        path: a golden reference file.
        taps: whether every batch must have taps, as after a run, or must have none, as before it.

    Raises:
        ParityError: the file is not a golden reference file of this version, or anything in it is not as expected.
    """
    _check_file(path)
    with _refusing(path), safe_open(path, framework="numpy") as file:
        metadata = _check_metadata(file.metadata() or {}, path, needed=METADATA if taps else ())
        titles = _read_titles(metadata.pop("batches"), path)
        names = _check_names(file, len(titles), path)
        arrays = {name: file.get_tensor(name) for name in names}
    del metadata["format"], metadata["format_version"]
    batches = tuple(_batch(number, title, arrays, taps, path) for number, title in enumerate(titles))
    return Recording(metadata, batches)


@contextlib.contextmanager
def _refusing(path: Path) -> Iterator[None]:
    try:
        yield
    except (SafetensorError, OSError, ValueError) as error:  # ValueError: NumPy knows no such shape
        raise ParityError(
            f"{path}: not a golden reference file: {printable(str(error))}; make one with 'convert reference'"
        ) from None


def _check_file(path: Path) -> None:
    try:
        found = path.stat()
    except OSError as error:
        raise ParityError(f"{path}: cannot be read: {error.strerror}") from None
    if not stat.S_ISREG(found.st_mode):
        raise ParityError(f"{path}: not a file; name a golden reference file that 'convert reference' wrote")
    if found.st_size > MAX_BYTES:
        raise ParityError(f"{path}: {found.st_size:,} bytes, expected at most {MAX_BYTES:,}")


def _check_metadata(metadata: Mapping[str, str], path: Path, needed: tuple[str, ...]) -> dict[str, str]:
    if metadata.get("format") != FORMAT:
        raise ParityError(
            f"{path}: not a golden reference file but another safetensors file; make one with 'convert reference'"
        )
    if metadata.get("format_version") != FORMAT_VERSION:
        raise ParityError(
            f"{path}: format version {printable(str(metadata.get('format_version')), 20)}, this version reads "
            f"{FORMAT_VERSION}; make the file again"
        )
    missing = [name for name in ("batches", *needed) if name not in metadata]
    if missing:
        raise ParityError(f"{path}: metadata lacks {listed(missing)}; make the file again")
    if sum(len(key) + len(value) for key, value in metadata.items()) > MAX_METADATA:
        raise ParityError(f"{path}: more than {MAX_METADATA:,} characters of metadata, which no run writes")
    return dict(metadata)


def _read_titles(text: str, path: Path) -> list[str]:
    try:
        titles = json.loads(text)
    except (ValueError, RecursionError):
        titles = None
    if (
        not isinstance(titles, list)
        or not 0 < len(titles) <= MAX_BATCHES
        or not all(isinstance(t, str) for t in titles)
    ):
        raise ParityError(f"{path}: metadata 'batches' is not a list of 1 to {MAX_BATCHES} titles; make the file again")
    for title in titles:
        check_title(title, str(path))
    return titles


def _check_names(file: Any, batches: int, path: Path) -> list[str]:
    names = list(file.keys())
    for name in names:
        match = _NAME.fullmatch(name)
        kind, last = (match[2], match[3]) if match else ("", "")
        if match is None or int(match[1]) >= batches or not (last in INPUTS if kind == "input" else is_tap(last)):
            raise ParityError(
                f"{path}: unexpected tensor {printable(name)}; expected batch.<k>.input.<name> and "
                f"batch.<k>.tap.<name> of {batches} batches"
            )
        dtype = file.get_slice(name).get_dtype()
        expected = _stored_dtypes(kind, last)
        if dtype not in expected:
            raise ParityError(f"{path}: {name} is {printable(str(dtype), 20)}, expected {' or '.join(expected)}")
    return names


def _stored_dtypes(kind: str, name: str) -> tuple[str, ...]:
    if kind == "tap":
        return ("F32", "F64")
    return ("F32",) if name == "pixel_values" else ("I64",)


def _batch(number: int, title: str, arrays: Mapping[str, Array], taps: bool, path: Path) -> Batch:
    where = f"{path}: batch {number}"
    prefix = {kind: f"batch.{number}.{kind}." for kind in ("input", "tap")}
    found = {
        kind: {name.removeprefix(start): array for name, array in arrays.items() if name.startswith(start)}
        for kind, start in prefix.items()
    }
    check_inputs(found["input"], where)
    if taps and not found["tap"]:
        raise ParityError(f"{where} has no layer outputs; run 'convert reference' again")
    if found["tap"] and not taps:
        raise ParityError(f"{where} already has layer outputs, expected inputs only")
    return Batch(title, found["input"], found["tap"])

"""Verifies a converted checkpoint without a framework: its files against the manifest, its weights against the source."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from converter.checkpoints.detect import held
from converter.checkpoints.hdf5 import CONTAINER as SINGLE_H5
from converter.conversion.streams import TensorReader, open_tensors
from converter.errors import ConverterError, NoReference, is_refused, listed, printable
from converter.folder import manifest
from converter.folder.files import is_link
from converter.folder.manifest import Manifest
from converter.folder.records import SUMS, differing_sum
from converter.names.frameworks import CANONICAL
from converter.parity.finding import Finding, Status
from converter.parity.sums import WeightsSum, canonical_hashes, for_each, sum_of
from converter.tensors.casts import DTYPES, FLOATS
from converter.tensors.check import differing, same_bits
from converter.tensors.layouts import LAYOUTS, way
from converter.tensors.moves import Move, cast

Array = np.ndarray[Any, Any]
_WEIGHT_SUFFIXES = (".h5", ".safetensors", ".bin", ".msgpack", ".keras")


def verify_files(folder: Path, recorded: Manifest | None) -> Finding:
    """Compares every file of a folder with its manifest; one that the system refuses to read says nothing of itself."""
    if recorded is None:
        return Finding("files", "not checked", problems=(f"no {manifest.NAME}",))
    problems: list[str] = []
    unread: list[str] = []
    for name, record in recorded.files.items():
        path = folder / name
        try:
            if is_link(folder, name):
                problems.append(f"{printable(name)} is a link; replace it with a copy of the file it points to")
            elif not path.is_file():
                problems.append(f"{printable(name)} is missing")
            elif path.stat().st_size != record.size:
                problems.append(
                    f"{printable(name)} has {path.stat().st_size:,} bytes, the manifest says {record.size:,}"
                )
            elif (kind := differing_sum(path, record)) is not None:
                problems.append(f"{printable(name)} has a {SUMS[kind]} sum that differs from the manifest")
        except OSError as error:
            unread.append(f"{printable(name)} cannot be read: {error.strerror}")
    known = {*recorded.files, manifest.NAME}
    added = [path.name for path in folder.iterdir() if path.name not in known and path.suffix in _WEIGHT_SUFFIXES]
    if added:
        problems.append(f"weights that the manifest does not list: {listed(sorted(added))}")
    against = _what_is_compared(recorded)
    status: Status = "failed" if problems or not recorded.files else "not checked" if unread else "passed"
    compared, said = len(recorded.files) - len(unread), (*problems, *unread)
    return Finding("files", status, compared, f"the manifest, {against}", said, required=bool(unread))


def _what_is_compared(recorded: Manifest) -> str:
    if not all(record.sums for record in recorded.files.values()):
        return "sizes only, as --no-check computed no sums"
    kinds = [SUMS[kind] for kind in SUMS if any(kind in record.sums for record in recorded.files.values())]
    first, last = ", ".join(("sizes", *kinds[:-1])), kinds[-1:]
    return " and ".join((first, *last))


def verify_weights(
    folder: Path, recorded: Manifest | None, reference: Path | None, golden: WeightsSum | None = None
) -> Finding:
    """Compares every tensor bit for bit, modulo layout and the requested dtype.

    Args:
        folder: the converted checkpoint.
        recorded: its manifest, if there is one.
        reference: the source; None if it is gone, so that only the manifest's canonical hashes are available.
        golden: of the weights that a golden reference file was recorded from.
    """
    problems: list[str] = []
    try:
        with open_tensors(folder, CANONICAL) as ours:
            problems += _logit_scale(ours)
            problems += ours.wrong_buffers()
            if len(held(folder)) > 1:
                problems.append(
                    f"the folder holds several weights ({listed(held(folder))}), and only {ours.files[0].name} was "
                    "compared; keep one of them"
                )
            against = []
            if reference is not None:
                against.append(f"{reference}, bit for bit")
                with _as_reference(reference, recorded) as theirs:
                    problems += _against_source(ours, theirs, recorded)
            hashes = canonical_hashes(ours) if golden is not None or not against else {}
            if not against and recorded is not None and recorded.tensors:
                against.append("the hashes in the manifest, as the source is gone")
                problems += _against_hashes(ours, hashes, recorded)
            if golden is not None and sum_of(hashes).dtypes == golden.dtypes:
                against.append("the sum of all weights in the reference file")
                if sum_of(hashes) != golden:
                    problems.append("the reference file was recorded from other weights")
            if not against:
                gone = "the source is gone" if recorded is not None else f"no {manifest.NAME} names a source"
                why = f"{gone} and the manifest has no hashes; name the source with --reference"
                return Finding("weights", "failed" if problems else "not checked", problems=(*problems, why))
            status: Status = "failed" if problems else "passed"
            return Finding("weights", status, len(ours.names), "; ".join(against), tuple(problems))
    except NoReference as error:  # which says nothing about the checkpoint; its own faults are listed too
        return Finding("weights", "failed" if problems else "not checked", problems=(*problems, str(error)))
    except ConverterError as error:
        return Finding("weights", "not checked" if is_refused(error) else "failed", problems=(str(error),))


@contextlib.contextmanager
def _as_reference(path: Path, recorded: Manifest | None) -> Iterator[TensorReader]:
    """The tensors of a source, with a moved position table if OUT has one.

    Raises:
        NoReference: it cannot be read, or is not whole.
    """
    moved_for = recorded.target_framework if recorded is not None and recorded.positions == "flax" else None
    with contextlib.ExitStack() as stack:
        try:
            theirs = stack.enter_context(open_tensors(path, CANONICAL, positions_for=moved_for))
        except ConverterError as error:
            raise NoReference(str(error)) from None
        yield theirs


def _against_source(ours: TensorReader, theirs: TensorReader, recorded: Manifest | None) -> list[str]:
    if set(ours.names) != set(theirs.names):
        here, there = set(ours.names) - set(theirs.names), set(theirs.names) - set(ours.names)
        return [f"tensors only here: {listed(sorted(here))}; only in the source: {listed(sorted(there))}"]
    problems: dict[str, str] = {}

    def compare(name: str) -> None:
        asked = _asked(theirs.dtypes[name], recorded, ours.has_bfloat16)
        if ours.dtypes[name] != asked:
            problems[name] = f"{name} is {ours.dtypes[name]}, expected {asked}"
            return
        one, other = ours.read(name, role="ours"), cast(theirs.read(name, role="theirs"), asked)
        if one.shape != other.shape or not same_bits(one, np.ascontiguousarray(other)):
            problems[name] = f"{name} differs{where_they_differ(one, other)}"

    # A bit that differs is looked for by blocks; only of tensors that differ, or are no runs of bytes, all is read.
    moves = [move for name in ours.names if (move := _move(ours, theirs, name, recorded)) is not None]
    equal = {move.name for move in moves} - differing(moves)
    for_each(ours, compare, [name for name in ours.names if name not in equal])
    return [problems[name] for name in ours.names if name in problems]


def _move(ours: TensorReader, theirs: TensorReader, name: str, recorded: Manifest | None) -> Move | None:
    """From the source to what was made of it; None for what is no run of bytes, or is not as it was to be."""
    one, other = ours.planned(name), theirs.planned(name)
    if (
        one.source.extent is None
        or other.source.extent is None
        or ours.shapes[name] != theirs.shapes[name]
        or ours.dtypes[name] != _asked(theirs.dtypes[name], recorded, ours.has_bfloat16)
    ):
        return None
    ends = [end.layout if end.layout.axes is not None else LAYOUTS["plain"] for end in (other, one)]
    if ends[0] != ends[1] and LAYOUTS["plain"] not in ends:
        return None
    return Move(name, other.source, one.source, *way(*ends))


def _against_hashes(ours: TensorReader, hashes: Mapping[str, tuple[str, str]], recorded: Manifest) -> list[str]:
    if set(ours.names) != set(recorded.tensors):
        here, there = set(ours.names) - set(recorded.tensors), set(recorded.tensors) - set(ours.names)
        return [f"tensors only here: {listed(sorted(here))}; only in the manifest: {listed(sorted(there))}"]
    problems = []
    for name in ours.names:
        (is_dtype, is_hash), (dtype, digest) = hashes[name], recorded.tensors[name]
        if is_dtype != dtype:
            problems.append(f"{name} is {is_dtype}, the manifest says {printable(dtype, 40)}")
        elif is_hash != digest:
            problems.append(f"{name} has a hash that differs from the manifest")
    return problems


def _asked(stored: str, recorded: Manifest | None, has_bfloat16: bool) -> str:
    """The dtype that a tensor of the source was to have."""
    wanted = stored
    if recorded is not None and recorded.dtype in DTYPES and stored in FLOATS:
        wanted = recorded.dtype
    return wanted if has_bfloat16 or wanted != "bfloat16" else "float32"


def where_they_differ(one: Array, other: Array) -> str:
    """How two arrays of one dtype differ, in words that follow ``differs``; ``other`` is the expected one."""
    if one.shape != other.shape:
        return f": its shape is {one.shape}, the source's {other.shape}"
    ours, theirs = one.reshape(-1), other.reshape(-1)
    width = ours.dtype.itemsize
    unequal = (ours.view(np.uint8) != theirs.view(np.uint8)).reshape(-1, width).any(axis=1)
    first = int(np.argmax(unequal))
    place = tuple(int(index) for index in np.unravel_index(first, one.shape)) if one.shape else ()
    return (
        f" in {int(unequal.sum()):,} of {len(ours):,} elements, first at {place}: {ours[first].item()!r}, "
        f"the source has {theirs[first].item()!r}"
    )


def _logit_scale(ours: TensorReader) -> list[str]:
    """Of some families transformers 4.x takes the trained scale from the config when it reads a single ``tf_model.h5``."""
    field = None if ours.family is None else ours.family.init_scale
    if ours.family is None or field is None or ours.container != SINGLE_H5:
        return []
    stored = float(ours.read(ours.family.scale).reshape(()))
    said = ours.config.get(field)
    if isinstance(said, int | float) and math.isfinite(said) and np.float32(said) == np.float32(stored):
        return []
    return [
        f"config.json: {field} is {printable(repr(said), 40)}, the trained {ours.family.scale} is {stored!r}; "
        "transformers 4.x would use the former"
    ]

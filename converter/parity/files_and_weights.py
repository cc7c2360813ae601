"""Verifies a converted checkpoint without a framework: its files against the manifest, its weights against the source.

What cannot be checked is "not checked", never "passed".
"""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import blake3
import numpy as np

from converter.checkpoints.detect import held, read_header
from converter.conversion.streams import TensorReader, open_tensors
from converter.errors import ConfigError, ConverterError, SourceError, listed, printable
from converter.folder import manifest
from converter.folder.files import hash_file, inside, read_json
from converter.hub.download import cached
from converter.names.frameworks import CANONICAL, frameworks
from converter.specs import Framework, is_file_name
from converter.tensors.casts import DTYPES, FLOATS
from converter.tensors.check import same_bits
from converter.tensors.moves import cast, in_parallel

Array = np.ndarray[Any, Any]
Status = Literal["passed", "failed", "not checked"]
# Parts that there may be nothing to check of: a manifest, and a tokenizer and image processor.
OPTIONAL_PARTS = ("files", "samples")
MAX_MANIFEST_BYTES = 16 * 2**20


@dataclass(frozen=True)
class Finding:
    """What one part of a verification found.

    Attributes:
        part: ``"files"``, ``"weights"``, ``"outputs"`` or ``"samples"`` (texts and pictures).
        status: ``"passed"``, ``"failed"`` or ``"not checked"``.
        compared: how many files, tensors or values were compared.
        against: with what, in words.
        problems: what is wrong, or why nothing could be checked.
    """

    part: str
    status: Status
    compared: int = 0
    against: str = ""
    problems: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Ready for ``json.dumps``."""
        return vars(self) | {"problems": list(self.problems)}


@dataclass(frozen=True)
class Manifest:
    """What is needed of ``conversion.json``, checked.

    Attributes:
        direction: for example ``"pt2tf"``.
        source_framework: whose checkpoint was converted.
        target_framework: whose checkpoint was made.
        source: where the source lay, as seen from the folder; for people, if it is a model on the Hub.
        source_files: names of its weights files.
        hub: id of the source on the Hub; None for others.
        commit: of the source on the Hub.
        dtype: what floats were asked to become.
        files: size and sha256 (or None) of each file, by name.
        tensors: dtype and canonical hash of each tensor, by nested PyTorch name.
    """

    direction: str
    source_framework: Framework
    target_framework: Framework
    source: str
    source_files: tuple[str, ...]
    hub: str | None
    commit: str | None
    dtype: str
    files: Mapping[str, tuple[int, str | None]]
    tensors: Mapping[str, tuple[str, str]]


def read_manifest(folder: Path) -> Manifest | None:
    """Reads and checks ``conversion.json``; None where there is none.

    Raises:
        SourceError: it is not what this program writes.
    """
    path = folder / manifest.NAME
    if not path.is_file():
        return None
    try:
        raw = read_json(inside(path, folder), MAX_MANIFEST_BYTES)
    except ConfigError as error:
        raise SourceError(str(error)) from None
    try:
        if raw["format"] != manifest.FORMAT:
            raise ValueError(f"format {raw['format']!r}")
        ends = str(raw["direction"]).split("2")
        if len(ends) != 2 or not set(ends) <= set(frameworks()):
            raise ValueError(f"direction {raw['direction']!r}")
        files = {_file_name(item["name"]): (int(item["size"]), _hash(item.get("sha256"))) for item in raw["files"]}
        tensors = {
            str(name): (str(item["dtype"]), _hash(item["blake3"]) or "") for name, item in raw["tensors"].items()
        }
        source = raw["source"]
        return Manifest(
            direction=str(raw["direction"]),
            source_framework=ends[0],
            target_framework=ends[1],
            source=str(source["path"]),
            source_files=tuple(_file_name(item["name"]) for item in source["files"]),
            hub=None if source.get("hub") is None else str(source["hub"]),
            commit=None if source.get("commit") is None else str(source["commit"]),
            dtype=str(raw["options"]["dtype"]),
            files=files,
            tensors=tensors,
        )
    except (KeyError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
        raise SourceError(
            f"{path}: not a manifest that this version writes ({printable(str(error), 80)}); convert again"
        ) from None


def verify_files(folder: Path, recorded: Manifest | None) -> Finding:
    """Compares every file of a folder with its manifest."""
    if recorded is None:
        return Finding("files", "not checked", problems=(f"there is no {manifest.NAME}",))
    problems = []
    for name, (size, digest) in recorded.files.items():
        path = folder / name
        try:
            if path.is_symlink():
                problems.append(f"{printable(name)} is a link; put a copy of what it leads to in its place")
            elif not path.is_file():
                problems.append(f"{printable(name)} is missing")
            elif path.stat().st_size != size:
                problems.append(f"{printable(name)} has {path.stat().st_size:,} bytes, the manifest says {size:,}")
            elif digest is not None and hash_file(path).sha256 != digest:
                problems.append(f"{printable(name)} has another sha256 than the manifest says")
        except OSError as error:
            problems.append(f"{printable(name)} cannot be read: {error.strerror}")
    known = {*recorded.files, manifest.NAME}
    added = [path.name for path in folder.iterdir() if path.name not in known and path.suffix in _WEIGHT_SUFFIXES]
    if added:
        problems.append(f"weights that the manifest does not know: {listed(sorted(added))}")
    has_sums = all(digest is not None for _, digest in recorded.files.values())
    against = "sizes and sha256" if has_sums else "sizes only; it was written with --no-check"
    status: Status = "failed" if problems or not recorded.files else "passed"
    return Finding("files", status, len(recorded.files), f"the manifest, {against}", tuple(problems))


@dataclass(frozen=True)
class WeightsSum:
    """What the weights of a checkpoint are, in one sum, whatever its container, names and layout.

    Attributes:
        blake3: over name, dtype and canonical hash of every tensor, sorted by nested PyTorch names.
        dtypes: how many tensors there are of each dtype; sums of other dtypes say nothing about each other.
    """

    blake3: str
    dtypes: Mapping[str, int]


def sum_of(hashes: Mapping[str, tuple[str, str]]) -> WeightsSum:
    """The sum of tensors, from the dtype and the canonical hash of each by name."""
    rows = "".join(f"{name}\0{dtype}\0{digest}\n" for name, (dtype, digest) in sorted(hashes.items()))
    dtypes = Counter(dtype for dtype, _ in hashes.values())
    return WeightsSum(blake3.blake3(rows.encode()).hexdigest(), dict(sorted(dtypes.items())))


def canonical_hashes(tensors: TensorReader) -> dict[str, tuple[str, str]]:
    """Dtype and canonical hash of every tensor of a reader that gives them as PyTorch has them."""
    found: dict[str, tuple[str, str]] = {}

    def hash_one(name: str) -> None:
        digest = blake3.blake3(tensors.read(name).reshape(-1).view(np.uint8).data).hexdigest()
        found[name] = tensors.dtypes[name], digest

    _in_parallel(tensors, hash_one)
    return found


def verify_weights(
    folder: Path, recorded: Manifest | None, reference: Path | None, golden: WeightsSum | None = None
) -> Finding:
    """Compares every tensor bit for bit, modulo layout and the dtype that was asked for.

    Args:
        folder: the converted checkpoint.
        recorded: its manifest, if there is one.
        reference: the source; None where it is gone, so that the manifest's canonical hashes are all there is.
        golden: of the weights that a golden reference file was recorded from.
    """
    try:
        with open_tensors(folder, CANONICAL) as ours:
            problems = _logit_scale(ours)
            problems += ours.wrong_buffers()
            if len(held(folder)) > 1:
                problems.append(
                    f"there are several weights, {listed(held(folder))}, of which only {ours.files[0].name} could be "
                    "compared; leave one of them in the folder"
                )
            against = []
            if reference is not None:
                against.append(f"{reference}, bit for bit")
                with open_tensors(reference, CANONICAL) as theirs:
                    problems += _against_source(ours, theirs, recorded)
            hashes = canonical_hashes(ours) if golden is not None or not against else {}
            if not against and recorded is not None and recorded.tensors:
                against.append("the canonical hashes of the manifest, the source being gone")
                problems += _against_hashes(ours, hashes, recorded)
            if golden is not None and sum_of(hashes).dtypes == golden.dtypes:
                against.append("the reference file's sum of all weights")
                if sum_of(hashes) != golden:
                    problems.append("the reference file was recorded from other weights than these")
            if not against:
                gone = (
                    "the source is gone" if recorded is not None else f"there is no {manifest.NAME} that names a source"
                )
                why = f"{gone} and there are no canonical hashes; name it with --reference"
                return Finding("weights", "failed" if problems else "not checked", problems=(*problems, why))
            status: Status = "failed" if problems else "passed"
            return Finding("weights", status, len(ours.names), "; ".join(against), tuple(problems))
    except ConverterError as error:
        return Finding("weights", "failed", problems=(str(error),))


_WEIGHT_SUFFIXES = (".h5", ".safetensors", ".bin", ".msgpack", ".keras")


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
        one, other = ours.read(name), cast(theirs.read(name), asked)
        if one.shape != other.shape or not same_bits(one, np.ascontiguousarray(other)):
            problems[name] = f"{name} differs{_where(one, other)}"

    _in_parallel(ours, compare)
    return [problems[name] for name in ours.names if name in problems]


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
            problems.append(f"{name} has another canonical hash than the manifest says")
    return problems


def _in_parallel(ours: TensorReader, compare: Callable[[str], None]) -> None:
    def task(name: str) -> Callable[[], int]:
        def run() -> int:
            compare(name)
            return 1

        return run

    # Chunked HDF5 is read by one thread: the library is not made for more.
    in_parallel([task(name) for name in ours.names], threads=2 if ours.has_extents else 1)


def _asked(stored: str, recorded: Manifest | None, has_bfloat16: bool) -> str:
    """The dtype that a tensor of the source was to have."""
    wanted = stored
    if recorded is not None and recorded.dtype in DTYPES and stored in FLOATS:
        wanted = recorded.dtype
    return wanted if has_bfloat16 or wanted != "bfloat16" else "float32"


def _where(one: Array, other: Array) -> str:
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
    """Transformers 4.x takes the trained scale from the config when it reads ``tf_model.h5``."""
    stored = float(ours.read("logit_scale").reshape(()))
    said = ours.config.get("logit_scale_init_value")
    if isinstance(said, int | float) and math.isfinite(said) and np.float32(said) == np.float32(stored):
        return []
    return [
        f"config.json: logit_scale_init_value is {printable(repr(said), 40)}, the trained logit_scale is {stored!r}; "
        "transformers 4.x would run with the former"
    ]


def _file_name(name: Any) -> str:
    if not is_file_name(name):
        raise ValueError(f"file name {name!r}")
    return str(name)


def _hash(value: Any) -> str | None:
    if value is not None and (not isinstance(value, str) or len(value) != 64):
        raise ValueError("a hash of another length")
    return value


def find_source(folder: Path, recorded: Manifest | None, given: Sequence[Path | None]) -> Path | None:
    """The source to compare with: the one that was named, else the one of the manifest, if it is still there."""
    for path in given:
        if path is not None:
            return _converted(path, recorded)
    if recorded is None:
        return None
    if recorded.hub is not None:
        # A manifest may come from anywhere, so it does not make anything be downloaded.
        snapshot = cached(recorded.hub, recorded.commit or "")
        if snapshot is None or not all((snapshot / name).is_file() for name in recorded.source_files):
            return None
        return snapshot / recorded.source_files[0] if len(recorded.source_files) == 1 else snapshot
    try:
        path = (folder / recorded.source).resolve()
        return _converted(path, recorded) if path.exists() else None
    except (OSError, RuntimeError, ValueError):  # a path that no file system would have, or links in a circle
        return None


def _converted(source: Path, recorded: Manifest | None) -> Path:
    """Of a folder that holds several weights, PyTorch's beside TensorFlow's, say, those that were converted."""
    names = held(source) if source.is_dir() else ()
    if recorded is None or len(names) < 2:
        return source
    for name in names:
        with contextlib.suppress(ConverterError):
            checkpoint = read_header(inside(source / name, source))
            checkpoint.close()
            if {file.name for file in checkpoint.files} == set(recorded.source_files):
                return source / name
    return source

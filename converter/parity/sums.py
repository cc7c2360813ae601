"""One sum over all weights of a checkpoint, to compare two without having both."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import blake3
import numpy as np

from converter.conversion.streams import TensorReader
from converter.errors import ParityError
from converter.parity.runners.golden import read_metadata
from converter.tensors.parallel import in_parallel


@dataclass(frozen=True)
class WeightsSum:
    """One sum over the weights of a checkpoint, independent of container, names and layout.

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
        digest = blake3.blake3(tensors.read(name, role="hashed").reshape(-1).view(np.uint8).data).hexdigest()
        found[name] = tensors.dtypes[name], digest

    for_each(tensors, hash_one)
    return found


def sum_recorded_in(golden: Path) -> WeightsSum | None:
    """A golden reference file's facts about the weights that it was recorded from; None if it has no useful ones."""
    try:
        said = json.loads(read_metadata(golden)["weights"])
        return WeightsSum(str(said["blake3"]), {str(name): int(count) for name, count in said["dtypes"].items()})
    except (ParityError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None  # if the file cannot be read at all, the comparison of outputs says so


def for_each(tensors: TensorReader, do: Callable[[str], None], names: Iterable[str] | None = None) -> None:
    """Calls a function with the name of every tensor of a reader, from several threads if that is safe."""

    def task(name: str) -> Callable[[], int]:
        def run() -> int:
            do(name)
            return 1

        return run

    # Chunked HDF5 is read by one thread: the library is not made for more.
    in_parallel(
        [task(name) for name in (tensors.names if names is None else names)], threads=2 if tensors.has_extents else 1
    )

"""What no converter on this machine could be faster than: `python benchmarks/limit.py MEGABYTES --folder FOLDER`.

Measures single rates, each the fastest of some runs. Reading cached data, copying in memory and BLAKE3 run on all cores
at once, because cores share memory. Writing a new file, and starting Python with the imports of a conversion, run on one.
The bound is the time that these rates need for a conversion's work.
It assumes that every byte passes each step once, on all cores, without a pause. Writing
to one file is the exception: the system lets one thread at a time.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import blake3
import numpy as np

PIECE = 2**20  # bytes
COPIED = 64 * 2**20  # bytes; beyond the second-level cache, like matrices that are transposed
SAMPLE = 400 * 10**6  # bytes that a rate is measured over
RUNS = 5
START = "import numpy, h5py, blake3, click"
# The steps for the bytes of the weights, in order: a name for people, the rate of the step, and whether it is part of
# the check.
STEPS = (
    ("read the source", "read", False),
    ("transpose", "copy", False),
    ("write", "write", False),
    ("sum the source", "blake3", True),
    ("read the output again", "read", True),
    ("sum the output", "blake3", True),
    ("transpose back", "copy", True),
    ("compare", "copy", True),
    ("hash the tensors", "blake3", True),
)


def main() -> None:
    """Prints rates and bounds as JSON."""
    parser = argparse.ArgumentParser(description="Computes the bound of a conversion from this machine's rates.")
    parser.add_argument("megabytes", type=float, help="of the weights")
    parser.add_argument("--folder", type=Path, default=Path(), help="on the disk that is written to")
    parser.add_argument("--sample", type=int, default=SAMPLE, help="bytes to measure a rate over")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        rates = measure(Path(folder) / "sample", options.sample)
    print(json.dumps(limit(rates, options.megabytes * 1e6, cores_here()), indent=2))


def limit(rates: Mapping[str, float], nbytes: float, cores: int) -> dict[str, Any]:
    """The bounds of a conversion.

    Args:
        rates: bytes per second of ``read``, ``write``, ``copy`` and ``blake3``; seconds of ``start``.
        nbytes: of the weights.
        cores: how many there are.

    Returns:
        The rates, the seconds of one core that each step takes, and the least seconds without and with the check.
    """
    steps = [{"step": name, "cpu_s": nbytes / rates[rate], "of_the_check": late} for name, rate, late in STEPS]

    def least(checked: bool) -> float:
        work = sum(nbytes / rates[rate] for _, rate, late in STEPS if checked or not late)
        return rates["start"] + max(work / cores, nbytes / rates["write"])

    return {
        "bytes": nbytes,
        "cores": cores,
        "rates": dict(rates),
        "steps": steps,
        "unchecked_s": least(False),
        "checked_s": least(True),
    }


def measure(path: Path, sample: int = SAMPLE) -> dict[str, float]:
    """The rates of a core of this machine while the others do the same.

    Args:
        path: of a file to write, which must not exist.
        sample: how many bytes to measure over.
    """
    cores = cores_here()
    piece = np.random.default_rng(0).bytes(PIECE)
    count = max(1, sample // PIECE)
    length = min(COPIED, count * PIECE)
    held = [(np.zeros(length, np.uint8), np.ones(length, np.uint8), np.empty(PIECE, np.uint8)) for _ in range(cores)]

    def write() -> None:
        path.unlink(missing_ok=True)
        with path.open("wb", buffering=0) as file:
            for _ in range(count):
                file.write(piece)

    def read(core: int) -> None:
        with path.open("rb", buffering=0) as file:
            while file.readinto(held[core][2].data):
                pass

    def copy(core: int) -> None:
        source, into, _ = held[core]
        for _ in range(count * PIECE // length):
            np.copyto(into, source)

    def hashed(core: int) -> None:
        del core
        for _ in range(count):
            blake3.blake3(piece).digest()

    def start() -> None:
        subprocess.run([sys.executable, "-c", START], check=True)

    copied = count * PIECE // length * length
    rates = {"write": count * PIECE / fastest(write)}
    for name, do, nbytes in (("read", read, count * PIECE), ("copy", copy, copied), ("blake3", hashed, count * PIECE)):
        rates[name] = nbytes * cores / fastest(lambda do=do: on_all(do, cores))  # type: ignore[misc]
    return {**rates, "start": fastest(start)}


def on_all(do: Callable[[int], None], cores: int) -> None:
    """Runs something in as many threads at once, each with its number."""
    with ThreadPoolExecutor(cores) as pool:
        list(pool.map(do, range(cores)))


def cores_here() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def fastest(do: Callable[[], None]) -> float:
    """Seconds of a core of the fastest of some runs, children included: what else the machine does falls away."""
    seconds = []
    for _ in range(RUNS):
        begin = cpu_seconds()
        do()
        seconds.append(cpu_seconds() - begin)
    return min(seconds)


def cpu_seconds() -> float:
    """CPU seconds of this process and its children so far."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in used)


if __name__ == "__main__":
    main()

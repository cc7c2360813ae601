"""Times loading a large model from every container beside `cp`, and measures its memory: `python benchmarks/load.py --help`.

Each container is made from one checkpoint, and removed before the next one, so that the disk holds source, container and
the copy of `cp` at most. A new process imports the frameworks and loads a small model of the same container. Then it
loads the large one: the peak of its memory above what it held before is compared with the bytes of the weights.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.bundles import write_bundle  # noqa: E402
from benchmarks.contenders import megabytes  # noqa: E402
from benchmarks.convert import CONVERT, Case, evict, lacks_room, machine, remove, time_one  # noqa: E402

TIMES_THE_WEIGHTS = 1.1  # that loading may take at most
# Size -> the dual encoder, and for OpenCLIP's layout the full CLIP, as checkpoints.py has them.
SIZES = {
    "4gb": ("4gb", "clip-vit-h-14"),
    "1gb": ("1gb", "clip-vit-b-32"),
    "tiny": ("tiny", "clip-tiny"),
}
SMALL = "tiny"
Make = Callable[[Path, Path], None]


def _converted(*options: str) -> Make:
    """Makes a container by a conversion."""

    def make(source: Path, out: Path) -> None:
        command = [*CONVERT, "to", *options, str(source), str(out), "--quiet", "--no-check"]
        subprocess.run(command, check=True, cwd=ROOT)

    return make


@dataclass(frozen=True, slots=True)
class Container:
    """A container to load from.

    Attributes:
        name: what the table calls it.
        make: writes it from a folder with PyTorch's safetensors; None: that folder itself.
        full_clip: whether it holds a full CLIP.
    """

    name: str
    make: Make | None
    full_clip: bool = False


CONTAINERS: Mapping[str, Container] = MappingProxyType({
    "safetensors": Container("PyTorch safetensors", None),
    "bin": Container("pytorch_model.bin", _converted("pt", "--format", "bin")),
    "h5": Container("tf_model.h5", _converted("tf")),
    "tf-safetensors": Container("TensorFlow safetensors", _converted("tf", "--format", "safetensors")),
    "checkpoint": Container("TensorFlow checkpoint", write_bundle),
    "msgpack": Container("flax_model.msgpack", _converted("flax")),
    "open_clip": Container("OpenCLIP safetensors", _converted("pt", "--layout", "open_clip"), full_clip=True),
})  # fmt: skip


def main() -> None:
    """Loads from every container in turn, prints the table and writes the JSON file."""
    parser = argparse.ArgumentParser(description="Times loading a model from every container, and its memory.")
    parser.add_argument("--size", choices=SIZES, default="4gb")
    parser.add_argument("--containers", nargs="+", choices=CONTAINERS, default=list(CONTAINERS), metavar="CONTAINER",
                        help=", ".join(CONTAINERS))  # fmt: skip
    parser.add_argument("--backend", choices=("tensorflow", "jax"), default="tensorflow")
    parser.add_argument("--runs", type=int, default=3, help="timed rounds; 0: memory alone, of one run")
    parser.add_argument(
        "--cold", action="store_true", help="take the checkpoint out of the page cache before every run"
    )
    parser.add_argument("--folder", type=Path, default=ROOT / "benchmarks" / "data", help="where the checkpoints go")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results", help="where the JSON goes")
    options = parser.parse_args()
    if (lacking := lacks_room(options.size, options.folder)) is not None:
        raise SystemExit(lacking)
    folder = options.folder.absolute() / f"load-{options.size}"
    try:
        rows = run(options.size, folder, options.containers, options.backend, options.runs, options.cold)
    finally:
        remove(folder)
    report = {"size": options.size, "backend": options.backend, "machine": machine(), "containers": rows}
    of_backend = "" if options.backend == "tensorflow" else f"-{options.backend}"
    path = options.results / f"load-{options.size}{of_backend}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(f"\n{table(rows)}\n\nwritten to {path}", flush=True)


def run(
    size: str, folder: Path, names: Sequence[str], backend: str, rounds: int, cold: bool = False
) -> list[dict[str, Any]]:
    """Makes each container and loads from it; those of a dual encoder first, so that one source is there at a time."""
    rows = []
    for full_clip in (False, True):
        here = [CONTAINERS[name] for name in names if CONTAINERS[name].full_clip == full_clip]
        if not here:
            continue
        sources = {each: folder / each / "pt" for each in (size, SMALL)}
        counts = {each: _checkpoint(SIZES[each][full_clip], source) for each, source in sources.items()}
        for container in here:
            places = {each: _place(container, source) for each, source in sources.items()}
            row = time_container(container.name, places[size], places[SMALL], backend, rounds, cold)
            rows.append({**row, **counts[size], "times_the_weights": row["peak_mb"] * 1e6 / counts[size]["bytes"]})
            rows[-1]["holds"] = rows[-1]["times_the_weights"] <= TIMES_THE_WEIGHTS
            print(f"{container.name}: {rows[-1]['times_the_weights']:.2f} times the weights", flush=True)
            for each, place in places.items():
                if place != sources[each]:
                    remove(place)
        remove(folder)
    return rows


def _checkpoint(size: str, folder: Path) -> dict[str, int]:
    """Makes the source, and counts its tensors and bytes."""
    command = [sys.executable, str(ROOT / "benchmarks" / "checkpoints.py"), size, str(folder)]
    found: dict[str, int] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return found


def _place(container: Container, source: Path) -> Path:
    """A folder with the container; made, unless it is the source."""
    if container.make is None:
        return source
    out = source.with_name("out")
    container.make(source, out)
    return out


def time_container(
    name: str, folder: Path, small: Path, backend: str, rounds: int, cold: bool = False
) -> dict[str, Any]:
    """Loads a folder in new processes, in turn with `cp`; the first round warms the page cache."""
    copy = Case("cp", ("cp", "-r", str(folder)), folder.with_name("copy"), evicted=folder if cold else None)
    copies: list[float] = []
    loads = [load(folder, small, backend)]
    for _ in range(rounds):
        copies.append(time_one(copy).seconds)
        if cold:
            evict(folder)
        loads.append(load(folder, small, backend))
    timed = loads[1:] or loads
    seconds = [one["seconds"] for one in timed]
    cp = statistics.median(copies) if copies else None
    return {
        "name": name, "median_s": statistics.median(seconds), "fastest_s": min(seconds), "slowest_s": max(seconds),
        "cpu_s": statistics.median(one["cpu"] for one in timed), "cp_s": cp,
        "times_cp": None if cp is None else statistics.median(seconds) / cp,
        "peak_mb": max(one["peak_mb"] for one in loads), "held_mb": max(one["held_mb"] for one in loads), "runs": loads,
    }  # fmt: skip


def load(folder: Path, small: Path, backend: str) -> dict[str, float]:
    """One run of ``inside``, in a new process."""
    environment = {**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-c", "from benchmarks.load import inside; inside()", str(folder), str(small)]
    answer = subprocess.run(
        command, check=True, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    found: dict[str, float] = json.loads(answer.stdout.splitlines()[-1])
    return found


def inside() -> None:
    """Loads the small model, then the other, and prints seconds and memory of the latter."""
    from converter import AutoTwoTower

    folder, small = sys.argv[1:]
    AutoTwoTower.from_pretrained(small)
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM, see proc(5)
    before, began, cpu = megabytes("VmRSS"), time.perf_counter(), time.process_time()
    model = AutoTwoTower.from_pretrained(folder)
    took = {"seconds": time.perf_counter() - began, "cpu": time.process_time() - cpu}
    memory = {"peak_mb": megabytes("VmHWM") - before, "held_mb": megabytes("VmRSS") - before}
    print(json.dumps({**took, **memory, "variables": len(model.variables)}))


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Lays the rows out as a Markdown table."""
    lines = [
        "| from | GB | seconds (fastest to slowest) | CPU s | x `cp` | peak memory x weights | held x weights | bound |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        spread = f"{row['median_s']:.2f} ({row['fastest_s']:.2f} to {row['slowest_s']:.2f})"
        times = "" if row["times_cp"] is None else f"{row['times_cp']:.1f}"
        weights = row["bytes"]
        memory = f"{row['times_the_weights']:.2f} | {row['held_mb'] * 1e6 / weights:.2f}"
        verdict = f"{TIMES_THE_WEIGHTS:g} x {'holds' if row['holds'] else 'MISSED'}"
        lines.append(
            f"| {row['name']} | {weights / 1e9:.2f} | {spread} | {row['cpu_s']:.2f} | {times} | {memory} | {verdict} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()

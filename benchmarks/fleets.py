"""Times fleets of many small and of large checkpoints, here and on Ray: `python benchmarks/fleets.py --help`.

Sources are hard links of one checkpoint, and each OUT is removed at once, so that the disk holds one source and the
OUTs in progress. It measures the cost of each checkpoint beyond `pt2tf` of it alone, and the throughput beside as many
`cp` as there are workers. It also measures the driver's memory for a long list.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.convert import machine, prepare  # noqa: E402

MOST_BYTES = 30 * 10**9
ALONE = 50
# Seconds for each checkpoint beyond the conversion alone.
AIMS = {"local": 0.005, "ray": 0.030}


def main() -> None:
    """Runs the requested cases, prints a table, writes the figures."""
    if sys.argv[1:2] == ["--run"]:
        print(json.dumps(run(json.loads(sys.argv[2]))))
        return
    parser = argparse.ArgumentParser(description="Times fleets here and on Ray.")
    parser.add_argument("--tiny", type=int, default=1_000, metavar="N", help="small checkpoints; 0 leaves them out")
    parser.add_argument("--large", type=int, default=20, metavar="N", help="large ones; 0 leaves them out")
    parser.add_argument("--large-size", default="clip-italian", help="of each, as benchmarks/checkpoints.py has it")
    parser.add_argument("--lines", type=int, default=10_000, metavar="N", help="of the long list; 0 leaves it out")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="checkpoints at a time")
    parser.add_argument("--ray", default="local", metavar="ADDRESS", help="of a cluster; none leaves Ray out")
    parser.add_argument("--folder", type=Path, default=ROOT / "benchmarks" / "data", help="where the checkpoints go")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results", help="where the JSON goes")
    options = parser.parse_args()
    folder = options.folder.absolute() / "fleets"
    places = {"local": None} | ({} if options.ray == "none" else {"ray": options.ray})
    report: dict[str, Any] = {"machine": machine(), "workers": options.workers}
    try:
        if options.tiny:
            report["tiny"] = overheads(folder, options.tiny, places)
        if options.large:
            report["large"] = throughputs(folder, options.large, options.large_size, options.workers, places)
        if options.lines:
            report["driver"] = driver(folder, options.lines, options.workers)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    path = options.results / "fleets.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(f"written to {path}")


def overheads(folder: Path, count: int, places: dict[str, str | None]) -> dict[str, Any]:
    """Seconds of each checkpoint beyond ``pt2tf`` of it in an existing process, one worker at a time."""
    source, sources = linked(folder, "tiny", count)
    alone = converted_alone(source, folder / "alone")
    rows: dict[str, Any] = {"checkpoints": count, "alone_s": alone}
    print(f"{count:,} checkpoints of {weights(source):,} bytes, pt2tf alone {1e3 * alone:.1f} ms\n")
    print("| where | ms each | ms beyond pt2tf | aim |\n|---|---|---|---|")
    for name, address in places.items():
        found = fleet(sources, folder / f"out-{name}", 1, address)
        beyond = found["seconds_each"] - alone
        rows[name] = found | {"overhead_s": beyond, "aim_s": AIMS[name], "met": beyond <= AIMS[name]}
        print(f"| {name} | {1e3 * found['seconds_each']:.1f} | {1e3 * beyond:.1f} | {1e3 * AIMS[name]:.0f} |")
    shutil.rmtree(sources)
    print(flush=True)
    return rows


def throughputs(folder: Path, count: int, size: str, workers: int, places: dict[str, str | None]) -> dict[str, Any]:
    """Bytes a second of large checkpoints, and of as many ``cp`` at a time."""
    source, sources = linked(folder, size, count)
    nbytes = weights(source)
    check_room(folder, (workers + 1) * nbytes)
    rows: dict[str, Any] = {"checkpoints": count, "bytes_each": nbytes}
    rows["cp"] = {"bytes_per_s": copied(source, folder / "copies", count, workers)}
    print(f"{count} checkpoints of {nbytes:,} bytes, {workers} at a time\n\n| what | GB/s | times cp |\n|---|---|---|")
    print(f"| cp | {rows['cp']['bytes_per_s'] / 1e9:.2f} | 1.0 |")
    for name, address in places.items():
        found = fleet(sources, folder / f"out-{name}", workers, address)
        rate = count * nbytes / found["seconds"]
        times = rows["cp"]["bytes_per_s"] / rate
        rows[name] = found | {"bytes_per_s": rate, "times_cp": times}
        print(f"| fleet, {name} | {rate / 1e9:.2f} | {times:.1f} |")
    shutil.rmtree(sources)
    print(flush=True)
    return rows


def driver(folder: Path, count: int, workers: int) -> dict[str, Any]:
    """Peak memory of the driver for a number of lines, and for a tenth of it."""
    found = {}
    print("| lines | driver's peak, MB |\n|---|---|")
    for lines in (max(1, count // 10), count):
        _, sources = linked(folder, "tiny", lines)
        found[str(lines)] = fleet(sources, folder / "out-lines", workers, None)
        shutil.rmtree(sources)
        print(f"| {lines:,} | {found[str(lines)]['peak_mb']:.0f} |")
    print(flush=True)
    return found


def linked(folder: Path, size: str, count: int) -> tuple[Path, Path]:
    """Makes one checkpoint, and a folder with a number of hard links to it."""
    home = folder / f"source-{size}"
    prepare(size, home, ())
    source, sources = home / "pt", folder / f"sources-{size}"
    for number in range(count):
        one = sources / f"m{number:05}"
        one.mkdir(parents=True)
        for path in source.iterdir():
            os.link(path, one / path.name)
    return source, sources


def weights(source: Path) -> int:
    """Bytes of the weights of a checkpoint."""
    return sum(path.stat().st_size for path in source.glob("*.safetensors"))


def check_room(folder: Path, nbytes: int) -> None:
    """Ends the program where the disk, or the 30 GB that this may take of it, do not suffice."""
    free = shutil.disk_usage(folder).free
    if nbytes > min(free, MOST_BYTES):
        raise SystemExit(f"needs {nbytes / 1e9:.1f} GB of disk; {free / 1e9:.1f} GB are free, and 30 GB are allowed")


def converted_alone(source: Path, out: Path) -> float:
    """Median seconds of ``pt2tf`` in this process, the first one left out."""
    from converter import pt2tf

    seconds = []
    for _ in range(ALONE + 1):
        began = time.perf_counter()
        pt2tf(source, out)
        seconds.append(time.perf_counter() - began)
        shutil.rmtree(out)
    return statistics.median(seconds[1:])


def copied(source: Path, copies: Path, count: int, workers: int) -> float:
    """Bytes per second of ``cp``, as many at a time as there are workers; each copy is removed at once."""

    def copy(number: int) -> None:
        subprocess.run(["cp", "-r", str(source), str(copies / str(number))], check=True)
        shutil.rmtree(copies / str(number))

    copies.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(copy, range(count)))
    return count * weights(source) / (time.perf_counter() - began)


def fleet(sources: Path, out: Path, workers: int, address: str | None) -> dict[str, Any]:
    """Runs a fleet in a separate process, whose memory is the driver's."""
    asked = json.dumps({"sources": str(sources), "out": str(out), "workers": workers, "ray": address})
    try:
        answer = subprocess.run(
            [sys.executable, __file__, "--run", asked], stdout=subprocess.PIPE, text=True, check=True
        )
    finally:
        shutil.rmtree(out, ignore_errors=True)
    found: dict[str, Any] = json.loads(answer.stdout.splitlines()[-1])
    if set(found["counts"]) != {"done"}:
        raise SystemExit(f"not all were converted: {found['counts']}")
    return found


def run(asked: dict[str, Any]) -> dict[str, Any]:
    """The fleet: removes every OUT when it is noted. Ray is started before, as a cluster is."""
    from converter import FleetProgress
    from converter import fleet as convert_all
    from converter.system.processes import peak_memory

    out, ended = Path(asked["out"]), []
    if asked["ray"] is not None:
        import ray

        alone = {"object_store_memory": 100 * 2**20} if asked["ray"] == "local" else {}
        ray.init(address=asked["ray"], log_to_driver=False, logging_level="ERROR", **alone)

    def note(far: FleetProgress) -> None:
        if far.last is not None:
            ended.append(time.perf_counter())
            shutil.rmtree(out / far.last.name)

    workers = asked["workers"]
    found = convert_all(asked["sources"], out, workers=workers, verify="none", ray=asked["ray"], progress=note)
    spans = [after - before for before, after in itertools.pairwise(ended)]
    return {
        "seconds": found.seconds,
        "seconds_each": statistics.fmean(spans) if spans else found.seconds,
        "peak_mb": (peak_memory() or 0) / 1e6,
        "counts": dict(found.counts),
    }


if __name__ == "__main__":
    main()

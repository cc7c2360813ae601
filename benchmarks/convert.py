"""Times conversions as whole processes against `cp` and transformers 4.57.6: `python benchmarks/convert.py --help`.

Every round runs every case once, so that what else the machine does falls on all of them alike; the first round warms
the page cache and is thrown away. This process imports nothing large: a child's peak memory counts from its parent's.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import timeline  # noqa: E402

CONVERT = (sys.executable, "-m", "converter")
PEER = "transformers 4.57.6 from_pt"
PEER_OF_FLAX = "transformers 4.50.3 from_flax"
# Times `cp` that a checked conversion shall take; above it the report shows where the time goes.
AIM = 4
PEAK_MB = 200  # whatever the size
MANY = 10_000  # tensors, from which on the time is theirs and not the start's or the bytes'
# What may be timed: conversions between PyTorch safetensors and tf_model.h5, the other containers, Flax, and the rest.
CASES = ("h5", "bin", "tf-safetensors", "flax", "help", "peer")
# The same in OpenCLIP's layout, which has full CLIP models alone.
OPEN_CLIP = "open_clip"
# One direction, on all cores and on one: how the cost grows with the size.
GROWTH = "growth"
# Size (see checkpoints.py) -> limits in times cp, without and with the check, and the default parts to time.
SIZES: dict[str, tuple[float | None, float | None, tuple[str, ...]]] = {
    "clip-italian": (4, 8, CASES),
    "clip-vit-b-32": (4, 8, ("h5", OPEN_CLIP, "peer")),
    "4gb": (3, 6, ("h5",)),
    "20000-tensors": (None, None, ("h5", "bin", "tf-safetensors", "help")),
    "tiny": (None, None, CASES[:-1]),
    "0.1gb": (None, None, (GROWTH,)),
    "1gb": (None, None, (GROWTH,)),
    "16gb": (None, None, (GROWTH,)),
}
GROWING = ("0.1gb", "1gb", "16gb")
SHARD = {"4gb": "1GB", "16gb": "2GB", "tiny": "30KB"}
# Bytes that the disk must have free: source and output, and some for whatever else it is for.
ROOM = {"16gb": 42 * 10**9, "4gb": 20 * 10**9}
# An installed package is compiled; the first round, which is thrown away, does it here.
ENVIRONMENT = {
    name: value for name, value in os.environ.items() if name not in ("PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX")
}


@dataclass(frozen=True, slots=True)
class Case:
    """One command to time.

    Attributes:
        name: what the table calls it.
        command: the command, without the output path.
        out: what the command makes, given to it as its last argument and removed before every run; None: nothing.
        against: name of the `cp` case that it is compared with.
        at_most: how many times that one's seconds it may take; None: no bound.
        seconds: how many seconds it may take; None: no bound.
        peak_mb: how much memory it may take; None: no bound.
        rounds: how many of the rounds it takes part in; None: all.
        evicted: a folder whose files are taken out of the page cache first; None: they stay.
    """

    name: str
    command: Sequence[str]
    out: Path | None = None
    against: str | None = None
    at_most: float | None = None
    seconds: float | None = None
    peak_mb: float | None = None
    rounds: int | None = None
    evicted: Path | None = None


@dataclass(frozen=True, slots=True)
class Conversion:
    """One way to convert: which of the cases it belongs to, the command, its source, the container to write."""

    part: str
    command: str
    source: str
    format: str
    name: str


CONVERSIONS = (
    Conversion("h5", "pt2tf", "pt", "h5", "pt2tf"),
    Conversion("tf-safetensors", "pt2tf", "pt", "safetensors", "pt2tf to TF safetensors"),
    Conversion("h5", "tf2pt", "tf", "safetensors", "tf2pt"),
    Conversion("bin", "tf2pt", "tf", "bin", "tf2pt to .bin"),
    Conversion("bin", "pt2tf", "bin", "h5", "pt2tf from .bin"),
    Conversion("tf-safetensors", "tf2pt", "tf-safetensors", "safetensors", "tf2pt from TF safetensors"),
    Conversion(OPEN_CLIP, "pt2tf", OPEN_CLIP, "h5", "pt2tf from OpenCLIP"),
    Conversion(GROWTH, "pt2tf", "pt", "h5", "pt2tf"),
    Conversion("flax", "to tf", "flax", "h5", "flax2tf"),
    Conversion("flax", "to pt", "flax", "safetensors", "flax2pt"),
    Conversion("flax", "to flax", "pt", "msgpack", "pt2flax"),
)
PEERS = {"pt2tf": PEER, "flax2pt": PEER_OF_FLAX}


@dataclass(frozen=True, slots=True)
class Run:
    """One run: wall seconds, CPU seconds (user and system), peak resident memory in MB."""

    seconds: float
    cpu: float
    peak_mb: float


def main() -> None:
    """Times every size in turn."""
    parser = argparse.ArgumentParser(description="Times conversions against cp and transformers 4.57.6.")
    sizes = ["clip-italian", "clip-vit-b-32", "20000-tensors", "4gb", *GROWING]
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=sizes, metavar="SIZE", help=", ".join(SIZES))
    parser.add_argument(
        "--cases",
        nargs="+",
        choices=(*CASES, OPEN_CLIP, GROWTH),
        metavar="CASE",
        help=f"{', '.join((*CASES, OPEN_CLIP, GROWTH))}; default: by size",
    )
    parser.add_argument("--runs", type=int, default=9, help="timed rounds")
    parser.add_argument("--peer-runs", type=int, default=3, help="how many of them transformers takes part in")
    parser.add_argument("--folder", type=Path, default=ROOT / "benchmarks" / "data", help="where the checkpoints go")
    parser.add_argument("--cold", action="store_true", help="time conversions with the source out of the cache, too")
    parser.add_argument("--keep", action="store_true", help="do not remove the checkpoints afterwards")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results", help="where the JSON goes")
    options = parser.parse_args()
    for size in options.sizes:
        folder = options.folder.absolute() / size
        if (lacking := lacks_room(size, options.folder)) is not None:
            print(f"{size}: left out: {lacking}\n", flush=True)
            continue
        try:
            report = run_size(
                size, folder, options.cases or SIZES[size][2], options.runs, options.peer_runs, options.cold
            )
        finally:
            if not options.keep:
                remove(folder)
        path = options.results / f"convert-{size}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        print(f"\nwritten to {path}\n", flush=True)


def lacks_room(size: str, folder: Path) -> str | None:
    """Why a size is not run on this disk, or None."""
    while not folder.exists():
        folder = folder.parent
    free, needed = shutil.disk_usage(folder).free, ROOM.get(size, 0)
    return f"it needs {needed / 1e9:.0f} GB of disk, {free / 1e9:.0f} GB are free" if free < needed else None


def run_size(
    size: str, folder: Path, wanted: Sequence[str], rounds: int, peer_rounds: int, cold: bool = False
) -> dict[str, Any]:
    """Makes the checkpoints of one size if needed, runs the rounds, prints the table and returns the report."""
    counts = prepare(size, folder, wanted)
    cases = make_cases(size, folder, wanted, peer_rounds, cold)
    runs = measure(cases, rounds)
    rows = [summarise(case, runs, counts["tensors"]) for case in cases]
    for row in rows:
        row["s_per_gb"] = row["median_s"] / counts["bytes"] * 1e9
    what = f"{counts['tensors']:,} tensors, {counts['bytes'] / 1e6:,.1f} MB"
    print(f"{size}: {what}, median of {rounds} (transformers: {peer_rounds})\n")
    print(table(rows))
    least = limit(folder, counts["bytes"])
    print(limit_lines(least, rows))
    report: dict[str, Any] = {"size": size, **counts, "machine": machine(), "cases": rows, "limit": least}
    if any(row["name"] == "pt2tf" and row["times_cp"] > AIM for row in rows) and size not in ROOM:
        report["timeline"] = timeline.stages(folder / "pt", folder / "out", ENVIRONMENT, remove)
        print(f"\n{timeline.lines(report['timeline'], least)}")
    return report


def limit(folder: Path, nbytes: int) -> dict[str, Any]:
    """What ``limit.py`` computes for this machine and a number of bytes."""
    command = [sys.executable, str(ROOT / "benchmarks" / "limit.py"), str(nbytes / 1e6), "--folder", str(folder)]
    answer = subprocess.run(
        [*command, "--sample", str(min(max(nbytes, 10**7), 4 * 10**8))],
        check=True, capture_output=True, text=True, env=ENVIRONMENT,
    )  # fmt: skip
    found: dict[str, Any] = json.loads(answer.stdout)
    return found


def limit_lines(least: dict[str, Any], rows: Sequence[dict[str, Any]]) -> str:
    """The rows of the table that say what could be reached, and where the time of a core would go."""
    yardstick = next((row["median_s"] for row in rows if row["name"] == "cp pt"), None)
    lines = []
    for name, seconds in (("limit --no-check", least["unchecked_s"]), ("limit", least["checked_s"])):
        ratio = "" if yardstick is None else f"{seconds / yardstick:.1f}"
        lines.append(f"| {name} | {seconds:.2f} |  |  |  | {ratio} |  |  |  |")
    steps = ", ".join(f"{step['step']} {step['cpu_s']:.2f}" for step in least["steps"])
    return "\n".join([*lines, "", f"Seconds of a core: start {least['rates']['start']:.2f}, {steps}"])


def prepare(size: str, folder: Path, wanted: Sequence[str]) -> dict[str, int]:
    """Makes the checkpoints to convert, each a folder with only config and weights, unless they exist.

    Returns:
        ``tensors`` and ``bytes`` of them.
    """
    counts = folder / "counts.json"
    if not counts.exists():
        command = [sys.executable, str(ROOT / "benchmarks" / "checkpoints.py"), size, str(folder / "pt")]
        made = subprocess.run(command, check=True, capture_output=True, text=True)
        counts.write_text(made.stdout, encoding="utf-8")
    shard = ("--max-shard-size", SHARD[size]) if size in SHARD else ()
    recipes = {
        "tf": ({"h5", "bin"}, ("pt2tf", str(folder / "pt"))),
        "tf-safetensors": ({"tf-safetensors"}, ("pt2tf", "--format", "safetensors", str(folder / "pt"))),
        "bin": ({"bin"}, ("tf2pt", "--format", "bin", str(folder / "tf"))),
        OPEN_CLIP: ({OPEN_CLIP}, ("to", "pt", "--layout", OPEN_CLIP, str(folder / "pt"))),
        "flax": ({"flax"}, ("to", "flax", str(folder / "pt"))),
    }
    for name, (needed_by, command_line) in recipes.items():
        if needed_by.intersection(wanted) and not list((folder / name).glob("*config.json")):
            command = [*CONVERT, *command_line, str(folder / name), "--quiet", "--no-check", *shard]
            subprocess.run(command, check=True, cwd=ROOT)
            (folder / name / "conversion.json").unlink()
    found: dict[str, int] = json.loads(counts.read_text(encoding="utf-8"))
    return found


def make_cases(size: str, folder: Path, wanted: Sequence[str], peer_rounds: int, cold: bool = False) -> list[Case]:
    """Lists what is timed, every source's `cp` before its conversions."""
    cases: dict[str, Case] = {}
    for conversion in CONVERSIONS:
        if conversion.part in wanted:
            yardstick = Case(f"cp {conversion.source}", ("cp", "-r", str(folder / conversion.source)), folder / "out")
            cases.setdefault(yardstick.name, yardstick)
            ways = conversion_cases(size, folder, conversion, yardstick.name)
            cases |= {case.name: case for case in ways}
            if conversion.part == GROWTH and (pin := shutil.which("taskset")) is not None:
                alone = [
                    replace(case, name=f"{case.name}, one core", command=(pin, "-c", "0", *case.command))
                    for case in ways
                ]
                cases |= {case.name: case for case in alone}
            if cold:
                for case in (yardstick, *ways):
                    name, against = f"{case.name}, cold", case.against and f"{case.against}, cold"
                    cases[name] = replace(
                        case, name=name, against=against, at_most=None, evicted=folder / conversion.source
                    )
    if "help" in wanted:
        cases["help"] = Case("convert --help", (*CONVERT, "--help"), seconds=0.15)
    python = os.environ.get("COMPAT_PYTHON")
    if "peer" in wanted and python and peer_rounds:
        peer = (python, str(ROOT / "benchmarks" / "peer_convert.py"), str(folder / "pt"))
        cases["peer"] = Case(PEER, peer, folder / "out", "cp pt" if "cp pt" in cases else None, rounds=peer_rounds)
    python = os.environ.get("FLAX_PYTHON")
    if {"peer", "flax"} <= set(wanted) and python and peer_rounds and size not in SHARD:  # it reads no shards
        peer = (python, str(ROOT / "benchmarks" / "peer_convert.py"), str(folder / "flax"))
        cases["peer-flax"] = Case(PEER_OF_FLAX, peer, folder / "out", "cp flax", rounds=peer_rounds)
    return list(cases.values())


def conversion_cases(size: str, folder: Path, conversion: Conversion, against: str) -> tuple[Case, Case]:
    """One conversion without and with the check."""
    bare, checked, _ = SIZES[size] if conversion.part in ("h5", OPEN_CLIP, "flax") else (None, None, ())
    shard = ("--max-shard-size", SHARD[size]) if size in SHARD else ()
    line = (*CONVERT, *conversion.command.split(), "--quiet", "--format", conversion.format, *shard)
    source, out, name = str(folder / conversion.source), folder / "out", conversion.name
    return (
        Case(f"{name} --no-check", (*line, "--no-check", source), out, against, bare, peak_mb=PEAK_MB),
        Case(name, (*line, source), out, against, checked, peak_mb=PEAK_MB),
    )


def measure(cases: Sequence[Case], rounds: int) -> dict[str, list[Run]]:
    """Runs every case once per round; the first round is not counted."""
    runs: dict[str, list[Run]] = {case.name: [] for case in cases}
    for number in range(rounds + 1):
        for case in cases:
            if case.rounds is not None and not 0 < number <= case.rounds:
                continue
            if sys.stderr.isatty():
                print(f"\rround {number} of {rounds}: {case.name:<40}", end="\r", file=sys.stderr, flush=True)
            run = time_one(case)
            if number > 0:
                runs[case.name].append(run)
    return runs


def time_one(case: Case) -> Run:
    """Runs a command, with nothing left to be written to disk by the one before."""
    command = list(case.command)
    if case.out is not None:
        remove(case.out)
        command.append(str(case.out))
    os.sync()
    if case.evicted is not None:
        evict(case.evicted)
    begin = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT, env=ENVIRONMENT)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - begin
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}: exit status {process.returncode}")
    if case.out is not None:
        remove(case.out)
    return Run(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024 / 1e6)


def evict(folder: Path) -> None:
    """Takes the files of a folder out of the page cache, where the system lets a program say so."""
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def remove(path: Path) -> None:
    """Removes a file or folder, if there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def summarise(case: Case, runs: dict[str, list[Run]], tensors: int) -> dict[str, Any]:
    """Median and spread of a case, how often its yardstick fits into it, and whether its bounds hold."""
    seconds = [run.seconds for run in runs[case.name]]
    median = statistics.median(seconds)
    ratio = median / statistics.median(run.seconds for run in runs[case.against]) if case.against else None
    other = PEERS.get(case.name.removesuffix(" --no-check"))
    peer = statistics.median(run.seconds for run in runs[other]) if other and runs.get(other) else None
    peak = max(run.peak_mb for run in runs[case.name])
    bounds = [(case.at_most, ratio, "x"), (case.seconds, median, " s"), (case.peak_mb, peak, " MB")]
    stated = [(bound, value, unit) for bound, value, unit in bounds if bound is not None]
    return {
        "name": case.name,
        "median_s": median,
        "fastest_s": min(seconds),
        "slowest_s": max(seconds),
        "cpu_s": statistics.median(run.cpu for run in runs[case.name]),
        "peak_mb": peak,
        "times_cp": ratio,
        "us_per_tensor": median / tensors * 1e6 if case.against and tensors >= MANY else None,
        "peer_ratio": peer / median if peer else None,
        "bound": ", ".join(f"{bound:g}{unit}" for bound, _, unit in stated) or None,
        "holds": all(value is not None and value <= bound for bound, value, _ in stated),
        "runs": [asdict(run) for run in runs[case.name]],
    }


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Lays the summary out as a Markdown table."""
    lines = [
        "| what | median s | fastest to slowest | CPU s | peak MB | x cp | us per tensor | bound "
        "| x faster than transformers |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        ratio, each, faster = (
            "" if row[name] is None else f"{row[name]:.1f}" for name in ("times_cp", "us_per_tensor", "peer_ratio")
        )
        bound = "" if row["bound"] is None else f"{row['bound']} {'hold' if row['holds'] else 'MISSED'}"
        spread = f"{row['fastest_s']:.2f} to {row['slowest_s']:.2f}"
        cells = (row["name"], f"{row['median_s']:.2f}", spread, f"{row['cpu_s']:.2f}", f"{row['peak_mb']:,.0f}")
        lines.append(f"| {' | '.join((*cells, ratio, each, bound, faster))} |")
    return "\n".join(lines)


def machine() -> dict[str, Any]:
    """What the figures were taken on."""
    cpuinfo = Path("/proc/cpuinfo")
    models = [line for line in cpuinfo.read_text().splitlines() if "model name" in line] if cpuinfo.exists() else []
    return {
        "cpu": models[0].split(":", 1)[1].strip() if models else platform.processor(),
        "cores": os.cpu_count(),
        "load": os.getloadavg(),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


if __name__ == "__main__":
    main()

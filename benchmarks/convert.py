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
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
CONVERT = (sys.executable, "-m", "converter")
PEER = "transformers 4.57.6 from_pt"
BOUNDS = (4, 8)  # times cp, without and with the check, at the size they were set for


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
        rounds: how many of the rounds it takes part in; None: all.
    """

    name: str
    command: Sequence[str]
    out: Path | None = None
    against: str | None = None
    at_most: float | None = None
    seconds: float | None = None
    rounds: int | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """One run: wall seconds, CPU seconds (user and system), peak resident memory in MB."""

    seconds: float
    cpu: float
    peak_mb: float


def main() -> None:
    """Makes the checkpoint if need be, runs the rounds, prints the table and writes the JSON."""
    parser = argparse.ArgumentParser(description="Times conversions against cp and transformers 4.57.6.")
    parser.add_argument("--size", default="clip-italian", help="which of benchmarks/checkpoints.py's SIZES")
    parser.add_argument("--runs", type=int, default=9, help="timed rounds")
    parser.add_argument("--peer-runs", type=int, default=3, help="how many of them transformers takes part in")
    parser.add_argument("--folder", type=Path, default=ROOT / "benchmarks" / "data", help="where the checkpoints go")
    parser.add_argument("--json", type=Path, help="default: benchmarks/results/convert-SIZE.json")
    options = parser.parse_args()
    folder = options.folder / options.size
    prepare(options.size, folder)
    bounds = BOUNDS if options.size == "clip-italian" else (None, None)
    cases = make_cases(folder, options.peer_runs, *bounds)
    runs = measure(cases, options.runs)
    rows = [summarise(case, runs) for case in cases]
    size = (folder / "pt" / "model.safetensors").stat().st_size
    print(f"{options.size}, {size / 1e6:,.0f} MB, median of {options.runs} (transformers: {options.peer_runs})\n")
    print(table(rows))
    report = {"size": options.size, "bytes": size, "machine": machine(), "cases": rows}
    path = options.json or ROOT / "benchmarks" / "results" / f"convert-{options.size}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(f"\nwritten to {path}")


def prepare(size: str, folder: Path) -> None:
    """Makes the PyTorch checkpoint, and from it the TensorFlow one, unless they are there."""
    if not (folder / "pt" / "config.json").exists():
        command = [sys.executable, str(ROOT / "benchmarks" / "checkpoints.py"), size, str(folder / "pt")]
        subprocess.run(command, check=True)
    if not (folder / "tf" / "config.json").exists():
        subprocess.run([*CONVERT, "pt2tf", str(folder / "pt"), str(folder / "tf")], check=True, cwd=ROOT)


def make_cases(folder: Path, peer_runs: int, bare: float | None, checked: float | None) -> list[Case]:
    """Lists what is timed, the yardsticks first; a conversion may take ``bare`` or ``checked`` times its `cp`."""
    pt, tf, out = folder / "pt", folder / "tf", folder / "out"
    pt_cp, tf_cp = "cp model.safetensors", "cp tf_model.h5"
    cases = [
        Case(pt_cp, ("cp", str(pt / "model.safetensors")), out),
        Case("pt2tf --no-check", (*CONVERT, "pt2tf", "--quiet", "--no-check", str(pt)), out, pt_cp, bare),
        Case("pt2tf", (*CONVERT, "pt2tf", "--quiet", str(pt)), out, pt_cp, checked),
        Case(tf_cp, ("cp", str(tf / "tf_model.h5")), out),
        Case("tf2pt --no-check", (*CONVERT, "tf2pt", "--quiet", "--no-check", str(tf)), out, tf_cp, bare),
        Case("tf2pt", (*CONVERT, "tf2pt", "--quiet", str(tf)), out, tf_cp, checked),
        Case("convert --help", (*CONVERT, "--help"), seconds=0.15),
    ]
    python = os.environ.get("COMPAT_PYTHON")
    if python and peer_runs:
        peer = (python, str(ROOT / "benchmarks" / "peer_convert.py"), str(pt))
        cases.append(Case(PEER, peer, out, pt_cp, rounds=peer_runs))
    return cases


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
    begin = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - begin
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}: exit status {process.returncode}")
    if case.out is not None:
        remove(case.out)
    return Run(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024 / 1e6)


def remove(path: Path) -> None:
    """Removes a file or folder, if there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def summarise(case: Case, runs: dict[str, list[Run]]) -> dict[str, Any]:
    """Median and spread of a case, how often its yardstick fits into it, and whether its bound holds."""
    seconds = [run.seconds for run in runs[case.name]]
    median = statistics.median(seconds)
    ratio = median / statistics.median(run.seconds for run in runs[case.against]) if case.against else None
    peer = statistics.median(run.seconds for run in runs[PEER]) if runs.get(PEER) else None
    bounds = [(case.at_most, ratio, "x"), (case.seconds, median, " s")]
    return {
        "name": case.name,
        "median_s": median,
        "fastest_s": min(seconds),
        "slowest_s": max(seconds),
        "cpu_s": statistics.median(run.cpu for run in runs[case.name]),
        "peak_mb": max(run.peak_mb for run in runs[case.name]),
        "times_cp": ratio,
        "peer_ratio": peer / median if peer and case.name.startswith("pt2tf") else None,
        "bound": next((f"{bound:g}{unit}" for bound, _, unit in bounds if bound is not None), None),
        "holds": all(value is not None and value <= bound for bound, value, _ in bounds if bound is not None),
        "runs": [asdict(run) for run in runs[case.name]],
    }


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Lays the summary out as a Markdown table."""
    lines = [
        "| what | median s | fastest to slowest | CPU s | peak MB | x cp | bound | x faster than transformers |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        ratio, faster = ("" if row[name] is None else f"{row[name]:.1f}" for name in ("times_cp", "peer_ratio"))
        bound = "" if row["bound"] is None else f"{row['bound']} {'holds' if row['holds'] else 'MISSED'}"
        spread = f"{row['fastest_s']:.2f} to {row['slowest_s']:.2f}"
        cells = (row["name"], f"{row['median_s']:.2f}", spread, f"{row['cpu_s']:.2f}", f"{row['peak_mb']:,.0f}")
        lines.append(f"| {' | '.join((*cells, ratio, bound, faster))} |")
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

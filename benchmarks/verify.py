"""Times `convert verify`, whole, against a plain script with transformers 4.57.6: `python benchmarks/verify.py --help`.

Interleaved as benchmarks/convert.py does it, from which all of the measuring comes. Memory is that of the two processes that
hold a model, each above what the same process takes for a tiny model: imports are not weights.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.convert import CONVERT, Case, Run, machine, measure, prepare, remove  # noqa: E402

OURS, WEIGHTS_ONLY, PEER = "convert verify", "convert verify --weights-only", "transformers 4.57.6, logits of one batch"
FASTER = 1.5  # than the script
TIMES_THE_WEIGHTS = 2.0  # what neither process may hold
SIDES = ("reference", "candidate")


def main() -> None:
    """Prepares the checkpoints, times all of it, prints the table and writes the JSON file."""
    parser = argparse.ArgumentParser(description="Times `convert verify` against a script with transformers 4.57.6.")
    parser.add_argument("--size", choices=("clip-italian", "tiny"), default="clip-italian")
    parser.add_argument("--runs", type=int, default=5, help="timed rounds")
    parser.add_argument("--folder", type=Path, default=ROOT / "benchmarks" / "data", help="where the checkpoints go")
    parser.add_argument("--keep", action="store_true", help="do not remove the checkpoints afterwards")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results", help="where the JSON goes")
    options = parser.parse_args()
    base, folder = (options.folder.absolute() / f"verify-{name}" for name in ("base", options.size))
    try:
        report = run_size(options.size, folder, base, options.runs)
    finally:
        if not options.keep:
            remove(folder)
            remove(base)
    path = options.results / f"verify-{options.size}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(f"\nwritten to {path}", flush=True)


def run_size(size: str, folder: Path, base: Path, rounds: int) -> dict[str, Any]:
    """Times one size, and gives the report."""
    counts = prepare_pair(size, folder)
    prepare_pair("tiny", base)
    cases = make_cases(folder)
    runs = measure(cases, rounds)
    last = json.loads((folder / "report.json").read_text("utf-8"))["report"]
    subprocess.run([*verify_command(base)], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    tiny = json.loads((base / "report.json").read_text("utf-8"))["report"]
    memory = {side: held(last[side], tiny[side], counts["bytes"]) for side in SIDES}
    report = {"size": size, **counts, "machine": machine(), "compared": last["compared"], "batches": last["batches"],
              "cases": [summarise(case.name, runs) for case in cases], "memory": memory}  # fmt: skip
    print(f"{size}: {counts['tensors']:,} tensors, {counts['bytes'] / 1e6:,.1f} MB, median of {rounds}\n")
    print(table(report))
    return report


def prepare_pair(size: str, folder: Path) -> dict[str, int]:
    """Makes a PyTorch checkpoint and, with its manifest, the TensorFlow one that is verified."""
    folder.mkdir(parents=True, exist_ok=True)
    counts = prepare(size, folder, ())
    if not (folder / "tf").exists():
        subprocess.run([*CONVERT, "pt2tf", str(folder / "pt"), str(folder / "tf"), "--quiet"], check=True, cwd=ROOT)
    return counts


def verify_command(folder: Path) -> tuple[str, ...]:
    """The whole verification, its figures kept beside the checkpoints."""
    return (*CONVERT, "verify", str(folder / "tf"), "--no-record", "--report", str(folder / "report.json"))


def make_cases(folder: Path) -> list[Case]:
    """Lists what is timed."""
    cases = [
        Case(OURS, verify_command(folder)),
        Case(WEIGHTS_ONLY, (*CONVERT, "verify", str(folder / "tf"), "--weights-only")),
    ]
    python = os.environ.get("COMPAT_PYTHON")
    if python:
        script = str(ROOT / "benchmarks" / "peer_verify.py")
        cases.append(Case(PEER, (python, script, str(folder / "pt"), str(folder / "tf"))))
    return cases


def held(run: dict[str, str], tiny: dict[str, str], weights: int) -> dict[str, Any]:
    """What a process held at most, with and without its imports, and how often the weights fit into that."""
    peak, imports = float(run["peak_memory"]), float(tiny["peak_memory"])
    times = (peak - imports) / weights
    return {"peak_mb": peak / 1e6, "imports_mb": imports / 1e6, "times_the_weights": times,
            "seconds": float(run["seconds"]), "holds": times < TIMES_THE_WEIGHTS}  # fmt: skip


def summarise(name: str, runs: dict[str, list[Run]]) -> dict[str, Any]:
    """Median and spread of a case, and how often `convert verify` fits into it."""
    seconds = [run.seconds for run in runs[name]]
    ratio = statistics.median(seconds) / statistics.median(run.seconds for run in runs[OURS])
    return {
        "name": name,
        "median_s": statistics.median(seconds),
        "fastest_s": min(seconds),
        "slowest_s": max(seconds),
        "cpu_s": statistics.median(run.cpu for run in runs[name]),
        "peak_mb": max(run.peak_mb for run in runs[name]),
        "times_verify": ratio,
        "holds": ratio >= FASTER if name == PEER else None,
        "runs": [asdict(run) for run in runs[name]],
    }


def table(report: dict[str, Any]) -> str:
    """Lays the summary out as two Markdown tables."""
    lines = ["| what | median s | fastest to slowest | CPU s | times `convert verify` |", "|---|---|---|---|---|"]
    for row in report["cases"]:
        spread = f"{row['fastest_s']:.1f} to {row['slowest_s']:.1f}"
        verdict = {None: "", True: f" ({FASTER:g} holds)", False: f" ({FASTER:g} MISSED)"}[row["holds"]]
        times = f"{row['times_verify']:.2f}{verdict}"
        lines.append(f"| {row['name']} | {row['median_s']:.1f} | {spread} | {row['cpu_s']:.1f} | {times} |")
    lines += [
        "",
        "| process | seconds | peak MB | of it imports | the rest, times the weights |",
        "|---|---|---|---|---|",
    ]
    for side, row in report["memory"].items():
        verdict = f"< {TIMES_THE_WEIGHTS:g} {'holds' if row['holds'] else 'MISSED'}"
        figures = f"{row['seconds']:.1f} | {row['peak_mb']:,.0f} | {row['imports_mb']:,.0f}"
        lines.append(f"| {side} | {figures} | {row['times_the_weights']:.2f} ({verdict}) |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()

"""Times the model beside transformers 4.57.6, PyTorch and itself on JAX: `python benchmarks/models.py --help`.

Loading is timed in new processes, without imports. For the passes, every contender is a process that holds its model.
Each round runs every case once in every contender, so that other load on the machine affects all of them alike. Their
outputs are compared with PyTorch's: a contender that is fast with other numbers is rejected.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.contenders import CASES, HALF, KINDS  # noqa: E402
from benchmarks.convert import machine, remove  # noqa: E402
from benchmarks.verify import prepare_pair  # noqa: E402

NAMES = {
    "ours": "this package", "jax": "this package on JAX", "peer": "transformers 4.57.6", "torch": "PyTorch",
    "ours-bfloat16": "this package in bfloat16", "torch-bfloat16": "PyTorch in bfloat16",
}  # fmt: skip
OURS = ("ours", "tf.function")
LOADERS = (("ours", "pt"), ("ours", "tf"), ("peer", "pt"), ("peer", "tf"))
SIZES = ("clip-italian", "dinov3-vit-b-16", "swinv2-tiny", "tiny")
FASTER, TIMES_THE_WEIGHTS = 3.0, 1.3  # bounds of loading
AGREE = 1e-3  # of what is computed, relative and absolute; loss depends on each one's dropout
# A pause lets threads that wait for more work go to sleep before the next contender is timed.
PAUSE = 0.25


@dataclass(frozen=True, slots=True)
class Contender:
    """A process that holds a model."""

    kind: str
    process: subprocess.Popen[str]
    first: dict[str, Any]

    def ask(self, case: str, mode: str) -> dict[str, Any]:
        """One run of one case."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"case": case, "mode": mode}) + "\n")
        self.process.stdin.flush()
        return _line(self.process)

    def close(self) -> None:
        """Ends the process."""
        self.process.kill()
        self.process.wait()


def start(kind: str, folder: Path, source: str) -> Contender:
    """Starts a process and waits until its model is loaded."""
    python = os.environ["COMPAT_PYTHON"] if kind == "peer" else sys.executable
    backend = "jax" if kind == "jax" else "tensorflow"
    environment = {**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    environment.pop("TF_ENABLE_ONEDNN_OPTS", None)  # as TensorFlow comes, for everyone
    script, small = ROOT / "benchmarks" / "contenders.py", folder.with_name("models-tiny")
    command = [python, str(script), kind, str(folder / source), str(small / source)]
    process = subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    return Contender(kind, process, _line(process))


def _line(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise SystemExit(f"{process.args!r}: ended with {process.wait()}")
    found: dict[str, Any] = json.loads(line)
    return found


def available(kinds: Sequence[str]) -> list[str]:
    """Contenders that can run here: the peer needs another environment."""
    return [kind for kind in kinds if kind != "peer" or os.environ.get("COMPAT_PYTHON")]


def time_loading(folder: Path, kinds: Sequence[str], rounds: int, weights: int) -> list[dict[str, Any]]:
    """Loads from either framework's checkpoint, in new processes in turn."""
    cases = [(kind, source) for kind, source in LOADERS if kind in kinds]
    taken: dict[tuple[str, str], list[dict[str, Any]]] = {case: [] for case in cases}
    for number in range(rounds + 1):
        for kind, source in cases:
            contender = start(kind, folder, source)
            contender.close()
            if number:  # the first round warms the page cache
                taken[kind, source].append(contender.first)
    medians = {case: statistics.median(run["load_seconds"] for run in runs) for case, runs in taken.items()}
    rows = []
    for (kind, source), runs in taken.items():
        seconds = [run["load_seconds"] for run in runs]
        memory = max(run["load_mb"] for run in runs) * 1e6 / weights
        peer = medians.get(("peer", source))
        faster = None if kind == "peer" or peer is None else peer / medians[kind, source]
        rows.append({
            "kind": kind, "source": source, "median_s": medians[kind, source], "fastest_s": min(seconds),
            "slowest_s": max(seconds), "times_the_weights": memory, "faster": faster,
            "holds": None if kind == "peer" else memory <= TIMES_THE_WEIGHTS and (faster is None or faster >= FASTER),
        })  # fmt: skip
    return rows


def time_cases(folder: Path, kinds: Sequence[str], cases: Sequence[str], rounds: int) -> list[dict[str, Any]]:
    """Runs every case in every contender, in turn; two runs before the rounds compile and warm up."""
    with contextlib.ExitStack() as stack:
        contenders = []
        for kind in kinds:
            contenders.append(start(kind, folder, "pt" if kind.startswith("torch") else "tf"))
            stack.callback(contenders[-1].close)
        return [row for case in cases for row in time_case(contenders, case, rounds)]


def time_case(contenders: Sequence[Contender], case: str, rounds: int) -> list[dict[str, Any]]:
    """One case: medians, and whether what was computed is what PyTorch computed."""
    asked = [(contender, mode) for contender in contenders for mode in KINDS[contender.kind]]
    first = {(contender.kind, mode): contender.ask(case, mode) for contender, mode in asked}
    able = [(contender, mode) for contender, mode in asked if "error" not in first[contender.kind, mode]]
    taken: dict[tuple[str, str], list[float]] = {(contender.kind, mode): [] for contender, mode in able}
    for number in range(rounds + 1):
        for contender, mode in able:
            time.sleep(PAUSE)
            seconds = contender.ask(case, mode)["seconds"]
            if number:
                taken[contender.kind, mode].append(seconds)
            if sys.stderr.isatty():
                print(f"\r{case}, round {number} of {rounds}", end="\r", file=sys.stderr, flush=True)
    told = next((first[key]["found"] for key in (("torch", "eager"), OURS) if key in taken), None)
    rows = []
    for contender, mode in asked:
        key = contender.kind, mode
        runs, answer = taken.get(key, []), first[key]
        compared = None if CASES[case][3] or not runs else told
        if compared is not None and contender.kind not in HALF and not close(answer["found"], compared):
            raise SystemExit(f"{case}: {key} computes {answer['found']}, PyTorch {told}")
        rows.append({
            "case": case, "kind": contender.kind, "mode": mode, "error": answer.get("error"),
            "apart": None if compared is None else apart(answer["found"], compared),
            "median_s": statistics.median(runs) if runs else None, "fastest_s": min(runs, default=None),
            "slowest_s": max(runs, default=None), "runs": runs,
        })  # fmt: skip
    return rows


def apart(found: Sequence[float], told: Sequence[float]) -> float:
    """The greatest distance of two sets of numbers, as a part of the largest of the second."""
    return max(abs(one - other) for one, other in zip(found, told, strict=True)) / max(map(abs, told))


def close(found: Sequence[float], told: Sequence[float]) -> bool:
    """Whether numbers agree to some digits; NaN does not."""
    return len(found) == len(told) and all(
        abs(one - other) <= AGREE * (1 + abs(other)) for one, other in zip(found, told, strict=True)
    )


def loading_table(rows: Sequence[dict[str, Any]]) -> str:
    """Loading as a Markdown table."""
    lines = [
        "| loads | from | seconds (fastest to slowest) | peak memory x weights | x faster | bounds |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        source = {"pt": "PyTorch safetensors", "tf": "tf_model.h5"}[row["source"]]
        spread = f"{row['median_s']:.2f} ({row['fastest_s']:.2f} to {row['slowest_s']:.2f})"
        faster = "" if row["faster"] is None else f"{row['faster']:.1f}"
        bounds = (
            ""
            if row["holds"] is None
            else f"{FASTER:g} x, {TIMES_THE_WEIGHTS:g} x {'hold' if row['holds'] else 'MISSED'}"
        )
        lines.append(
            f"| {NAMES[row['kind']]} | {source} | {spread} | {row['times_the_weights']:.2f} | {faster} | {bounds} |"
        )
    return "\n".join(lines)


def cases_table(rows: Sequence[dict[str, Any]]) -> str:
    """Passes as a Markdown table: a column per case, times ours in brackets."""
    cases = list(dict.fromkeys(row["case"] for row in rows))
    found = {(row["case"], row["kind"], row["mode"]): row for row in rows}
    lines = [f"| milliseconds (times ours under tf.function) | {' | '.join(cases)} |", f"|---|{'---|' * len(cases)}"]
    for kind, mode in dict.fromkeys((row["kind"], row["mode"]) for row in rows):
        cells = []
        for case in cases:
            median, ours = found[case, kind, mode]["median_s"], found.get((case, *OURS), {}).get("median_s")
            ratio = "" if median is None or not ours else f" ({median / ours:.2f})"
            cells.append("does not run" if median is None else f"{median * 1e3:,.0f}{ratio}")
        lines.append(f"| {NAMES[kind]}, {mode} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Makes the checkpoints if need be, times loading and passes, prints tables and writes the JSON file."""
    parser = argparse.ArgumentParser(description="Times loading, forward passes and a training step of the model.")
    parser.add_argument("--size", choices=SIZES, default=SIZES[0])
    parser.add_argument("--contenders", nargs="*", choices=KINDS, default=[kind for kind in KINDS if kind not in HALF])
    parser.add_argument("--cases", nargs="*", choices=CASES, default=list(CASES), metavar="CASE", help="; ".join(CASES))
    parser.add_argument("--runs", type=int, default=9, help="timed rounds of every case")
    parser.add_argument("--loads", type=int, default=5, help="timed rounds of loading; 0: none")
    parser.add_argument("--folder", type=Path, default=ROOT / "benchmarks" / "data", help="where the checkpoints go")
    parser.add_argument("--keep", action="store_true", help="do not remove the checkpoints afterwards")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results", help="where the JSON goes")
    options = parser.parse_args()
    folder = options.folder.absolute() / f"models-{options.size}"
    try:
        report = run(options.size, folder, available(options.contenders), options.cases, options.runs, options.loads)
    finally:
        if not options.keep:
            remove(folder)
            remove(folder.with_name("models-tiny"))
    also = "-bfloat16" if HALF & set(options.contenders) else ""
    path = options.results / f"models-{options.size}{also}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(f"\nwritten to {path}", flush=True)


def run(size: str, folder: Path, kinds: Sequence[str], cases: Sequence[str], rounds: int, loads: int) -> dict[str, Any]:
    """Times one size, prints the tables and gives the report."""
    counts = prepare_pair(size, folder)
    prepare_pair("tiny", folder.with_name("models-tiny"))
    print(f"{size}: {counts['tensors']:,} tensors, {counts['bytes'] / 1e6:,.1f} MB\n", flush=True)
    loading = time_loading(folder, kinds, loads, counts["bytes"]) if loads else []
    if loading:
        print(f"{loading_table(loading)}\n", flush=True)
    passes = time_cases(folder, kinds, cases, rounds) if cases else []
    if passes:
        print(cases_table(passes), flush=True)
    for row in passes:
        if row["error"]:
            print(f"\n{NAMES[row['kind']]}, {row['mode']}, {row['case']}: {row['error']}")
    return {"size": size, **counts, "machine": machine(), "loading": loading, "passes": passes}


if __name__ == "__main__":
    main()

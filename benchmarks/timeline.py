"""Times the stages of one checked conversion: `python -m benchmarks.timeline SRC OUT`.

The stages follow from the progress that the conversion reports. Beside each is what the limit of this machine
(`benchmarks/limit.py`) would need for it, in seconds of one core.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RUNS = 5
# What happens in each stage, as `limit.py` calls its steps.
STAGES: dict[str, tuple[str, ...]] = {
    "start, imports": (),
    "headers, plan": (),
    "move": ("read the source", "transpose", "write", "sum the source"),
    "open the output": (),
    "check": ("read the output again", "sum the output", "transpose back", "compare", "hash the tensors"),
    "manifest, rename": (),
}


def main() -> None:
    """Converts once, and prints the moments at which stages end, in wall and CPU seconds."""
    began = float(os.environ.get("BEGAN", time.time()))
    moments: list[tuple[float, float]] = []

    def mark() -> None:
        moments.append((time.time() - began, time.process_time()))

    from converter import pt2tf

    mark()
    ends: dict[str, list[tuple[float, float]]] = {}

    def progress(stage: str, *_: int) -> None:
        now = (time.time() - began, time.process_time())
        ends.setdefault(stage, [now, now])[1] = now

    pt2tf(Path(sys.argv[1]), Path(sys.argv[2]), progress=progress)
    moments += [*ends["convert"], *ends["check"]]
    mark()
    print(json.dumps(moments))


def stages(source: Path, out: Path, environment: Mapping[str, str], remove: Any, runs: int = RUNS) -> list[Any]:
    """Runs the conversion some times; gives the median seconds of every stage.

    Args:
        source: folder of a PyTorch checkpoint.
        out: folder to make and to remove.
        environment: of the child.
        remove: removes a folder if it is there.
        runs: how many times.
    """
    taken: list[list[tuple[float, float]]] = []
    for _ in range(runs):
        remove(out)
        os.sync()
        child = {**environment, "BEGAN": str(time.time())}
        command = [sys.executable, "-m", "benchmarks.timeline", str(source), str(out)]
        answer = subprocess.run(command, check=True, capture_output=True, text=True, env=child, cwd=ROOT)
        moments = json.loads(answer.stdout)
        before = [[0.0, 0.0], *moments]
        taken.append([(end[0] - begin[0], end[1] - begin[1]) for begin, end in zip(before, moments, strict=False)])
        remove(out)
    return [
        {
            "stage": stage,
            "seconds": statistics.median(run[number][0] for run in taken),
            "cpu_s": statistics.median(run[number][1] for run in taken),
        }
        for number, stage in enumerate(STAGES)
    ]


def lines(found: Sequence[Mapping[str, Any]], limit: Mapping[str, Any]) -> str:
    """Lays the stages out as a Markdown table, each beside its limit."""
    steps = {step["step"]: step["cpu_s"] for step in limit["steps"]}
    table = ["| stage of a checked pt2tf | s | CPU s | limit, CPU s |", "|---|---|---|---|"]
    for row in found:
        least = sum(steps[step] for step in STAGES[row["stage"]])
        least = limit["rates"]["start"] if row["stage"] == "start, imports" else least
        table.append(f"| {row['stage']} | {row['seconds']:.2f} | {row['cpu_s']:.2f} | {least:.2f} |")
    return "\n".join(table)


if __name__ == "__main__":
    main()

"""Times exported files in their own runtimes, side by side: `python benchmarks/exports.py --help`.

Every format and precision of one model is written once, with its seconds and peak memory. Then a separate process holds
the file. Each round asks every one of them for every case once, so that what else the machine does falls on all alike.
One thread and two; images and texts one and eight at a time. The SavedModel is what `tf.function` runs. Whether the
files are right is `convert export`'s affair; this looks at none of their answers.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.convert import machine, remove  # noqa: E402
from benchmarks.models import PAUSE  # noqa: E402
from benchmarks.verify import prepare_pair  # noqa: E402
from converter.exporting import running  # noqa: E402
from converter.exporting.options import ExportOptions, Precision  # noqa: E402
from converter.exporting.running import Runtime  # noqa: E402
from converter.exporting.targets import TARGETS, Target  # noqa: E402
from converter.parity.runners.isolation import Worker  # noqa: E402

SECONDS = 1200.0
TOKENS = 32
# Signature and how many at a time.
CASES: dict[str, tuple[str, int]] = {
    "1 image": ("encode_image", 1),
    "1 text": ("encode_text", 1),
    "8 images": ("encode_image", 8),
    "8 texts": ("encode_text", 8),
}
OURS = ("savedmodel", "float32")
Array = np.ndarray[Any, Any]


@dataclass
class Exported:
    """One format in one precision: what writing took, and what each case took in every round, in milliseconds."""

    target: Target
    precision: Precision
    seconds: float
    peak_mb: float
    size_mb: float
    runs: dict[tuple[int, str], list[float]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """A JSON object: medians, extremes and every round."""
        rows = [
            {"threads": threads, "case": case, "median_ms": statistics.median(runs), "fastest_ms": min(runs),
             "slowest_ms": max(runs), "runs": runs}
            for (threads, case), runs in self.runs.items()
        ]  # fmt: skip
        return {"format": self.target.name, "precision": self.precision, "seconds": self.seconds,
                "peak_mb": self.peak_mb, "size_mb": self.size_mb, "passes": rows}  # fmt: skip


def write_all(source: Path, folder: Path, targets: Sequence[Target]) -> Iterator[Exported]:
    """Writes every format in every precision, each in a new process, so that the peak memory is its own."""
    for target in targets:
        for precision in target.precisions:
            place = folder / f"{target.name}-{precision}"
            place.mkdir(parents=True)
            started = time.perf_counter()
            with Worker("export", "converter.exporting.writing", running.ENVIRONMENT) as worker:
                worker.ask({"load": str(source)}, SECONDS)
                request = {"write": target.name, "folder": str(place), "precision": precision, "normalisation": None}
                options = asdict(ExportOptions(precision))
                answer = worker.ask({**request, "options": options}, SECONDS)
            size = sum(file.stat().st_size for file in place.rglob("*") if file.is_file())
            seconds, peak = time.perf_counter() - started, float(answer["peak_memory"]) / 1e6
            print(
                f"{target.label}, {precision}: {seconds:.0f} s, peak {peak:,.0f} MB, {size / 1e6:,.0f} MB", flush=True
            )
            yield Exported(target, precision, seconds, peak, size / 1e6)


def make_inputs(config: Mapping[str, Any], case: str, wanted: Mapping[str, str]) -> dict[str, Array]:
    """Noise and ids, without padding, in the dtypes that a file takes."""
    noise, (signature, count) = np.random.default_rng(5), CASES[case]
    if signature == "encode_image":
        size = config["vision_config"]["image_size"]
        return {"pixel_values": noise.standard_normal((count, 3, size, size), np.float32)}
    ids = noise.integers(5, config["text_config"]["vocab_size"], (count, TOKENS))
    made = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    return {name: made[name].astype(dtype) for name, dtype in wanted.items()}


def time_all(found: Sequence[Exported], folder: Path, config: Mapping[str, Any], threads: int, rounds: int) -> None:
    """Runs every case in every file, in turn; one run of each before the rounds warms up."""
    with ExitStack() as stack:
        opened = []
        for one in found:
            place = folder / f"{one.target.name}-{one.precision}"
            opened.append(
                (one, stack.enter_context(Runtime(one.target, place, one.precision, SECONDS, threads, exact=False)))
            )
        for number in range(rounds + 1):
            for case, (signature, _) in CASES.items():
                for one, runtime in opened:
                    wanted = {given.name: given.dtype for given in runtime.signatures[signature].inputs}
                    time.sleep(PAUSE)
                    spent = runtime.milliseconds(signature, make_inputs(config, case, wanted), 1)
                    if number:
                        one.runs.setdefault((threads, case), []).append(spent)


def tables(report: Mapping[str, Any]) -> str:
    """A JSON file's content as Markdown: the cost of writing, and medians in milliseconds for each number of threads.

    In brackets: how many times a median fits into that of our float32.
    """
    found = report["exports"]
    medians = {
        (one["format"], one["precision"], run["threads"], run["case"]): run["median_ms"]
        for one in found
        for run in one["passes"]
    }
    lines = ["| file | seconds | peak memory, MB | size, MB |", "|---|---|---|---|"]
    lines += [
        f"| {_label(one)} | {one['seconds']:.0f} | {one['peak_mb']:,.0f} | {one['size_mb']:,.0f} |" for one in found
    ]
    for threads in sorted({threads for *_, threads, _ in medians}):
        lines += ["", f"| {threads} thread{'s' * (threads > 1)}, ms | {' | '.join(CASES)} |"]
        lines.append(f"|---|{'---|' * len(CASES)}")
        for one in found:
            cells = []
            for case in CASES:
                median = medians[one["format"], one["precision"], threads, case]
                base = medians.get((*OURS, threads, case))
                compared = base is not None and (one["format"], one["precision"]) != OURS
                cells.append(f"{median:.0f}" + (f" ({base / median:.1f})" if compared else ""))
            lines.append(f"| {_label(one)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _label(one: Mapping[str, Any]) -> str:
    return f"{TARGETS[one['format']].label}, {one['precision']}"


def main() -> None:
    """Makes the checkpoint if need be, writes and times every file, prints tables and writes the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=("clip-italian", "tiny"), default="clip-italian")
    parser.add_argument("--to", nargs="*", choices=TARGETS, default=list(TARGETS))
    parser.add_argument("--threads", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--folder", type=Path, default=ROOT / "benchmarks" / "data", help="where the files go")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results", help="where the JSON goes")
    asked = parser.parse_args()
    folder = asked.folder.absolute() / f"exports-{asked.size}"
    remove(folder)
    try:
        counts = prepare_pair(asked.size, folder)
        config = json.loads((folder / "tf" / "config.json").read_text("utf-8"))
        found = list(write_all(folder / "tf", folder / "files", [TARGETS[name] for name in asked.to]))
        for threads in asked.threads:
            time_all(found, folder / "files", config, threads, asked.rounds)
    finally:
        remove(folder)
    report = {"size": asked.size, **counts, "tokens": TOKENS, "machine": machine(),
              "exports": [one.to_json() for one in found]}  # fmt: skip
    print(f"\n{tables(report)}", flush=True)
    path = asked.results / f"exports-{asked.size}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    print(f"\nwritten to {path}", flush=True)


if __name__ == "__main__":
    main()

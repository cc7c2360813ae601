"""Compares PyTorch on a GPU with our towers on the JAX backend on the same GPU, all pairs of towers, tap by tap.

    python benchmarks/gpu_parity.py --json parity.json
    python benchmarks/gpu_parity.py --device cpu --pairs clip_vision_model+bert --no-large

Needs torch, transformers, keras and JAX, no TensorFlow. Each framework runs in a process of its own, in full float32:
TF32 is off in PyTorch, and JAX multiplies with precision "highest". Exit status 1 where a pair is not equal.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from converter.errors import ParityError  # noqa: E402
from converter.names.rule_files import supported  # noqa: E402
from converter.parity.compare import compare_runs  # noqa: E402
from converter.parity.comparison import ParityReport, Tolerance  # noqa: E402
from converter.parity.making import make_batches  # noqa: E402
from converter.parity.reports.terminal import to_text  # noqa: E402
from converter.parity.reports.words import described_run, figure  # noqa: E402
from converter.parity.runners.asking import run_together  # noqa: E402
from converter.parity.runners.candidate import start_candidate  # noqa: E402
from converter.parity.runners.isolation import Worker  # noqa: E402
from converter.parity.runners.options import CandidateOptions, ReferenceOptions  # noqa: E402
from converter.parity.runners.reference import start_reference  # noqa: E402

SECONDS = 300.0
COLUMNS = {
    "vision": "vision.last_hidden_state",
    "text": "text.last_hidden_state",
    "image embeds": "image_embeds",
    "text embeds": "text_embeds",
    "logits": "logits_per_image",
}


@dataclass(frozen=True)
class Outcome:
    """One pair: its report, or why there is none; seconds of the two runs, loading included."""

    pair: str
    report: ParityReport | None
    error: str | None
    seconds: dict[str, float]

    @property
    def passed(self) -> bool:
        """Whether the pair was compared and is equal."""
        return self.report is not None and self.report.passed

    def to_json(self) -> dict[str, Any]:
        """A JSON object with the worst batch of every tap."""
        found: dict[str, Any] = {"pair": self.pair, "passed": self.passed, "error": self.error, "seconds": self.seconds}
        if self.report is not None:
            whole = self.report.to_json()
            found |= {name: whole[name] for name in ("verdict", "compared", "left_out", "problems", "first_failure")}
            found["taps"] = {tap.name: tap.to_json() for tap in self.report.worst}
        return found


def supported_pairs() -> tuple[str, ...]:
    """Every pair of tower types."""
    return tuple(f"{one}+{other}" for one in supported("vision") for other in supported("text"))


def make_models(
    folder: Path, pairs: Sequence[str], large: bool, seed: int, real: bool = False
) -> list[tuple[str, Path]]:
    """Writes the models with random weights; what they are called and where they lie."""
    command = [
        sys.executable,
        str(ROOT / "benchmarks" / "pairs.py"),
        str(folder),
        "--seed",
        str(seed),
        "--pairs",
        *pairs,
    ]
    environment = {**os.environ, "USE_TF": "0", "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    command += [*(["--large"] if large else []), *(["--real"] if real else [])]
    found = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    rows = [json.loads(line) for line in found.stdout.splitlines()]
    return [(row["pair"], Path(row["folder"])) for row in rows]


def run_pair(
    pair: str, source: Path, workers: dict[str, tuple[Worker, dict[str, Any]]], seed: int, tolerance: Tolerance
) -> Outcome:
    """Runs both sides at the same time on the same inputs and compares them."""
    config = json.loads((source / "config.json").read_text())
    sides = {side: (worker, source, options) for side, (worker, options) in workers.items()}
    try:
        reference, candidate = run_together(sides, make_batches(config, seed), SECONDS)
    except ParityError as error:
        return Outcome(pair, None, str(error), {})
    runs = {"reference": reference, "candidate": candidate}
    seconds = {side: float(run.metadata["seconds"]) for side, run in runs.items()}
    return Outcome(pair, compare_runs(candidate, reference, tolerance, config), None, seconds)


def print_row(outcome: Outcome) -> None:
    """One line of the table."""
    worst = {} if outcome.report is None else {tap.name: tap for tap in outcome.report.worst}
    cells = [figure(worst[name].greatest_absolute) if name in worst else "-" for name in COLUMNS.values()]
    verdict = "equal" if outcome.passed else "FAILED"
    print(f"{outcome.pair:<38} {'  '.join(f'{cell:>12}' for cell in cells)}  {verdict}", flush=True)
    if outcome.error:
        print(outcome.error, flush=True)
    elif outcome.report is not None and not outcome.passed:
        print(to_text(outcome.report), flush=True)


def parse() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:<number>")
    parser.add_argument("--backend", default="jax", choices=("jax", "tensorflow"))
    parser.add_argument(
        "--pairs", nargs="*", help="such as clip_vision_model+bert; default: every pair that is supported"
    )
    parser.add_argument(
        "--no-large", dest="large", action="store_false", help="leave out the pair of clip-italian's size"
    )
    parser.add_argument("--float64", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--atol", type=float, default=3e-5)
    parser.add_argument("--rtol", type=float, default=0.0)
    parser.add_argument("--json", type=Path, help="where to write all figures")
    parser.add_argument("--reference-device", help="another device for PyTorch alone")
    return parser.parse_args()


def main() -> int:
    """Runs every pair and returns the exit status."""
    asked = parse()
    start = time.perf_counter()
    tolerance = Tolerance(asked.atol, asked.rtol)
    dtype = "float64" if asked.float64 else "float32"
    # eager returns attention maps; sdpa alone is exact in float64
    attention = "sdpa" if asked.float64 else "eager"
    maps = not asked.float64
    device = asked.reference_device or asked.device
    reference = ReferenceOptions(device, dtype, attention, attentions=maps, loss=True)
    candidate = CandidateOptions(asked.backend, asked.device, dtype, attentions=maps, loss=True)
    pairs = supported_pairs() if asked.pairs is None else asked.pairs
    outcomes = []
    with (
        tempfile.TemporaryDirectory() as folder,
        start_reference() as torch_worker,
        start_candidate(candidate) as keras_worker,
    ):
        workers = {"reference": (torch_worker, asdict(reference)), "candidate": (keras_worker, asdict(candidate))}
        print(f"{'greatest absolute difference':<38} {'  '.join(f'{name:>12}' for name in COLUMNS)}")
        for pair, source in make_models(Path(folder), pairs, asked.large, asked.seed):
            outcomes.append(run_pair(pair, source, workers, asked.seed, tolerance))
            print_row(outcomes[-1])
    return finish(outcomes, tolerance, asked.json, time.perf_counter() - start)


def finish(outcomes: Sequence[Outcome], tolerance: Tolerance, out: Path | None, seconds: float) -> int:
    """Prints what ran where, writes the JSON file and returns the exit status."""
    report = next((outcome.report for outcome in outcomes if outcome.report is not None), None)
    runs = {} if report is None else {"reference": dict(report.reference), "candidate": dict(report.candidate)}
    for side, metadata in runs.items():
        print(f"{side}  {described_run(metadata)}")
    passed = sum(outcome.passed for outcome in outcomes)
    print(f"{passed} of {len(outcomes)} pairs equal within {tolerance}, {seconds:.0f} s")
    if out is not None:
        found = {
            "tolerance": asdict(tolerance), "seconds": seconds, "runs": runs, "passed": passed, "pairs": len(outcomes),
            "outcomes": [outcome.to_json() for outcome in outcomes],
        }  # fmt: skip
        out.write_text(json.dumps(found, indent=1, allow_nan=False) + "\n", "utf-8")
    return 0 if outcomes and passed == len(outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())

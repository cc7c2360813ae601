"""Compares PyTorch on a GPU with our towers on the JAX backend on the same GPU, layer by layer.

    python benchmarks/gpu_parity.py --json parity.json --budget 150 --jobs 6
    python benchmarks/gpu_parity.py --device cpu --pairs clip_vision_model+bert siglip2 --no-large

By default every tower runs once, in a tiny pair, and every other family, and a pair of clip-italian's size; `--all`
takes every pair. Needs torch, transformers, keras and JAX, no TensorFlow. Each framework runs in a separate process, in
full
float32: TF32 is off in PyTorch, and JAX multiplies with precision "highest". The JSON file is written after every pair.
Exit status 1 where a pair is not equal, 3 where the budget ended before the last.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from converter.errors import ParityError  # noqa: E402
from converter.names.families import families, joined  # noqa: E402
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
        """A JSON object with the greatest difference in every layer's output, and more of each where the pair is not equal."""
        found: dict[str, Any] = {"pair": self.pair, "passed": self.passed, "error": self.error, "seconds": self.seconds}
        if self.report is not None:
            whole = self.report.to_json()
            found |= {name: whole[name] for name in ("verdict", "compared", "left_out", "problems", "first_failure")}
            found["taps"] = {
                tap.name: tap.greatest_absolute if self.passed else tap.to_json() for tap in self.report.worst
            }
        return found


def supported_pairs() -> tuple[str, ...]:
    """Every pair of tower types."""
    return tuple(f"{one}+{other}" for one in supported("vision") for other in supported("text"))


def covering_pairs() -> tuple[str, ...]:
    """Pairs that contain every tower at least once."""
    vision, text = supported("vision"), supported("text")
    longest = max(len(vision), len(text))
    return tuple(f"{vision[i % len(vision)]}+{text[i % len(text)]}" for i in range(longest))


def make_models(
    folder: Path, pairs: Sequence[str], large: bool, seed: int, real: bool = False
) -> list[tuple[str, Path]]:
    """Writes the models with random weights; returns their names and places."""
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
    """The requested parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:<number>")
    parser.add_argument("--backend", default="jax", choices=("jax", "tensorflow"))
    parser.add_argument(
        "--pairs", nargs="*", help="such as clip_vision_model+bert or siglip2; default: every tower and family once"
    )
    parser.add_argument("--all", action="store_true", help="every pair, and every other family")
    parser.add_argument(
        "--no-large", dest="large", action="store_false", help="leave out the pair of clip-italian's size"
    )
    parser.add_argument("--float64", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--atol", type=float, default=3e-5)
    parser.add_argument("--rtol", type=float, default=0.0)
    parser.add_argument("--json", type=Path, help="where to write all figures")
    parser.add_argument("--reference-device", help="another device for PyTorch alone")
    parser.add_argument("--budget", type=float, default=float("inf"), help="seconds after which no pair is begun")
    parser.add_argument("--jobs", type=int, default=1, help="pairs that run side by side")
    return parser.parse_args()


def asked_pairs(asked: argparse.Namespace) -> tuple[str, ...]:
    """The pairs to run, the other families among the first: a budget may end before the last."""
    if asked.pairs is not None:
        return tuple(asked.pairs)
    others = tuple(name for name in families() if name != joined().model_type)
    return (*others, *(supported_pairs() if asked.all else covering_pairs()))


def run_in_turn(
    asked: argparse.Namespace, waiting: queue.Queue[tuple[str, Path]], done: queue.Queue[Outcome | None], end: float
) -> None:
    """Two processes that run one pair after the other, until none is left or the time is up."""
    # eager returns attention maps; sdpa alone is exact in float64
    attention, dtype = ("sdpa", "float64") if asked.float64 else ("eager", "float32")
    maps = not asked.float64
    reference = ReferenceOptions(asked.reference_device or asked.device, dtype, attention, attentions=maps, loss=True)
    candidate = CandidateOptions(asked.backend, asked.device, dtype, attentions=maps, loss=True)
    try:
        with start_reference() as torch_worker, start_candidate(candidate) as keras_worker:
            workers = {"reference": (torch_worker, asdict(reference)), "candidate": (keras_worker, asdict(candidate))}
            while time.perf_counter() < end:
                pair, source = waiting.get_nowait()
                done.put(run_pair(pair, source, workers, asked.seed, Tolerance(asked.atol, asked.rtol)))
    except queue.Empty:
        pass
    finally:
        done.put(None)


def main() -> int:
    """Runs every pair and returns the exit status."""
    asked = parse()
    start = time.perf_counter()
    tolerance = Tolerance(asked.atol, asked.rtol)
    pairs = asked_pairs(asked)
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        print(f"{'greatest absolute difference':<38} {'  '.join(f'{name:>12}' for name in COLUMNS)}")
        waiting: queue.Queue[tuple[str, Path]] = queue.Queue()
        done: queue.Queue[Outcome | None] = queue.Queue()
        made = make_models(Path(folder), pairs, asked.large, asked.seed)
        for model in (*made[len(pairs) :], *made[: len(pairs)]):  # the large one first: it takes longest
            waiting.put(model)
        threads = [
            threading.Thread(target=run_in_turn, args=(asked, waiting, done, start + asked.budget))
            for _ in range(min(asked.jobs, len(made)))
        ]
        for thread in threads:
            thread.start()
            stack.callback(thread.join)
        left = len(threads)
        while left:
            outcome = done.get()
            if outcome is None:
                left -= 1
                continue
            outcomes.append(outcome)
            print_row(outcome)
            write(outcomes, len(made), tolerance, asked.json, time.perf_counter() - start)
    return finish(outcomes, len(made), tolerance, time.perf_counter() - start)


def runs_of(outcomes: Sequence[Outcome]) -> dict[str, dict[str, Any]]:
    """What ran where, from the first pair that was compared, without its folder's name and its own seconds."""
    report = next((outcome.report for outcome in outcomes if outcome.report is not None), None)
    runs = {} if report is None else {"reference": dict(report.reference), "candidate": dict(report.candidate)}
    own = ("source", "config_sha256", "seconds", "peak_memory", "left_out", "inner")
    return {side: {name: told for name, told in found.items() if name not in own} for side, found in runs.items()}


def write(outcomes: Sequence[Outcome], wanted: int, tolerance: Tolerance, out: Path | None, seconds: float) -> None:
    """Writes what is known so far, if a file was named."""
    if out is None:
        return
    found = {
        "tolerance": asdict(tolerance), "seconds": seconds, "runs": runs_of(outcomes), "wanted": wanted,
        "passed": sum(outcome.passed for outcome in outcomes), "pairs": len(outcomes),
        "outcomes": [outcome.to_json() for outcome in outcomes],
    }  # fmt: skip
    fresh = out.with_name(out.name + ".part")
    fresh.write_text(json.dumps(found, indent=1, allow_nan=False) + "\n", "utf-8")
    fresh.replace(out)


def finish(outcomes: Sequence[Outcome], wanted: int, tolerance: Tolerance, seconds: float) -> int:
    """Prints what ran where and returns the exit status."""
    for side, metadata in runs_of(outcomes).items():
        print(f"{side}  {described_run(metadata)}")
    passed = sum(outcome.passed for outcome in outcomes)
    unseen = f", {wanted - len(outcomes)} not begun in time" if len(outcomes) < wanted else ""
    print(f"{passed} of {len(outcomes)} pairs equal within {tolerance}{unseen}, {seconds:.0f} s")
    if passed < len(outcomes) or not outcomes:
        return 1
    return 3 if unseen else 0


if __name__ == "__main__":
    sys.exit(main())

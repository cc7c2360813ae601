"""Every fault is found by the check that has to find it, alone, and where it lies; and nothing is found where there is none.

The manifest is true in every case, so files never tell. README.md here has the table of what does.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from converter.folder.manifest import read_manifest
from converter.parity.comparison import ParityReport
from converter.parity.files_and_weights import verify_files, verify_weights
from tests.controls.faults import SIDES, Fault, faults_of, pair_config, write_faulty, write_pair
from tests.controls.make_table import PAIRS
from tests.torture import FULL, rounds
from tests.towers import TEXT, VISION

pytestmark = [pytest.mark.torch, pytest.mark.tf, pytest.mark.slow]

# One text tower, and the vision tower that is most unlike it, in whichever pairs they stand.
SAMPLE = [(*pair, "text") for pair in PAIRS if pair[1] == "bert"][:1]
SAMPLE += [(*pair, "vision") for pair in PAIRS if pair[0] == "swin"][:1]
CASES = [
    (vision, text, side, fault.title)
    for vision, text in PAIRS
    for side in SIDES
    for fault in faults_of(pair_config(vision, text), side)
    if FULL or (vision, text, side) in SAMPLE
]


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], tuple[Path, Mapping[str, Any]]]:
    """A pair's folder and config, written when first asked for."""
    kept: dict[tuple[str, str], tuple[Path, Mapping[str, Any]]] = {}

    def make(vision: str, text: str) -> tuple[Path, Mapping[str, Any]]:
        if (vision, text) not in kept:
            config = pair_config(vision, text)
            kept[vision, text] = write_pair(tmp_path_factory.mktemp("pairs"), config), config
        return kept[vision, text]

    return make


def named(faults: list[Fault], title: str) -> Fault:
    return next(fault for fault in faults if fault.title == title)


def test_every_tower_is_in_the_matrix() -> None:
    assert {vision for vision, _ in PAIRS} == set(VISION)
    assert {text for _, text in PAIRS} == set(TEXT)
    assert len(SAMPLE) == 2


@pytest.mark.parametrize(("vision", "text", "side", "title"), CASES)
def test_a_fault_is_found(vision, text, side, title, pairs, compared, tmp_path) -> None:
    pair, config = pairs(vision, text)
    fault = named(faults_of(config, side), title)
    out = write_faulty(tmp_path, pair, config, side, fault)
    manifest = read_manifest(out)
    assert verify_files(out, manifest).status == "passed"
    weights = verify_weights(out, manifest, pair / "pt")
    gone = verify_weights(out, manifest, None)  # what a truthful manifest cannot tell: which source was meant
    assert gone.status == "passed"
    if fault.weights is None:
        assert (weights.status, weights.problems) == ("passed", ())
    else:
        assert weights.status == "failed"
        assert any(problem.startswith(fault.tensor) for problem in weights.problems), weights.problems
    report: ParityReport = compared(out, pair / "pt")
    first = report.first_failure
    if first is None:
        worst = max(tap.greatest_absolute or 0.0 for tap in report.comparisons)
        pytest.fail(f"the outputs do not tell: at most {worst:.1e} off")
    assert (first.where + ",").startswith(fault.place + ","), f"{first.where}, {first.greatest_absolute}"
    assert first.where.endswith(fault.inside)
    assert not report.passed


@pytest.mark.parametrize("seed", range(rounds(sample=4, full=50)))
def test_a_true_conversion_passes(seed, pairs, compared, tmp_path) -> None:
    vision, text = PAIRS[seed % len(PAIRS)]
    pair = write_pair(tmp_path, pair_config(vision, text), seed=100 + seed)
    manifest = read_manifest(pair / "tf")
    assert verify_files(pair / "tf", manifest).status == "passed"
    assert verify_weights(pair / "tf", manifest, pair / "pt").status == "passed"
    report = compared(pair / "tf", pair / "pt", seed)
    assert report.passed, report.verdict


END_TO_END = [fault.title for fault in faults_of(pair_config("clip_vision_model", "bert"), "text")]
if not FULL:
    END_TO_END = ["query and key swapped", "hidden_act changed"]


@pytest.mark.parametrize("title", END_TO_END)
def test_the_command_says_so(title, pairs, tmp_path) -> None:
    pair, config = pairs("clip_vision_model", "bert")
    fault = named(faults_of(config, "text"), title)
    out = write_faulty(tmp_path, pair, config, "text", fault)
    run = subprocess.run(
        [sys.executable, "-m", "converter", "verify", str(out), "--no-record"],
        capture_output=True, text=True, check=False, env=os.environ, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert (run.returncode, run.stderr) == (1, "")
    lines = {line.split()[0]: line for line in run.stdout.splitlines() if line.strip()}
    assert lines["files"].startswith("files    passed ")
    assert lines["weights"].startswith(f"weights  {'passed' if fault.weights is None else 'failed'} ")
    assert lines["outputs"].startswith("outputs  failed ")
    assert f"different: begins at {fault.place}" in run.stdout
    assert run.stdout.endswith("NOT shown to be its source\n")

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
from converter.names.families import JOINED, families
from converter.parity.comparison import ParityReport
from converter.parity.files_and_weights import verify_files, verify_weights
from tests.controls.faults import SIDES, Fault, faults_of, model_config, write_faulty, write_pair
from tests.controls.make_table import MODELS
from tests.torture import FULL, rounds
from tests.towers import TEXT, VISION

pytestmark = [pytest.mark.torch, pytest.mark.tf, pytest.mark.slow]

# One text tower, the vision tower that is most unlike it, in whichever pairs they stand, and a side of every other family.
SAMPLE = [(model, "text") for model in MODELS if model[-1] == "bert"][:1]
SAMPLE += [(model, "vision") for model in MODELS if model[0] == "swin"][:1]
SAMPLE += [(model, SIDES[number % 2]) for number, model in enumerate(MODELS) if len(model) == 1]
CASES = [
    pytest.param(model, side, fault.title, id="-".join((*model, side, fault.title)))
    for model in MODELS
    for side in SIDES
    for fault in faults_of(model_config(*model), side)
    if FULL or (model, side) in SAMPLE
]


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[Path, Mapping[str, Any]]]:
    """A model's folder and config, written at first use."""
    kept: dict[tuple[str, ...], tuple[Path, Mapping[str, Any]]] = {}

    def make(*model: str) -> tuple[Path, Mapping[str, Any]]:
        if model not in kept:
            config = model_config(*model)
            kept[model] = write_pair(tmp_path_factory.mktemp("models"), config), config
        return kept[model]

    return make


def named(faults: list[Fault], title: str) -> Fault:
    return next(fault for fault in faults if fault.title == title)


def test_every_tower_is_in_the_matrix() -> None:
    pairs = [model for model in MODELS if len(model) == 2]
    assert {vision for vision, _ in pairs} == set(VISION)
    assert {text for _, text in pairs} == set(TEXT)
    assert {model[0] for model in MODELS if len(model) == 1} == set(families()) - {JOINED}
    assert len(SAMPLE) == 2 + len(families()) - 1


@pytest.mark.parametrize(("model", "side", "title"), CASES)
def test_a_fault_is_found(model, side, title, models, compared, tmp_path) -> None:
    pair, config = models(*model)
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
        assert fault.tensor
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
def test_a_true_conversion_passes(seed, compared, tmp_path) -> None:
    pair = write_pair(tmp_path, model_config(*MODELS[-1 - seed % len(MODELS)]), seed=100 + seed)
    manifest = read_manifest(pair / "tf")
    assert verify_files(pair / "tf", manifest).status == "passed"
    assert verify_weights(pair / "tf", manifest, pair / "pt").status == "passed"
    report = compared(pair / "tf", pair / "pt", seed)
    assert report.passed, report.verdict


END_TO_END = [fault.title for fault in faults_of(model_config("clip_vision_model", "bert"), "text")]
if not FULL:
    END_TO_END = ["query and key swapped", "hidden_act changed"]


@pytest.mark.parametrize("title", END_TO_END)
def test_the_command_says_so(title, models, tmp_path) -> None:
    pair, config = models("clip_vision_model", "bert")
    fault = named(faults_of(config, "text"), title)
    out = write_faulty(tmp_path, pair, config, "text", fault)
    run = subprocess.run(
        [sys.executable, "-m", "converter", "verify", str(out), "--no-record"],
        capture_output=True, text=True, check=False, env=os.environ, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert (run.returncode, run.stderr) == (1, "")
    lines = {line.split()[0]: line.strip() for line in run.stdout.splitlines() if line.strip()}
    assert lines["files"].startswith("files    passed ")
    assert lines["weights"].startswith(f"weights  {'passed' if fault.weights is None else 'failed'} ")
    assert lines["outputs"].startswith("outputs  failed ")
    assert f"over tolerance: first at {fault.place}" in run.stdout
    assert "does NOT match its source" in run.stdout.splitlines()[0]

"""One long-lived process per framework for all controls, and each pair's reference run once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from converter.folder.files import read_json
from converter.parity.compare import compare_runs
from converter.parity.comparison import ParityReport, Tolerance
from converter.parity.making import make_batches
from converter.parity.runners.asking import ask_run
from converter.parity.runners.candidate import start_candidate
from converter.parity.runners.golden import Recording
from converter.parity.runners.isolation import Worker
from converter.parity.runners.options import CandidateOptions, ReferenceOptions
from converter.parity.runners.reference import start_reference

SECONDS = 300.0
REFERENCE = ReferenceOptions("cpu", loss=True)
CANDIDATE = CandidateOptions("tensorflow", "cpu", loss=True)
# Of `verify`, so that what holds here holds there.
TOLERANCE = Tolerance(1e-4)


@pytest.fixture(scope="session")
def torch_worker() -> Iterator[Worker]:
    with start_reference() as worker:
        yield worker


@pytest.fixture(scope="session")
def keras_worker() -> Iterator[Worker]:
    with start_candidate(CANDIDATE) as worker:
        yield worker


@pytest.fixture(scope="session")
def recorded(torch_worker: Worker) -> Callable[[Path, int], Recording]:
    """Runs PyTorch on a pair, only once."""
    kept: dict[tuple[Path, int], Recording] = {}

    def record(source: Path, seed: int) -> Recording:
        if (source, seed) not in kept:
            batches = make_batches(read_json(source / "config.json"), seed)
            kept[source, seed] = ask_run(torch_worker, source, batches, asdict(REFERENCE), SECONDS)
        return kept[source, seed]

    return record


@pytest.fixture
def compared(keras_worker: Worker, recorded: Callable[[Path, int], Recording]) -> Callable[..., ParityReport]:
    """Compares the outputs of a checkpoint with those of its source."""

    def compare(out: Path, source: Path, seed: int = 0) -> ParityReport:
        theirs = recorded(source, seed)
        config = read_json(source / "config.json")
        ours = ask_run(keras_worker, out, make_batches(config, seed), asdict(CANDIDATE), SECONDS)
        return compare_runs(ours, theirs, TOLERANCE, config)

    return compare

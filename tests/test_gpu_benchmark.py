"""The GPU's benchmark: which pairs it runs, and that the table of docs/benchmarks.md is the one its figures make."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.gpu_parity import covering_pairs
from benchmarks.gpu_speed import table
from converter.names.rule_files import SIDES, supported

ROOT = Path(__file__).parents[1]
RESULTS = sorted((ROOT / "benchmarks" / "results").glob("gpu-*.json"))


def test_every_tower_runs_once() -> None:
    found = [pair.split("+") for pair in covering_pairs()]
    assert [set(towers) for towers in zip(*found, strict=True)] == [set(supported(side)) for side in SIDES]


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_the_page_shows_what_was_measured(path: Path) -> None:
    report = json.loads(path.read_text("utf-8"))
    batches = sorted({row["batch"] for row in report["speed"]["passes"]})
    page = " ".join((ROOT / "docs" / "benchmarks.md").read_text("utf-8").split())
    assert " ".join(table(report["speed"]["passes"], batches).split()) in page
    parity = report["parity"]
    assert f"{parity['passed']} of {parity['pairs']}" in page and parity["passed"] == parity["wanted"]
    for name in ("card", "torch", "transformers", "jax", "keras"):
        assert report["machine"][name] in page

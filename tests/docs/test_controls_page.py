"""tests/controls/README.md is what faults.py says, for every fault and tower."""

from __future__ import annotations

from tests.controls.faults import SIDES, faults_of, model_config
from tests.controls.make_table import MODELS, PAGE, page
from tests.towers import TEXT, VISION


def test_page_is_up_to_date() -> None:
    assert page() == PAGE.read_text("utf-8"), "say `python -m tests.controls.make_table`"


def test_every_fault_of_the_matrix_is_a_row() -> None:
    pairs = [model for model in MODELS if len(model) == 2]
    assert {vision for vision, _ in pairs} == set(VISION)
    assert {text for _, text in pairs} == set(TEXT)
    rows = [line.split(" | ")[:2] for line in PAGE.read_text("utf-8").splitlines() if line.startswith("| ")][1:]
    titles = {
        (fault.title, side) for model in MODELS for side in SIDES for fault in faults_of(model_config(*model), side)
    }
    assert len(rows) == len(titles) == 20
    assert {title for title, _ in titles} == {row[0].removeprefix("| ") for row in rows}

"""The report as text: whole outputs, and figures that can be relied on when typed back."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from converter.parity.compare import compare_runs
from converter.parity.comparison import ParityReport, Tolerance
from converter.parity.reports.terminal import to_text
from converter.parity.reports.words import described_run, figure_above, tower_line
from tests.parity.samples import changed, recording, taps

RUN = "PyTorch, float32, cpu, torch 2.0, attention eager and sdpa"


def broken() -> ParityReport:
    """Three taps of zeros and ones, one of which leaves tolerance in one place and is not finite in another."""
    reference = {"vision.embeddings": np.ones((4, 2)), "text.embeddings": np.ones((3, 5, 7))}
    reference |= {"text.layers.0": np.ones((3, 5, 7)), "logits_per_image": np.ones((4, 3))}
    candidate = changed(reference, "text.layers.0", (0, 0, 0), math.nan)
    candidate["text.layers.0"][1, 1, 2] = 1.5
    candidate["text.layers.0"][2, 0, 0] = math.inf  # masked
    candidate = changed(candidate, "logits_per_image", (3, 1), 1.00041)
    return compare_runs(recording(candidate), recording(reference), Tolerance(1e-3))


def test_a_report_shows_where_it_begins() -> None:
    assert to_text(broken()).splitlines() == [
        "over tolerance: first at text tower, layer 0 (batch 0, batch 0)",
        "vision tower  ▁  max abs diff 0.0e+00",
        "text   tower  ▁✗  first over tolerance at layer 0",
        "              one sign per layer: ▁ is 1e-9 or less, each step ten times more, ✗ is over tolerance",
        "",
        f"reference  {RUN}",
        f"candidate  {RUN}",
        "precision  reference: not recorded",
        "           candidate: not recorded",
        "tolerance  atol 0.001, rtol 0",
        "compared   132 values, 98 masked",
        "",
        "layer output              batch  max abs diff       at  max rel diff  over tolerance  atol needed  compared  masked",
        "vision tower, embeddings      0       0.0e+00    [0,0]       0.0e+00               0      0.0e+00         8       0",
        "text tower, embeddings        0       0.0e+00  [0,0,0]       0.0e+00               0      0.0e+00        56      49",
        "text tower, layer 0           0       5.0e-01  [1,1,2]       5.0e-01               2            -        56      49"
        "  1 not finite in the candidate",
        "logits per image              0       4.1e-04    [3,1]       4.1e-04               0      4.2e-04        12       0",
    ]


def test_every_tap_has_a_row_and_on_request_every_batch() -> None:
    report = compare_runs(recording(taps(), taps(1)), recording(taps(), taps(1)), Tolerance(0.0))
    assert to_text(report).count("\n") + 18 == to_text(report, every_batch=True).count("\n")
    assert to_text(report).splitlines()[0].startswith("within tolerance: ")


def test_problems_are_in_the_report() -> None:
    report = compare_runs(recording({}), recording(taps()), Tolerance(0.0))
    text = to_text(report)
    assert "problem: batch 0 (batch 0): the sides have different layer outputs; only in the candidate: none; " in text
    assert "vision tower  nothing compared" in text
    assert text.splitlines()[0].startswith("differs: batch 0 (batch 0): the sides have different layer outputs")


@pytest.mark.parametrize(
    ("off", "sign"),
    [
        (0.0, "▁"),
        (0.9e-9, "▁"),
        (2e-9, "▂"),
        (2e-8, "▃"),
        (2e-6, "▅"),
        (2e-4, "▇"),
        (2e-3, "█"),
        (5.0, "█"),
        (50.0, "✗"),
    ],
)
def test_a_sign_is_a_decade(off: float, sign: str) -> None:
    zeros = {"text.embeddings": np.zeros((3, 5, 2))}
    found = {"text.embeddings": np.full((3, 5, 2), off)}
    report = compare_runs(recording(found), recording(zeros), Tolerance(10.0))
    assert tower_line(report, "text")[0] == sign


@given(st.floats(1e-300, 1e300))
@example(9.96e-5)
@example(1.0)
@example(9.99999)
def test_a_printed_tolerance_passes_and_is_close(value: float) -> None:
    printed = float(figure_above(value))
    assert value <= printed <= value * 1.11


def test_figures_without_a_value_are_dashes() -> None:
    assert (figure_above(None), figure_above(0.0)) == ("-", "0.0e+00")


def test_metadata_from_a_file_is_safe_to_print() -> None:
    hostile = {"framework": "x\x1b[31m\n", "versions": "[1", "attention": "[]", "device": "d" * 1000}
    text = described_run(hostile)
    assert "\x1b" not in text
    assert "\n" not in text
    assert len(text) < 400

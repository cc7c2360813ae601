"""The comparison: what passes, what must not, and that the figures are those of the values."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from converter.errors import ParityError
from converter.parity.batches import Batch
from converter.parity.compare import compare_runs, compare_tap
from converter.parity.comparison import ParityReport, TapComparison, Tolerance
from converter.parity.runners.golden import Recording
from converter.parity.taps import INNER
from tests.parity.samples import IMAGES, MASK, SEQUENCE, SHAPES, TEXTS, WIDTH, changed, inputs, recording, taps

ALL = np.ones((TEXTS, SEQUENCE), bool)
EXACT = Tolerance(0.0)


def compared(candidate: dict[str, Any], reference: dict[str, Any], atol: float = 0.0) -> ParityReport:
    return compare_runs(recording(candidate), recording(reference), Tolerance(atol))


def tap(candidate: Any, reference: Any, atol: float = 0.0, rtol: float = 0.0) -> TapComparison:
    one, other = np.asarray(candidate), np.asarray(reference)
    return compare_tap("logits_per_image", 0, one, other, ALL, Tolerance(atol, rtol))


def test_equal_runs_pass_and_everything_is_counted() -> None:
    report = compared(taps(), taps())
    assert report.passed
    assert report.compared + report.left_out == sum(math.prod(shape) for shape in SHAPES.values())
    assert {found.name for found in report.comparisons} == set(SHAPES)
    assert (
        report.verdict == f"within tolerance: {report.compared:,} values, 18 layer outputs of 1 batches, atol 0, rtol 0"
    )
    assert report.first_failure is None


@pytest.mark.parametrize("name", SHAPES)
def test_one_value_off_fails_at_that_tap_and_index(name: str) -> None:
    index = (0,) * len(SHAPES[name])
    reference = taps()
    report = compared(changed(reference, name, index, reference[name][index] + 0.25), reference, atol=0.125)
    assert not report.passed
    (failure,) = report.failures
    assert (failure.name, failure.index_absolute, failure.index_relative, failure.exceeding) == (name, index, index, 1)
    assert failure.greatest_absolute == pytest.approx(0.25)
    assert report.first_failure is failure


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("sides", ["candidate", "reference", "both"])
def test_a_value_that_is_not_finite_fails_on_either_side(bad: float, sides: str) -> None:
    fine, broken = taps(), changed(taps(), "text.layers.0", (0, 1, 2), bad)
    candidate = fine if sides == "reference" else broken
    reference = fine if sides == "candidate" else broken
    report = compared(candidate, reference, atol=1e30)
    assert not report.passed
    (failure,) = report.failures
    assert (failure.name, failure.exceeding, failure.passing_atol) == ("text.layers.0", 1, None)
    assert failure.not_finite_candidate == (sides != "reference")
    assert failure.not_finite_reference == (sides != "candidate")


def test_an_infinite_reference_is_not_within_an_infinite_relative_tolerance() -> None:
    found = tap([1.0], [np.inf], rtol=1.0)
    assert not found.passed
    assert found.greatest_absolute is None


@pytest.mark.parametrize(
    ("candidate", "reference"),
    [((1,), ()), ((), (1,)), ((1, 3), (4, 3)), ((4, 1), (4, 3)), ((3,), (4, 3)), ((12,), (4, 3)), ((3, 4), (4, 3))],
)
def test_shapes_that_differ_fail_although_they_would_broadcast(
    candidate: tuple[int, ...], reference: tuple[int, ...]
) -> None:
    found = tap(np.zeros(candidate), np.zeros(reference), atol=1.0)
    assert not found.passed
    assert found.problem == f"shapes differ: candidate {candidate}, reference {reference}"
    assert found.compared == 0


@pytest.mark.parametrize(("candidate", "reference"), [("float64", "float32"), ("float32", "float64")])
def test_dtypes_that_differ_fail(candidate: str, reference: str) -> None:
    found = tap(np.zeros(2, candidate), np.zeros(2, reference), atol=1.0)
    assert (found.passed, found.problem) == (False, f"dtypes differ: candidate {candidate}, reference {reference}")


@pytest.mark.parametrize("dtype", ["float16", "int64", "bool", "complex64"])
def test_other_dtypes_are_not_compared(dtype: str) -> None:
    found = tap(np.zeros(2, dtype), np.zeros(2, dtype), atol=1.0)
    assert found.problem == f"dtype {dtype} is not supported, expected float32 or float64"
    assert not found.passed


def test_nothing_compared_fails() -> None:
    empty = tap(np.zeros((0, 3)), np.zeros((0, 3)), atol=1.0)
    assert (empty.passed, empty.problem) == (False, "nothing was compared")
    for runs in (recording(), recording({})):
        report = compare_runs(runs, runs, Tolerance(1.0))
        assert not report.passed
        assert report.verdict == "nothing was compared"


def test_a_fully_masked_tap_fails() -> None:
    values = np.zeros((TEXTS, SEQUENCE, WIDTH))
    found = compare_tap("text.layers.0", 0, values, values, np.zeros((TEXTS, SEQUENCE), bool), Tolerance(1.0))
    assert (found.passed, found.problem, found.left_out) == (False, "nothing was compared", values.size)


@pytest.mark.parametrize("side", ["candidate", "reference"])
def test_a_tap_of_one_side_only_fails_and_names_both_sides(side: str) -> None:
    fewer = {name: array for name, array in taps().items() if name != "text.layers.0"}
    candidate, reference = (taps(), fewer) if side == "candidate" else (fewer, taps())
    report = compared(candidate, reference, atol=1.0)
    only = {"candidate": "none", "reference": "none", side: "text.layers.0"}
    assert not report.passed
    assert report.problems == (
        "batch 0 (batch 0): the sides have different layer outputs; "
        f"only in the candidate: {only['candidate']}; only in the reference: {only['reference']}",
    )


def test_runs_of_different_batches_fail() -> None:
    report = compare_runs(recording(taps()), recording(taps(), taps(1)), Tolerance(9.0))
    assert not report.passed
    assert report.problems[0].startswith("the candidate ran 1 batches and the reference 2")


@pytest.mark.parametrize("name", ["pixel_values", "input_ids", "attention_mask"])
def test_runs_on_different_inputs_fail(name: str) -> None:
    array = inputs()[name].copy()
    array.flat[0] = 0 if array.flat[0] else 1
    other = Recording({}, (Batch("batch 0", inputs(**{name: array}), taps()),))
    report = compare_runs(other, recording(taps()), Tolerance(1.0))
    assert not report.passed
    (problem,) = report.problems
    assert problem == f"batch 0 (batch 0): the two sides ran on different {name}; run both on the same inputs"


def test_inputs_of_one_side_only_fail() -> None:
    other = Recording({}, (Batch("batch 0", inputs(position_ids=np.zeros((TEXTS, SEQUENCE), np.int64)), taps()),))
    assert "ran on different position_ids" in compare_runs(other, recording(taps()), Tolerance(1.0)).problems[0]


@pytest.mark.parametrize("name", ["text.embeddings", "text.layers.0", "text.last_hidden_state"])
@pytest.mark.parametrize("garbage", [1e9, np.nan])
def test_garbage_at_masked_positions_is_left_out_and_counted(name: str, garbage: float) -> None:
    candidate = taps()
    candidate[name] = np.where(MASK[:, :, None] == 0, np.float32(garbage), candidate[name])
    report = compared(candidate, taps())
    assert report.passed
    (found,) = (each for each in report.comparisons if each.name == name)
    assert found.compared == MASK.sum() * WIDTH
    assert found.left_out == (MASK == 0).sum() * WIDTH


@pytest.mark.parametrize("axis", ["query", "key"])
def test_attention_maps_are_left_out_at_masked_queries_and_keys(axis: str) -> None:
    masked = np.broadcast_to(
        (MASK == 0)[:, None, :, None] if axis == "query" else (MASK == 0)[:, None, None, :], SHAPES["text.attentions.0"]
    )
    candidate = taps()
    candidate["text.attentions.0"] = np.where(masked, np.float32(np.nan), candidate["text.attentions.0"])
    report = compared(candidate, taps())
    assert report.passed
    (found,) = (each for each in report.comparisons if each.name == "text.attentions.0")
    assert found.compared == 2 * (5 * 5 + 2 * 2 + 1)


@pytest.mark.parametrize("row", range(TEXTS))
@pytest.mark.parametrize("column", range(SEQUENCE))
def test_every_position_that_counts_is_compared(row: int, column: int) -> None:
    reference = taps()
    for name, index in {"text.layers.0": (row, column, 3), "text.attentions.0": (row, 1, column, column)}.items():
        report = compared(changed(reference, name, index, 9.0), reference)
        assert report.passed == (MASK[row, column] == 0)
        if not report.passed:
            assert report.failures[0].index_absolute == index


@pytest.mark.parametrize("name", ["text.pooled", "vision.layers.0", "vision.attentions.0", "logits_per_text"])
def test_masks_leave_other_taps_alone(name: str) -> None:
    (found,) = (each for each in compared(taps(), taps()).comparisons if each.name == name)
    assert (found.left_out, found.compared) == (0, math.prod(SHAPES[name]))


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("text.layers.0", (TEXTS, SEQUENCE + 1, WIDTH)),
        ("text.layers.0", (TEXTS + 1, SEQUENCE, WIDTH)),
        ("text.layers.0", (TEXTS, SEQUENCE)),
        ("text.layers.0", (TEXTS, SEQUENCE, WIDTH, 1)),
        ("text.attentions.0", (TEXTS, 2, SEQUENCE, SEQUENCE + 1)),
        ("text.attentions.0", (TEXTS, 2, 1, SEQUENCE)),
        ("text.attentions.0", (1, 2, SEQUENCE, SEQUENCE)),
    ],
)
def test_a_mask_is_never_stretched_to_fit(name: str, shape: tuple[int, ...]) -> None:
    found = compare_tap(name, 0, np.zeros(shape), np.zeros(shape), ALL, Tolerance(1.0))
    assert found.problem == f"shape {shape} does not fit an attention mask of 3 texts with 5 positions"


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_boundary_belongs_to_what_passes(dtype: str) -> None:
    reference = np.zeros(3, dtype)
    candidate = np.array([0, 0.25, -0.125], dtype)
    assert tap(candidate, reference, atol=0.25).passed
    below = tap(candidate, reference, atol=float(np.nextafter(0.25, 0)))
    assert (below.passed, below.exceeding, below.index_absolute) == (False, 1, (1,))
    assert tap(np.array([1.25, -1.25]), np.array([1.0, -1.0]), rtol=0.25).passed
    assert not tap(np.array([1.25]), np.array([1.0]), rtol=float(np.nextafter(0.25, 0))).passed


def test_relative_tolerance_is_relative_to_the_reference() -> None:
    assert tap([1.0], [2.0], rtol=0.5).passed
    assert not tap([2.0], [1.0], rtol=0.5).passed


def test_no_relative_tolerance_is_hidden() -> None:
    assert not tap(np.array([1e6], np.float32), np.array([1e6 + 1], np.float32), atol=0.5).passed


def test_greatest_relative_skips_a_reference_of_zero() -> None:
    found = tap([0.5, 1.5], [0.0, 1.0], atol=1.0)
    assert (found.greatest_absolute, found.index_absolute) == (0.5, (0,))
    assert (found.greatest_relative, found.index_relative) == (0.5, (1,))
    none = tap([0.5], [0.0], atol=1.0)
    assert (none.greatest_relative, none.index_relative) == (None, None)


def test_a_difference_beyond_the_range_of_float64_fails() -> None:
    found = tap([1.7e308], [-1.7e308], atol=1e308)
    assert (found.passed, found.greatest_absolute, found.passing_atol) == (False, math.inf, None)
    assert found.to_json()["greatest_absolute"] == "inf"


def test_values_are_those_at_the_greatest_difference() -> None:
    found = tap([[1.0, 2.0], [3.0, 9.0]], [[1.0, 2.5], [3.0, 4.0]], atol=0.1)
    assert (found.index_absolute, found.candidate_value, found.reference_value) == ((1, 1), 9.0, 4.0)
    assert (found.exceeding, found.compared, found.passing_atol) == (2, 4, 5.0)


arrays = hnp.arrays(
    st.sampled_from(["float32", "float64"]),
    hnp.array_shapes(max_dims=4, max_side=4),
    elements=st.floats(-1e6, 1e6, width=32),
)


@given(arrays, st.data())
def test_figures_are_those_of_a_plain_loop(reference: Any, data: st.DataObject) -> None:
    noise = data.draw(hnp.arrays("float32", reference.shape, elements=st.floats(-2, 2, width=32)))
    candidate = (reference + noise).astype(reference.dtype)
    atol, rtol = data.draw(st.floats(0, 3)), data.draw(st.floats(0, 1))
    found = tap(candidate, reference, atol, rtol)
    pairs = [(float(a), float(b)) for a, b in zip(candidate.flat, reference.flat, strict=True)]
    outside = [abs(a - b) > atol + rtol * abs(b) for a, b in pairs]
    assert found.exceeding == sum(outside)
    assert found.passed == (not any(outside))
    assert found.greatest_absolute == max(abs(a - b) for a, b in pairs)
    assert (
        abs(float(candidate[found.index_absolute]) - float(reference[found.index_absolute])) == found.greatest_absolute
    )
    assert found.compared == len(pairs)


@given(arrays, st.data())
def test_the_tolerance_that_would_pass_passes_and_hardly_less_does(reference: Any, data: st.DataObject) -> None:
    noise = data.draw(hnp.arrays("float32", reference.shape, elements=st.floats(-2, 2, width=32)))
    candidate = (reference + noise).astype(reference.dtype)
    rtol = data.draw(st.one_of(st.just(0.0), st.floats(0, 1)))
    found = tap(candidate, reference, 0.0, rtol)
    passing = found.passing_atol
    assert passing is not None
    assert found.greatest_absolute is not None
    assert tap(candidate, reference, passing, rtol).passed
    slack = 16 * float(np.spacing(np.abs(reference).max() * rtol + found.greatest_absolute))
    if passing > slack:
        assert not tap(candidate, reference, passing - slack, rtol).passed
    if passing > 0 and rtol == 0:
        assert not tap(candidate, reference, float(np.nextafter(passing, 0)), rtol).passed


def test_the_first_failure_is_first_in_model_order_whatever_the_batch() -> None:
    reference = taps()
    early = changed(reference, "text.embeddings", (0, 0, 0), 9.0)
    late = changed(changed(reference, "logits_per_text", (0, 0), 9.0), "text.layers.0", (0, 0, 0), 9.0)
    report = compare_runs(recording(late, early), recording(reference, reference), Tolerance(1e-3))
    assert [(found.name, found.batch) for found in report.failures] == [
        ("text.embeddings", 1),
        ("text.layers.0", 0),
        ("logits_per_text", 0),
    ]
    assert report.verdict == "over tolerance: first at text tower, embeddings (batch 1, batch 1)"
    assert report.first_failure_in("vision") is None
    assert report.first_failure_in("text") is report.first_failure


def test_the_worst_batch_of_a_tap_is_the_failing_or_the_furthest() -> None:
    reference = taps()
    value = float(reference["vision.pooled"][0, 0])
    small, large = (changed(reference, "vision.pooled", (0, 0), value + off) for off in (1e-4, 1e-2))
    broken = changed(reference, "vision.pooled", (0, 0), math.nan)
    for runs, worst in (((small, large), 1), ((large, small), 0), ((large, broken, small), 1)):
        report = compare_runs(recording(*runs), recording(*[reference] * len(runs)), Tolerance(1e-3))
        (found,) = (each for each in report.worst if each.name == "vision.pooled")
        assert found.batch == worst


def test_a_tap_is_counted_over_all_batches_and_what_would_pass_passes_all() -> None:
    ones = {**taps(), "vision.pooled": np.full(SHAPES["vision.pooled"], 100.0)}
    ones["vision.pooled"][0] = 0.01
    # Off by more where the reference is large, which a relative tolerance allows, and by less where it is small.
    first = changed(ones, "vision.pooled", (2, 0), 102.5)
    second = changed(changed(ones, "vision.pooled", (0, 1), 1.01), "vision.pooled", (0, 2), 2.01)
    runs = recording(first, second), recording(ones, ones)
    report = compare_runs(*runs, Tolerance(0.1, 0.01))
    each = [tap for tap in report.comparisons if tap.name == "vision.pooled"]
    (found,) = (tap for tap in report.worst if tap.name == "vision.pooled")
    assert (found.batch, found.greatest_absolute, found.index_absolute) == (0, 2.5, (2, 0))
    assert [tap.exceeding for tap in each] == [1, 2]
    assert (found.exceeding, found.compared) == (3, sum(tap.compared for tap in each))
    assert found.greatest_relative == pytest.approx(200.0)
    assert found.index_relative is None, "it lies in another batch than the one that is named"
    assert each[0].passing_atol is not None
    assert found.passing_atol == each[1].passing_atol > each[0].passing_atol
    assert not compare_runs(*runs, Tolerance(each[0].passing_atol, 0.01)).passed
    assert compare_runs(*runs, Tolerance(found.passing_atol, 0.01)).passed
    assert sum(tap.compared for tap in report.worst) == report.compared
    assert sum(tap.left_out for tap in report.worst) == report.left_out


def test_json_says_all_and_holds_no_nan() -> None:
    reference = taps()
    candidate = changed(changed(reference, "text.layers.0", (0, 0, 0), math.nan), "loss", (), 50.0)
    text = json.dumps(compared(candidate, reference, 1e-3).to_json(), allow_nan=False)
    found = json.loads(text)
    assert found["passed"] is False
    assert found["first_failure"] == {"tap": "text.layers.0", "batch": 0, "where": "text tower, layer 0"}
    assert found["tolerance"] == {"atol": 1e-3, "rtol": 0.0}
    assert [each["name"] for each in found["taps"]] == list(SHAPES)
    broken = next(each for each in found["taps"] if each["name"] == "text.layers.0")
    assert (broken["passed"], broken["not_finite_candidate"], broken["exceeding"]) == (False, 1, 1)


@pytest.mark.parametrize("value", [-1e-9, math.nan, math.inf])
@pytest.mark.parametrize("name", ["atol", "rtol"])
def test_a_tolerance_that_would_pass_everything_or_nothing_is_refused(name: str, value: float) -> None:
    with pytest.raises(ParityError) as caught:
        Tolerance(**{"atol": 0.0, name: value})
    assert str(caught.value) == f"{name} is {value}; give a finite number of 0 or more"


def test_a_report_alone_cannot_be_equal_without_comparisons() -> None:
    assert not ParityReport(EXACT, {}, {}, (), ()).passed
    unfailing = TapComparison("loss", 0, (), "float32")
    assert not unfailing.passed
    assert not ParityReport(EXACT, {}, {}, ("one",), (unfailing,)).passed


def test_sizes_in_these_tests_differ() -> None:
    assert len({IMAGES, TEXTS, SEQUENCE, WIDTH}) == 4


def test_a_reference_recorded_without_inner_taps_still_counts() -> None:
    inner = {"text.layers.0.mlp_output": np.ones((TEXTS, SEQUENCE, WIDTH))}
    with_inner, without = recording({**taps(), **inner}), recording(taps())
    found = compare_runs(with_inner, without, Tolerance(0.0))
    assert found.passed
    assert found.notes == ("outputs inside the layers: not checked, the reference does not hold them",)
    assert not compare_runs(without, with_inner, Tolerance(0.0)).passed  # a candidate has to have them
    both = compare_runs(with_inner, with_inner, Tolerance(0.0))
    assert both.passed
    assert both.notes == ()


def test_a_kind_of_tap_that_an_older_version_did_not_record_is_left_out() -> None:
    """Of one tower all of a kind, in a recording that does not say what it holds; anything else is a difference."""
    ends = [f"{side}.layers.{n}.{kind}" for side in ("vision", "text") for n in range(2) for kind in INNER]
    shapes = {"vision": (IMAGES, 1, WIDTH), "text": (TEXTS, SEQUENCE, WIDTH)}
    inner = {name: np.ones(shapes[name.partition(".")[0]]) for name in ends}
    ours = recording({**taps(), **inner})
    gone = ("vision.layers.0.mlp_output", "vision.layers.1.mlp_output")
    older = recording({**taps(), **{name: tap for name, tap in inner.items() if name not in gone}})
    found = compare_runs(ours, older, Tolerance(0.0))
    assert found.passed
    assert found.notes == (
        "2 outputs inside the layers: not checked, vision tower, layer 0, MLP output is the first. An older version recorded "
        "the reference without them; record it again",
    )
    today = Recording({**older.metadata, "inner": " ".join(INNER)}, older.batches)
    assert not compare_runs(ours, today, Tolerance(0.0)).passed
    one = recording({**taps(), **{name: tap for name, tap in inner.items() if name != gone[0]}})
    assert not compare_runs(ours, one, Tolerance(0.0)).passed


def test_inputs_that_a_tower_does_not_tell_apart_are_said_to_prove_little() -> None:
    told = taps()
    same = {**told, "text.pooled": np.ones_like(told["text.pooled"])}
    few = {
        **same,
        "text.pooled": same["text.pooled"] + np.float32(1e-5) * np.arange(same["text.pooled"].size).reshape(3, -1),
    }
    few["text.pooled"] = few["text.pooled"].astype(np.float32)

    def notes(*runs: Any, atol: float = 1e-3) -> list[str]:
        found = compare_runs(recording(*runs), recording(*runs), Tolerance(atol))
        assert found.passed
        return [note.partition(":")[0] for note in found.notes]

    assert notes(told) == []
    assert notes(same) == notes(few) == ["text tower"]
    assert notes(few, atol=1e-6) == []
    assert notes(same, told) == [], "one batch is enough"
    lost = recording({**told, "text.pooled": np.full_like(told["text.pooled"], np.inf)})
    assert compare_runs(lost, lost, Tolerance(1e-3)).notes == ()
    odd = {**told, "vision.pooled": np.zeros((), np.float32), "text.pooled": np.zeros((0, 3), np.float32)}
    assert compare_runs(recording(odd), recording(odd), Tolerance(0.0)).notes == ()
    alike = recording(same)
    alike.batches[0].inputs["input_ids"][:] = 7  # type: ignore[index]
    assert compare_runs(alike, alike, Tolerance(0.0)).notes == (), "nothing was there to be told apart"


@given(data=st.data())
def test_figures_of_plain_blocks_are_those_of_any(data: st.DataObject) -> None:
    rare = st.sampled_from([0.0, -0.0, np.nan, np.inf, -np.inf, 3e38])
    values = data.draw(st.sampled_from([st.floats(0.5, 4, width=32), st.one_of(st.floats(-4, 4, width=32), rare)]))
    ours, theirs = (data.draw(hnp.arrays(np.float32, 5, elements=values)) for _ in range(2))
    tolerance = Tolerance(data.draw(st.sampled_from([0.0, 1.0, 100.0])), data.draw(st.sampled_from([0.0, 0.1])))
    found = compare_tap("logits_per_image", 0, ours, theirs, ALL, tolerance)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("converter.parity.figures._figures_of_plain_block", lambda *_: None)
        assert compare_tap("logits_per_image", 0, ours, theirs, ALL, tolerance) == found


@given(data=st.data())
def test_figures_do_not_depend_on_where_blocks_end(data: st.DataObject) -> None:
    values = st.one_of(st.floats(-4, 4, width=32), st.sampled_from([0.0, np.nan, np.inf, 1.0]))
    ours, theirs = (data.draw(hnp.arrays(np.float32, 9, elements=values)) for _ in range(2))
    tolerance = Tolerance(0.5, data.draw(st.sampled_from([0.0, 0.1])))
    whole = compare_tap("logits_per_image", 0, ours, theirs, ALL, tolerance)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("converter.parity.figures._BLOCK", data.draw(st.integers(1, 9)))
        assert compare_tap("logits_per_image", 0, ours, theirs, ALL, tolerance) == whole

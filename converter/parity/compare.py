"""Compares two runs tap by tap. Decides what "equal" means: finite, same shape and dtype, within a stated tolerance."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from converter.names.configs import check_config
from converter.names.towers import input_rules
from converter.parity.batches import PRECISIONS, Batch, same_bits
from converter.parity.comparison import ParityReport, TapComparison, Tolerance
from converter.parity.figures import figures_of
from converter.parity.runners.golden import Recording
from converter.parity.taps import Array, in_words, is_inner, masked_axes, model_order, required_taps, tower_of


def compare_runs(
    candidate: Recording,
    reference: Recording,
    tolerance: Tolerance,
    config: Mapping[str, Any] | None = None,
    loss: bool = True,
) -> ParityReport:
    """Compares everything two runs recorded.

    Args:
        candidate: the run in question.
        reference: the run that is right by definition; relative tolerance is relative to its values.
        tolerance: what is allowed.
        config: of the model, where the runs recorded all that it has, the loss included: what its config.json says
            there is, both sides must have.
        loss: whether the loss is part of that.

    Returns:
        A report that fails if a value is not finite or over tolerance, if taps, shapes, dtypes or inputs differ, or if
        nothing was compared.
    """
    problems, notes = [], []
    unrecorded = _unrecorded(reference, candidate)
    if _has_inner(candidate) and not _has_inner(reference):
        candidate = _without(candidate, is_inner)
        notes.append("outputs inside the layers: not checked, the reference does not hold them")
    elif unrecorded:
        candidate = _without(candidate, unrecorded.__contains__)
        notes.append(
            f"{len(unrecorded)} outputs inside the layers: not checked, {in_words(unrecorded[0])} is the first. An older "
            "version recorded the reference without them; record it again"
        )
    if len(candidate.batches) != len(reference.batches):
        problems.append(
            f"the candidate ran {len(candidate.batches)} batches and the reference {len(reference.batches)}; "
            "run both on the same inputs"
        )
    required = set() if config is None else set(required_taps(config, _has_inner(reference))) - set(unrecorded)
    compares_padding = config is not None and _compares_padding(config)
    comparisons: list[TapComparison] = []
    for number, (ours, theirs) in enumerate(zip(candidate.batches, reference.batches, strict=False)):
        where = f"batch {number} ({theirs.title})"
        problems += _batch_problems(ours, theirs, where)
        wanted = required | ({"loss"} if required and loss and theirs.is_square else set())
        absent = sorted(wanted - ours.taps.keys() - theirs.taps.keys(), key=model_order)
        if absent:
            problems.append(f"{where}: both sides lack {', '.join(absent)}, which config.json calls for")
        shared = sorted(ours.taps.keys() & theirs.taps.keys(), key=model_order)
        mask = None if compares_padding else theirs.mask
        comparisons += [_timed(name, number, ours.taps[name], theirs.taps[name], mask, tolerance) for name in shared]
    notes += [
        f"{tower} tower: its outputs for different inputs differ by no more than atol, so these inputs may hide a fault; "
        "rely on the comparison of the weights"
        for tower, inputs in (("vision", "pixel_values"), ("text", "input_ids"))
        if _is_blind(reference, f"{tower}.pooled", inputs, tolerance)
    ]
    return ParityReport(
        tolerance=tolerance,
        candidate=dict(candidate.metadata),
        reference=dict(reference.metadata),
        batches=tuple(batch.title for batch in reference.batches),
        comparisons=tuple(comparisons),
        problems=tuple(problems),
        notes=tuple(notes),
    )


def _is_blind(recording: Recording, tap: str, inputs: str, tolerance: Tolerance) -> bool:
    """Whether a tower gave the same for all inputs of each batch. Such inputs cannot show that a model is wrong."""
    alike = []
    for batch in recording.batches:
        given, made = batch.inputs[inputs], batch.taps.get(tap)
        if made is not None and made.size and made.shape[0:1] == given.shape[0:1] and np.ptp(given, axis=0).any():
            with np.errstate(all="ignore"):  # values that are not finite count as different
                alike.append(bool(np.ptp(made, axis=0).max() <= tolerance.atol))
    return bool(alike) and all(alike)


def _has_inner(recording: Recording) -> bool:
    return any(is_inner(name) for batch in recording.batches for name in batch.taps)


def _unrecorded(reference: Recording, candidate: Recording) -> tuple[str, ...]:
    """Taps inside a tower's layers that a version of this program could not record: all of one kind, or it is a fault.

    Recordings say since what they were to hold (``inner``).
    """
    if "inner" in reference.metadata:
        return ()
    theirs = {_kind(name) for batch in reference.batches for name in batch.taps}
    ours = {name for batch in candidate.batches for name in batch.taps if is_inner(name)}
    return tuple(sorted((name for name in ours if _kind(name) not in theirs), key=model_order))


def _kind(name: str) -> tuple[str | None, str]:
    return tower_of(name), name.rpartition(".")[2]


def _without(recording: Recording, left_out: Callable[[str], bool]) -> Recording:
    batches = (
        Batch(batch.title, batch.inputs, {name: tap for name, tap in batch.taps.items() if not left_out(name)})
        for batch in recording.batches
    )
    return Recording(recording.metadata, tuple(batches))


def _batch_problems(candidate: Batch, reference: Batch, where: str) -> list[str]:
    problems = []
    for name in sorted(candidate.inputs.keys() | reference.inputs.keys()):
        ours, theirs = candidate.inputs.get(name), reference.inputs.get(name)
        if not same_bits(ours, theirs):
            problems.append(f"{where}: the two sides ran on different {name}; run both on the same inputs")
    only = {
        "candidate": sorted(candidate.taps.keys() - reference.taps.keys(), key=model_order),
        "reference": sorted(reference.taps.keys() - candidate.taps.keys(), key=model_order),
    }
    if any(only.values()):
        # every name, not the first ten: a person needs to know which layers exist on one side only
        here, there = (", ".join(only[side]) or "none" for side in ("candidate", "reference"))
        problems.append(
            f"{where}: the sides have different layer outputs; only in the candidate: {here}; only in the reference: {there}"
        )
    return problems


def _compares_padding(config: Mapping[str, Any]) -> bool:
    """Whether what stands at padding is as defined as elsewhere, in texts whose states are not all of their length."""
    return bool(input_rules("text", check_config(config).text.model_type).get("padding_compared"))


def _timed(*arguments: Any) -> TapComparison:
    """As ``compare_tap``, with the time that it took."""
    started = time.perf_counter()
    return replace(compare_tap(*arguments), seconds=time.perf_counter() - started)


def compare_tap(
    name: str, batch: int, candidate: Array, reference: Array, mask: Array | None, tolerance: Tolerance
) -> TapComparison:
    """Compares one tap of one batch, ``|candidate - reference| <= atol + rtol * |reference|`` element by element.

    Args:
        name: the tap; text hidden states and attention maps are compared where ``mask`` is true only.
        batch: number of the batch.
        candidate: float32 or float64, any shape.
        reference: of the same dtype and shape; neither is ever broadcast.
        mask: bool ``(texts, sequence)``; None: everything is compared.
        tolerance: what is allowed.

    Returns:
        The comparison, in float64; ``problem`` says why where values could not be compared.
    """
    problem = _unlike(candidate, reference) or _mask_mismatch(name, reference.shape, mask)
    shape, dtype = reference.shape, str(reference.dtype)
    if problem:
        return TapComparison(name, batch, shape, dtype, problem=problem)
    kept = _selection(name, reference.shape, mask)
    ours, theirs = (array.reshape(-1) if kept is None else array[kept] for array in (candidate, reference))
    left_out = reference.size - theirs.size
    if not theirs.size:
        return TapComparison(name, batch, shape, dtype, left_out=left_out, problem="nothing was compared")
    figures = figures_of(ours, theirs, tolerance)
    places = None if kept is None else np.flatnonzero(kept)

    def index(position: int | None) -> tuple[int, ...] | None:
        if position is None:
            return None
        return tuple(int(i) for i in np.unravel_index(position if places is None else places[position], shape))

    at = figures.at_absolute
    return TapComparison(
        name,
        batch,
        shape,
        dtype,
        compared=theirs.size,
        left_out=left_out,
        exceeding=figures.exceeding,
        not_finite_candidate=figures.not_finite_candidate,
        not_finite_reference=figures.not_finite_reference,
        greatest_absolute=figures.absolute,
        index_absolute=index(at),
        candidate_value=None if at is None else float(ours[at]),
        reference_value=None if at is None else float(theirs[at]),
        greatest_relative=figures.relative,
        index_relative=index(figures.at_relative),
        passing_atol=figures.passing_atol,
    )


def _unlike(candidate: Array, reference: Array) -> str | None:
    if candidate.shape != reference.shape:
        return f"shapes differ: candidate {candidate.shape}, reference {reference.shape}"
    if candidate.dtype != reference.dtype:
        return f"dtypes differ: candidate {candidate.dtype}, reference {reference.dtype}"
    if str(reference.dtype) not in PRECISIONS:
        return f"dtype {reference.dtype} is not supported, expected {' or '.join(PRECISIONS)}"
    return None


def _mask_mismatch(name: str, shape: tuple[int, ...], mask: Array | None) -> str | None:
    if mask is None:
        return None
    axes = masked_axes(name)
    expected = {0: mask.shape[0], **dict.fromkeys(axes, mask.shape[1])} if axes else {}
    rank = {0: len(shape), 1: 3, 2: 4}[len(axes)]
    if len(shape) != rank or any(shape[axis] != extent for axis, extent in expected.items()):
        return f"shape {shape} does not fit an attention mask of {mask.shape[0]} texts with {mask.shape[1]} positions"
    return None


def _selection(name: str, shape: tuple[int, ...], mask: Array | None) -> Array | None:
    """Which elements of a tap count, bool of the tap's shape; None: all of them."""
    axes = masked_axes(name)
    if not axes or mask is None:
        return None
    if len(axes) == 1:
        return np.broadcast_to(mask[:, :, None], shape)
    return np.broadcast_to(mask[:, None, :, None] & mask[:, None, None, :], shape)

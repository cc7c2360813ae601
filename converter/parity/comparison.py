"""What a comparison found: figures per tap and batch, and what follows from them. Decides whether a run passed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from converter.errors import OptionError
from converter.parity.taps import in_words, model_order, tower_of

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class Tolerance:
    """The allowed distance of a candidate's value from the reference's: ``atol + rtol * |reference|``.

    Raises:
        OptionError: one of them is negative, NaN or infinite, so that everything or nothing would pass.
    """

    atol: float
    rtol: float = 0.0

    def __post_init__(self) -> None:
        for name in ("atol", "rtol"):
            value = getattr(self, name)
            if not math.isfinite(value) or value < 0:
                raise OptionError(f"{name} is {value}; give a finite number of 0 or more")

    def __str__(self) -> str:
        return f"atol {self.atol:g}, rtol {self.rtol:g}"


@dataclass(frozen=True, slots=True)
class TapComparison:
    """One tap of one batch.

    Attributes:
        name: the tap.
        batch: number of the batch.
        shape: of the reference's tensor.
        dtype: of the reference's tensor.
        compared: how many elements were compared.
        left_out: how many were not, because they are at masked text positions.
        exceeding: how many leave tolerance; values that are not finite count.
        not_finite_candidate: how many of the candidate's values are NaN or infinite.
        not_finite_reference: how many of the reference's are.
        greatest_absolute: greatest ``|candidate - reference|`` among finite values; None without any.
        index_absolute: where, in the whole tensor.
        candidate_value: the candidate's value there.
        reference_value: the reference's value there.
        greatest_relative: greatest ``|candidate - reference| / |reference|`` where the reference is not 0.
        index_relative: where, in the whole tensor.
        passing_atol: the smallest atol that would pass with the rtol in force; None where none would.
        problem: why the tap could not be compared at all, or None.
        seconds: how long comparing it took.
    """

    name: str
    batch: int
    shape: tuple[int, ...]
    dtype: str
    compared: int = 0
    left_out: int = 0
    exceeding: int = 0
    not_finite_candidate: int = 0
    not_finite_reference: int = 0
    greatest_absolute: float | None = None
    index_absolute: tuple[int, ...] | None = None
    candidate_value: float | None = None
    reference_value: float | None = None
    greatest_relative: float | None = None
    index_relative: tuple[int, ...] | None = None
    passing_atol: float | None = None
    problem: str | None = None
    seconds: float = field(default=0.0, compare=False)

    @property
    def passed(self) -> bool:
        """Whether every element compared is finite and within tolerance, and there is at least one."""
        return self.problem is None and self.compared > 0 and self.exceeding == 0

    @property
    def where(self) -> str:
        """The tap's name for people, for example ``"text tower, layer 3"``."""
        return in_words(self.name)

    def to_json(self) -> dict[str, Any]:
        """A JSON object; numbers that JSON cannot hold are strings such as ``"inf"``."""
        fields = {name: _plain(value) for name, value in asdict(self).items() if name != "seconds"}
        return {**fields, "where": self.where, "passed": self.passed}


@dataclass(frozen=True, slots=True)
class ParityReport:
    """Everything that comparing two runs found.

    Attributes:
        tolerance: what was allowed.
        candidate: the candidate run's metadata: versions, device, precision.
        reference: the reference run's metadata.
        batches: title of each batch.
        comparisons: every tap of every batch that both sides have, batch by batch, in model order.
        problems: faults beside figures: taps of one side only, inputs that are not the same.
        notes: what was not compared and need not be.
    """

    tolerance: Tolerance
    candidate: Mapping[str, str]
    reference: Mapping[str, str]
    batches: tuple[str, ...]
    comparisons: tuple[TapComparison, ...]
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether the candidate is equal to the reference: something was compared, and nothing failed."""
        return not self.problems and self.compared > 0 and all(tap.passed for tap in self.comparisons)

    @property
    def compared(self) -> int:
        """How many elements were compared."""
        return sum(tap.compared for tap in self.comparisons)

    @property
    def left_out(self) -> int:
        """How many elements are at masked positions."""
        return sum(tap.left_out for tap in self.comparisons)

    @property
    def failures(self) -> tuple[TapComparison, ...]:
        """The taps that failed, in model order, in any batch."""
        failed = (tap for tap in self.comparisons if not tap.passed)
        return tuple(sorted(failed, key=lambda tap: (model_order(tap.name), tap.batch)))

    @property
    def first_failure(self) -> TapComparison | None:
        """Where a difference begins: the first tap in model order that failed."""
        return next(iter(self.failures), None)

    def first_failure_in(self, tower: str) -> TapComparison | None:
        """Where a difference begins in one tower, ``"vision"`` or ``"text"``."""
        return next((tap for tap in self.failures if tower_of(tap.name) == tower), None)

    @property
    def worst(self) -> tuple[TapComparison, ...]:
        """For each tap the batch that is furthest off, with how much was counted in all batches, in model order."""
        found: dict[str, list[TapComparison]] = {}
        for tap in self.comparisons:
            found.setdefault(tap.name, []).append(tap)
        return tuple(_over_batches(found[name]) for name in sorted(found, key=model_order))

    @property
    def verdict(self) -> str:
        """One sentence: equal or not, how much was compared, and where a difference begins."""
        if self.passed:
            return (
                f"within tolerance: {self.compared:,} values, {len(self.comparisons)} layer outputs of "
                f"{len(self.batches)} batches, {self.tolerance}"
            )
        first = self.first_failure
        if first is not None:
            return f"over tolerance: first at {first.where} (batch {first.batch}, {self.batches[first.batch]})"
        return f"differs: {self.problems[0]}" if self.problems else "nothing was compared"

    def to_json(self) -> dict[str, Any]:
        """A JSON object with every figure; numbers that JSON cannot hold are strings such as ``"inf"``."""
        first = self.first_failure
        return {
            "schema_version": SCHEMA_VERSION,
            "passed": self.passed,
            "verdict": self.verdict,
            "tolerance": {"atol": self.tolerance.atol, "rtol": self.tolerance.rtol},
            "compared": self.compared,
            "left_out": self.left_out,
            "first_failure": None if first is None else {"tap": first.name, "batch": first.batch, "where": first.where},
            "problems": list(self.problems),
            "notes": list(self.notes),
            "candidate": dict(self.candidate),
            "reference": dict(self.reference),
            "batches": list(self.batches),
            "taps": [tap.to_json() for tap in self.comparisons],
        }


def _over_batches(taps: Sequence[TapComparison]) -> TapComparison:
    """The batch that is furthest off; counts, the greatest relative difference and what would pass are of all."""
    worst = max(taps, key=_badness)
    relative = max(taps, key=lambda tap: -1.0 if tap.greatest_relative is None else tap.greatest_relative)
    passing = [tap.passing_atol for tap in taps if tap.passing_atol is not None]
    return replace(
        worst,
        compared=sum(tap.compared for tap in taps),
        left_out=sum(tap.left_out for tap in taps),
        exceeding=sum(tap.exceeding for tap in taps),
        seconds=sum(tap.seconds for tap in taps),
        not_finite_candidate=sum(tap.not_finite_candidate for tap in taps),
        not_finite_reference=sum(tap.not_finite_reference for tap in taps),
        greatest_relative=relative.greatest_relative,
        # an index says nothing without its batch
        index_relative=relative.index_relative if relative.batch == worst.batch else None,
        passing_atol=max(passing) if len(passing) == len(taps) else None,
    )


def _badness(tap: TapComparison) -> tuple[bool, bool, int, float]:
    not_finite = tap.not_finite_candidate + tap.not_finite_reference
    absolute = -1.0 if tap.greatest_absolute is None else tap.greatest_absolute
    return (tap.problem is not None, not tap.passed, not_finite, absolute)


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return list(value) if isinstance(value, tuple) else value

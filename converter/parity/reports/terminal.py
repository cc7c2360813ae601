"""A parity report as text: the verdict, both towers as a line of layer errors, and a table with one row per tap."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence

from converter.errors import printable
from converter.parity.comparison import ParityReport, TapComparison
from converter.parity.taps import TOWERS, is_state, tower_of

# One sign per decade of the greatest absolute difference, from 1e-9 and below to 1e-2 and above.
_SIGNS = "▁▂▃▄▅▆▇█"
_LOWEST = -9
_FAILED = "✗"
_LEGEND = "one sign per layer: ▁ is 1e-9 or less, each step ten times more, ✗ fails"
_HEADER = ("tap", "batch", "greatest", "at", "relative", "exceeding", "passing atol", "compared", "left out", "")


def to_text(report: ParityReport, every_batch: bool = False) -> str:
    """Renders a report for a terminal of some 120 columns.

    Args:
        report: of one comparison.
        every_batch: one row per tap and batch, instead of one per tap with the batch that is furthest off.

    Returns:
        Lines without colour, the verdict last.
    """
    lines = [
        f"reference  {described_run(report.reference)}",
        f"candidate  {described_run(report.candidate)}",
        f"precision  reference: {described_precision(report.reference)}",
        f"           candidate: {described_precision(report.candidate)}",
        f"tolerance  {report.tolerance}",
        "",
        *(f"{tower:<6} tower  {tower_line(report, tower)}" for tower in TOWERS),
        f"              {_LEGEND}",
        "",
        *_table(report.comparisons if every_batch else report.worst),
        "",
        *(f"problem: {problem}" for problem in report.problems),
        *(f"note: {note}" for note in report.notes),
        f"{report.compared:,} values compared, {report.left_out:,} at masked positions left out",
        report.verdict,
    ]
    return "\n".join(lines) + "\n"


def described_run(metadata: Mapping[str, str]) -> str:
    """What ran where in one line, from a recording's metadata, which may come from a file."""
    parts = [metadata.get(name, "?") for name in ("framework", "dtype", "device")]
    versions = _object(metadata.get("versions", ""))
    parts += [f"{name} {version}" for name, version in versions.items()]
    attention = _object(metadata.get("attention", ""))
    kinds = sorted({str(kind) for kind in attention.values()})
    if kinds:
        parts.append(f"attention {' and '.join(kinds)}")
    parts += _spent(metadata)
    return printable(", ".join(parts), 300)


def _spent(metadata: Mapping[str, str]) -> list[str]:
    """Time and memory of a run, loading included."""
    try:
        seconds, peak = float(metadata["seconds"]), float(metadata["peak_memory"])
    except (KeyError, ValueError):
        return []
    return [f"{seconds:.1f} s", f"{peak / 1e6:,.0f} MB at most"]


def described_precision(metadata: Mapping[str, str]) -> str:
    """The settings that decide how a run rounds, in one line: TF32, determinism and the like."""
    settings = _object(metadata.get("precision", ""))
    return printable(", ".join(f"{name} {value}" for name, value in settings.items()) or "not said", 300)


def _object(text: str) -> dict[str, object]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def tower_line(report: ParityReport, tower: str) -> str:
    """Draws a tower's errors from its embeddings to its pooled output, a sign per layer.

    Returns:
        For example ``"▃▃▄✗✗✗✗  begins at layer 2"``.
    """
    taps = [tap for tap in report.worst if tower_of(tap.name) == tower and is_state(tap.name)]
    if not taps:
        return "nothing compared"
    first = report.first_failure_in(tower)
    greatest = max((tap.greatest_absolute for tap in taps if tap.greatest_absolute is not None), default=math.nan)
    words = f"at most {greatest:.1e}" if first is None else f"leaves tolerance at {first.where.partition(', ')[2]}"
    return f"{''.join(_sign(tap) for tap in taps)}  {words}"


def _sign(tap: TapComparison) -> str:
    if not tap.passed or tap.greatest_absolute is None:
        return _FAILED
    decade = _LOWEST if tap.greatest_absolute == 0 else math.ceil(math.log10(tap.greatest_absolute))
    return _SIGNS[min(max(decade - _LOWEST, 0), len(_SIGNS) - 1)]


def _table(taps: Sequence[TapComparison]) -> list[str]:
    rows = [_HEADER, *(row(tap) for tap in taps)]
    widths = [max(len(cells[column]) for cells in rows) for column in range(len(_HEADER))]
    # names and remarks start at the left, numbers end at the right
    return [
        "  ".join(
            cell.ljust(width) if column in (0, len(_HEADER) - 1) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ).rstrip()
        for cells in rows
    ]


def row(tap: TapComparison) -> tuple[str, ...]:
    """One comparison as cells of text, in the order of the table's header."""
    return (
        tap.where,
        str(tap.batch),
        figure(tap.greatest_absolute),
        "-" if tap.index_absolute is None else f"[{','.join(map(str, tap.index_absolute))}]",
        figure(tap.greatest_relative),
        f"{tap.exceeding:,}",
        figure_above(tap.passing_atol),
        f"{tap.compared:,}",
        f"{tap.left_out:,}",
        remark(tap),
    )


def figure(value: float | None) -> str:
    """A difference with two digits; a dash where there is none."""
    return "-" if value is None else f"{value:.1e}"


def figure_above(value: float | None) -> str:
    """A tolerance with two digits, rounded up, so that the printed one passes as well; a dash where there is none."""
    if value is None or value == 0:
        return figure(value)
    step = 10.0 ** (math.floor(math.log10(value)) - 1)
    text = figure(math.ceil(value / step) * step)
    return text if float(text) >= value else figure((math.ceil(value / step) + 1) * step)


def remark(tap: TapComparison) -> str:
    """What is to be said of a comparison beside its figures: nothing where it passed."""
    if tap.problem is not None:
        return tap.problem
    sides = {"candidate": tap.not_finite_candidate, "reference": tap.not_finite_reference}
    found = [f"{count:,} not finite in the {side}" for side, count in sides.items() if count]
    return "; ".join(found) or ("" if tap.passed else "leaves tolerance")

"""What verifying found as text: each part, both towers as a line of layer errors, and a table with one row per tap."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from converter.errors import printable
from converter.parity.comparison import ParityReport, TapComparison
from converter.parity.finding import Finding
from converter.parity.reports.words import (
    compared,
    described_precision,
    described_run,
    figure,
    figure_above,
    problems,
    remark,
    tower_line,
    verdict,
)
from converter.parity.taps import TOWERS

if TYPE_CHECKING:
    from converter.parity.verify import Verification

_LEGEND = "one sign per layer: ▁ is 1e-9 or less, each step ten times more, ✗ fails"
_HEADER = ("tap", "batch", "greatest", "at", "relative", "exceeding", "passing atol", "compared", "left out", "")


def verification_text(found: Verification) -> str:
    """The figures of the outputs, if there are any, and what was found of each part."""
    return f"{'' if found.report is None else to_text(found.report)}\n{_findings_text(found)}".lstrip("\n")


def _findings_text(found: Verification) -> str:
    """What was found of each part, for a terminal, the verdict last; no name from a file acts on the terminal."""
    return "\n".join([*(line for finding in found.findings for line in _lines(finding)), verdict(found)]) + "\n"


def _lines(finding: Finding) -> Iterator[str]:
    yield f"{finding.part:8} {finding.status}{compared(finding)}"
    for problem in problems(finding):
        for line in problem.split("\n"):  # a process's log has lines of its own
            yield f"         {printable(line, 2000)}"


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

"""The result of verifying as text: the verdict, each part, both towers as a line of layer errors, and on request tables."""

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

_LEGEND = "one sign per layer: ▁ is 1e-9 or less, each step ten times more, ✗ is over tolerance"
_HEADER = (
    "layer output", "batch", "max abs diff", "at", "max rel diff", "over tolerance", "atol needed", "compared", "masked", "",
)  # fmt: skip


def verification_text(found: Verification, verbose: bool = True) -> str:
    """The verdict, what was found of each part, and both towers as a line of layer errors.

    Args:
        found: by ``verify``.
        verbose: what ran where, and a row per layer output, too.

    Returns:
        Lines without colour; names from files are escaped for the terminal.
    """
    lines = [verdict(found), *(f"  {line}" for finding in found.findings for line in _lines(finding))]
    if found.report is not None:
        lines += [f"  {line}" for line in _tower_lines(found.report)]
        lines += [f"  note: {note}" for note in found.report.notes]
        if verbose:
            lines += ["", *_details(found.report)]
        elif not found.report.passed:
            lines.append("  --verbose lists every layer output, --report FILE.html draws them")
    return "\n".join(lines) + "\n"


def _lines(finding: Finding) -> Iterator[str]:
    yield f"{finding.part:8} {finding.status}{compared(finding)}"
    for problem in problems(finding):
        for line in problem.split("\n"):  # a process's log has several lines
            yield f"         {printable(line, 2000)}"


def _tower_lines(report: ParityReport) -> Iterator[str]:
    for tower in TOWERS:
        yield f"{tower:<6} tower  {tower_line(report, tower)}"
    yield f"              {_LEGEND}"


def _details(report: ParityReport, every_batch: bool = False) -> list[str]:
    """What ran where, and a row per layer output."""
    return [
        f"reference  {described_run(report.reference)}",
        f"candidate  {described_run(report.candidate)}",
        f"precision  reference: {described_precision(report.reference)}",
        f"           candidate: {described_precision(report.candidate)}",
        f"tolerance  {report.tolerance}",
        f"compared   {report.compared:,} values, {report.left_out:,} masked",
        "",
        *_table(report.comparisons if every_batch else report.worst),
    ]


def to_text(report: ParityReport, every_batch: bool = False) -> str:
    """Renders a report for a terminal of some 120 columns.

    Args:
        report: of one comparison.
        every_batch: one row per layer output and batch, instead of one per layer output with the batch that differs most.

    Returns:
        Lines without colour, the verdict first.
    """
    lines = [
        report.verdict,
        *(f"problem: {problem}" for problem in report.problems),
        *(f"note: {note}" for note in report.notes),
        *_tower_lines(report),
        "",
        *_details(report, every_batch),
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

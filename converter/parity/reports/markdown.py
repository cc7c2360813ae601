"""The result of verifying as Markdown: fits a model card, a pull request and the summary of a CI job."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from converter.errors import printable
from converter.parity.comparison import ParityReport, TapComparison
from converter.parity.reports.words import (
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

_SIGNS = {"passed": "✅", "failed": "❌", "not checked": "⚠️"}
_HEADER = (
    "layer output", "max abs diff", "at", "max rel diff", "over tolerance", "atol needed", "compared", "masked", "",
)  # fmt: skip
# Characters that would otherwise be markup, a link or the end of a table's cell.
_ESCAPED = str.maketrans({character: f"\\{character}" for character in "\\`*_{}[]<>()#|!~"} | {"&": "&amp;"})


def verification_markdown(found: Verification) -> str:
    """A section for a model card, a pull request or the summary of a CI job; the figures of the outputs below it."""
    lines = [
        f"## {_SIGNS[found.status]} {escaped(verdict(found))}",
        "",
        "| part | result | compared | against |",
        "|---|---|---:|---|",
    ]
    for finding in found.findings:
        status = finding.status if finding.status == "passed" else f"**{finding.status}**"
        lines.append(f"| {finding.part} | {status} | {finding.compared:,} | {escaped(finding.against)} |")
    for finding in found.findings:
        lines += [
            *([""] if finding.problems else []),
            *(f"- {finding.part}: {escaped(problem)}" for problem in problems(finding)),
        ]
    return "\n".join(lines) + "\n" + ("" if found.report is None else f"\n{to_markdown(found.report)}")


def to_markdown(report: ParityReport) -> str:
    """Renders a report as Markdown with tables as GitHub and the Hugging Face Hub show them.

    Args:
        report: of one comparison.

    Returns:
        A section that begins with a heading of the third level and ends with a newline.
    """
    lines = [
        f"### Layer outputs: {'all within tolerance' if report.passed else 'over tolerance'}",
        "",
        escaped(report.verdict),
        "",
        "| | |",
        "|---|---|",
        *(f"| {name} | {escaped(value)} |" for name, value in _facts(report).items()),
        "",
        *_table(report),
    ]
    if report.problems or report.notes:
        lines += ["", *(f"- {escaped(text)}" for text in (*report.problems, *report.notes))]
    return "\n".join(lines) + "\n"


def _facts(report: ParityReport) -> Mapping[str, str]:
    return {
        "reference": described_run(report.reference),
        "candidate": described_run(report.candidate),
        "precision": f"reference {described_precision(report.reference)}; candidate "
        f"{described_precision(report.candidate)}",
        "tolerance": str(report.tolerance),
        "compared": f"{report.compared:,} values, {report.left_out:,} masked",
        **{f"{tower} tower": tower_line(report, tower) for tower in TOWERS},
    }


def _table(report: ParityReport) -> list[str]:
    numbers = "|".join(["---"] + ["---:"] * (len(_HEADER) - 2) + ["---"])
    return [f"| {' | '.join(_HEADER)} |", f"|{numbers}|", *(_row(tap) for tap in report.worst)]


def _row(tap: TapComparison) -> str:
    cells = (
        tap.where if tap.passed else f"**{tap.where}**",
        figure(tap.greatest_absolute),
        "" if tap.index_absolute is None else f"{','.join(map(str, tap.index_absolute))} of batch {tap.batch}",
        figure(tap.greatest_relative),
        f"{tap.exceeding:,}",
        figure_above(tap.passing_atol),
        f"{tap.compared:,}",
        f"{tap.left_out:,}",
        escaped(remark(tap)),
    )
    return f"| {' | '.join(cells)} |"


def escaped(text: str) -> str:
    """Text that may come from a file, as plain text in Markdown: no markup, no line break."""
    return printable(text, 4000).translate(_ESCAPED)

"""What verifying found as one HTML page that needs nothing else: each layer's error on a log scale, and every figure."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from converter.errors import printable
from converter.parity.comparison import ParityReport, TapComparison
from converter.parity.finding import Finding, Status
from converter.parity.reports.words import (
    described_precision,
    described_run,
    figure,
    figure_above,
    problems,
    remark,
    verdict,
)
from converter.parity.taps import TOWERS, is_state, tower_of

if TYPE_CHECKING:
    from converter.parity.verify import Verification

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 900, 300, 70, 90, 30, 84
_LOWEST, _HIGHEST = -10, 2
_LOWEST_FLOAT64 = -18
_OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")
_HEADER = (
    "layer output", "batch", "max abs diff", "at", "max rel diff", "over tolerance", "atol needed", "compared", "masked",
)  # fmt: skip
_STYLE = """
:root { color-scheme: light dark; --ink: #1c2024; --faint: #4a5057; --rule: #d9dde1; --line: #2c5fb3;
  --good: #17663a; --bad: #a3180c; --tint: #fdecea; --paper: #fff; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8ea; --faint: #a5adb5; --rule: #3a4046; --line: #7fabf0;
  --good: #6fcf97; --bad: #ff8a7a; --tint: #45201c; --paper: #16191c; } }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; color: var(--ink);
  background: var(--paper); overflow-wrap: break-word; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; }
.equal { color: var(--good); } .different { color: var(--bad); } .unchecked { color: var(--faint); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .6rem; text-align: right; border-bottom: 1px solid var(--rule); }
th:first-child, td:first-child { text-align: left; }
.taps th, .taps td { white-space: nowrap; } .taps small { display: block; color: var(--bad); }
.option { white-space: nowrap; }
tr.failed td { background: var(--tint); }
.parts td, .parts th { text-align: left; vertical-align: top; } .parts ul { margin: 0; padding-left: 1rem; }
svg { width: 100%; min-width: 600px; height: auto; display: block; } svg text { font-size: 12px; fill: var(--faint); }
.grid { stroke: var(--rule); } .limit { stroke: var(--bad); stroke-dasharray: 6 4; }
.line { fill: none; stroke: var(--line); stroke-width: 2; } .dot { fill: var(--line); } .bad { fill: var(--bad); }
dt { font-weight: 600; } dd { margin: 0 0 .4rem; }
@media (max-width: 45rem) { .parts thead { display: none; } .parts tr { display: block; padding: .4rem 0;
  border-bottom: 1px solid var(--rule); } .parts td { display: block; border: 0; padding: 0 .6rem; }
  .parts td:first-child { font-weight: 600; } .parts td:empty { display: none; }
  .parts td[data-name]::before { content: attr(data-name) " "; color: var(--faint); } }
"""


def to_page(found: Verification) -> str:
    """A complete HTML page."""
    return to_html(found.report, found.findings, verdict(found), found.status)


def to_html(
    report: ParityReport | None, findings: Sequence[Finding] = (), title: str = "", status: Status | None = None
) -> str:
    """Renders a report as a page without scripts and without anything from elsewhere.

    Args:
        report: of one comparison, or None.
        findings: what verifying found of each part.
        title: the verdict over all parts; by default the report's.
        status: whether it is a good one; by default the report's, if there is one.

    Returns:
        An HTML document.
    """
    if status is None:
        status = "passed" if report is not None and report.passed else "failed"
    title = title or (report.verdict if report is not None else "nothing was compared")
    kind = {"passed": "equal", "failed": "different", "not checked": "unchecked"}[status]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Parity</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>'
        f'<h1 class="{kind}">{_text(title)}</h1>{_parts(findings)}{_figures(report)}</body></html>\n'
    )


def _parts(findings: Sequence[Finding]) -> str:
    rows = []
    for finding in findings:
        kind = ' class="failed"' if finding.status == "failed" else ""
        said = "".join(f"<li>{_text(problem)}</li>" for problem in problems(finding))
        cells = {"": finding.status, ' data-name="compared"': f"{finding.compared:,}" if finding.compared else ""}
        cells[' data-name="against"'] = finding.against
        row = "".join(f"<td{name}>{_text(cell)}</td>" for name, cell in cells.items())
        row = f"<td>{_text(finding.part)}</td>{row}"
        rows.append(f"<tr{kind}>{row}<td>{f'<ul>{said}</ul>' if said else ''}</td></tr>")
    if not rows:
        return ""
    head = "".join(f"<th>{name}</th>" for name in ("part", "result", "compared", "against", ""))
    return f'<table class="parts"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'


def _figures(report: ParityReport | None) -> str:
    if report is None:
        return ""
    facts = {
        "outputs": report.verdict,
        "reference": described_run(report.reference),
        "candidate": described_run(report.candidate),
        "precision": f"reference {described_precision(report.reference)}; candidate "
        f"{described_precision(report.candidate)}",
        "tolerance": str(report.tolerance),
        "compared": f"{report.compared:,} values, {report.left_out:,} masked",
        "batches": "; ".join(f"{number}: {title}" for number, title in enumerate(report.batches)),
    }
    listed_facts = "".join(f"<dt>{name}</dt><dd>{_text(value)}</dd>" for name, value in facts.items())
    said = "".join(f"<li>{_text(text)}</li>" for text in (*report.problems, *report.notes))
    plots = "".join(
        f'<h2>{tower.capitalize()} tower</h2><div class="wide">{_plot(report, tower)}</div>' for tower in TOWERS
    )
    return (
        f"<dl>{listed_facts}</dl>{f'<ul>{said}</ul>' if said else ''}{plots}"
        f"<h2>All layer outputs: the batch that differs most, counts over all batches</h2>{_table(report.worst)}"
    )


def _text(text: str) -> str:
    """Text made safe; an option such as ``--reference`` is never broken after its hyphens."""
    return _OPTION.sub(r'<span class="option">\g<0></span>', html.escape(printable(text, 4000)))


def _plot(report: ParityReport, tower: str) -> str:
    """The greatest difference of each tap of a tower from its embeddings to its pooled output, as SVG."""
    taps = [tap for tap in report.worst if tower_of(tap.name) == tower and is_state(tap.name)]
    if not taps:
        return "<p>nothing compared</p>"
    lowest = _LOWEST_FLOAT64 if any(tap.dtype == "float64" for tap in taps) else _LOWEST
    step = (_WIDTH - _LEFT - _RIGHT) / max(1, len(taps) - 1)
    points = [(_LEFT + step * number, _height(tap.greatest_absolute, lowest), tap) for number, tap in enumerate(taps)]
    caption = "max abs diff, all batches"
    if any(tap.greatest_absolute is None for tap in taps):
        caption += "; at the top: no value was compared"
    parts = [_grid(lowest, caption), _limit(report.tolerance.atol, lowest)]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y, _ in points)
    parts.append(f'<polyline class="line" points="{path}"/>')
    for x, y, tap in points:
        title = html.escape(printable(f"{tap.where}: {figure(tap.greatest_absolute)} {remark(tap)}".strip(), 4000))
        parts.append(
            f'<circle class="{"dot" if tap.passed else "bad"}" cx="{x:.1f}" cy="{y:.1f}" r="{4 if tap.passed else 6}">'
            f"<title>{title}</title></circle>"
        )
        label = _text(tap.where.partition(", ")[2])
        parts.append(f'<text transform="translate({x:.1f},{_HEIGHT - _BOTTOM + 16}) rotate(35)">{label}</text>')
    name = f"max abs diff of each layer output of the {tower} tower"
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{name}">{"".join(parts)}</svg>'


def _height(value: float | None, lowest: int) -> float:
    """The place of a difference; one that is unknown or not finite is at the top, where it cannot be overlooked."""
    decade = _HIGHEST if value is None or math.isinf(value) else lowest if value == 0 else math.log10(value)
    part = (min(max(decade, lowest), _HIGHEST) - lowest) / (_HIGHEST - lowest)
    return _HEIGHT - _BOTTOM - part * (_HEIGHT - _BOTTOM - _TOP)


def _grid(lowest: int, caption: str) -> str:
    lines = []
    for decade in range(lowest, _HIGHEST + 1, 2):
        y = _height(10.0**decade, lowest)
        lines.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        lines.append(f'<text x="{_LEFT - 10}" y="{y + 4:.1f}" text-anchor="end">1e{decade}</text>')
    lines.append(f'<text x="{_LEFT}" y="{_TOP - 12}">{caption}</text>')
    return "".join(lines)


def _limit(atol: float, lowest: int) -> str:
    if not atol:
        return ""
    y = _height(atol, lowest)
    return (
        f'<line class="limit" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text x="{_WIDTH - _RIGHT + 8}" y="{y + 4:.1f}">atol {atol:g}</text>'
    )


def _table(taps: Sequence[TapComparison]) -> str:
    head = "".join(f"<th>{name}</th>" for name in _HEADER)
    rows = "".join(_row(tap) for tap in taps)
    return f'<div class="wide"><table class="taps"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def _row(tap: TapComparison) -> str:
    cells = (
        str(tap.batch),
        figure(tap.greatest_absolute),
        "" if tap.index_absolute is None else str(list(tap.index_absolute)),
        figure(tap.greatest_relative),
        f"{tap.exceeding:,}",
        figure_above(tap.passing_atol),
        f"{tap.compared:,}",
        f"{tap.left_out:,}",
    )
    kind = "" if tap.passed else ' class="failed"'
    said = remark(tap)  # below the name, where it needs no scrolling
    name = f"{_text(tap.where)}{f'<small>{_text(said)}</small>' if said else ''}"
    return f"<tr{kind}><td>{name}</td>{''.join(f'<td>{_text(cell)}</td>' for cell in cells)}</tr>"

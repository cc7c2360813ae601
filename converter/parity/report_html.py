"""A parity report as one HTML page that needs nothing else: each layer's error on a log scale, and every figure."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence

from converter.errors import printable
from converter.parity.comparison import ParityReport, TapComparison
from converter.parity.report import described_precision, described_run, figure, figure_above, remark
from converter.parity.taps import TOWERS, is_state, tower_of
from converter.verification import Finding

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 900, 320, 70, 90, 30, 100
_LOWEST, _HIGHEST = -10, 2
_SHOWN = 10  # problems of one part; the JSON report has them all
_HEADER = ("tap", "batch", "greatest", "at", "relative", "exceeding", "atol that passes", "compared", "left out", "")
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; color: #1c2024; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
.equal { color: #17663a; } .different { color: #a3180c; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .6rem; text-align: right; border-bottom: 1px solid #d9dde1; }
th:first-child, td:first-child, td:last-child { text-align: left; }
tr.failed td { background: #fdecea; }
.parts td, .parts th { text-align: left; vertical-align: top; } .parts ul { margin: 0; padding-left: 1rem; }
svg { width: 100%; height: auto; } svg text { font-size: 12px; fill: #4a5057; }
.grid { stroke: #e4e7ea; } .limit { stroke: #a3180c; stroke-dasharray: 6 4; }
.line { fill: none; stroke: #2c5fb3; stroke-width: 2; } .dot { fill: #2c5fb3; } .bad { fill: #a3180c; }
dt { font-weight: 600; } dd { margin: 0 0 .4rem; }
"""


def to_html(report: ParityReport | None, findings: Sequence[Finding] = (), title: str = "") -> str:
    """Renders a report as a page without scripts and without anything from elsewhere.

    Args:
        report: of one comparison; None where there was none.
        findings: what verifying found of each part.
        title: the verdict over all parts; by default the report's.

    Returns:
        An HTML document.
    """
    passed = all(finding.status != "failed" for finding in findings) if report is None else report.passed
    title = title or (report.verdict if report is not None else "nothing was compared")
    verdict = "equal" if passed and all(finding.status != "failed" for finding in findings) else "different"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Parity</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>'
        f'<h1 class="{verdict}">{_text(title)}</h1>{_parts(findings)}{_figures(report)}</body></html>\n'
    )


def _parts(findings: Sequence[Finding]) -> str:
    rows = []
    for finding in findings:
        kind = ' class="failed"' if finding.status == "failed" else ""
        problems = "".join(f"<li>{_text(problem)}</li>" for problem in finding.problems[:_SHOWN])
        more = len(finding.problems) - _SHOWN
        problems += f"<li>and {more} more</li>" if more > 0 else ""
        cells = (finding.part, finding.status, f"{finding.compared:,}" if finding.compared else "", finding.against)
        row = "".join(f"<td>{_text(cell)}</td>" for cell in cells)
        rows.append(f"<tr{kind}>{row}<td>{f'<ul>{problems}</ul>' if problems else ''}</td></tr>")
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
        "compared": f"{report.compared:,} values, {report.left_out:,} at masked positions left out",
    }
    listed_facts = "".join(f"<dt>{name}</dt><dd>{_text(value)}</dd>" for name, value in facts.items())
    problems = "".join(f"<li>{_text(text)}</li>" for text in (*report.problems, *report.notes))
    plots = "".join(f"<h2>{tower.capitalize()} tower</h2>{_plot(report, tower)}" for tower in TOWERS)
    return (
        f"<dl>{listed_facts}</dl>{f'<ul>{problems}</ul>' if problems else ''}{plots}"
        f"<h2>All taps, furthest batch of each</h2>{_table(report.worst)}"
    )


def _text(text: str) -> str:
    return html.escape(printable(text, 4000))


def _plot(report: ParityReport, tower: str) -> str:
    """The greatest difference of each tap of a tower from its embeddings to its pooled output, as SVG."""
    taps = [tap for tap in report.worst if tower_of(tap.name) == tower and is_state(tap.name)]
    if not taps:
        return "<p>nothing compared</p>"
    step = (_WIDTH - _LEFT - _RIGHT) / max(1, len(taps) - 1)
    points = [(_LEFT + step * number, _height(tap.greatest_absolute), tap) for number, tap in enumerate(taps)]
    parts = [_grid(), _limit(report.tolerance.atol)]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y, _ in points)
    parts.append(f'<polyline class="line" points="{path}"/>')
    for x, y, tap in points:
        title = f"{tap.where}: {figure(tap.greatest_absolute)} {remark(tap)}".strip()
        parts.append(
            f'<circle class="{"dot" if tap.passed else "bad"}" cx="{x:.1f}" cy="{y:.1f}" r="{4 if tap.passed else 6}">'
            f"<title>{_text(title)}</title></circle>"
        )
        label = _text(tap.where.partition(", ")[2])
        parts.append(f'<text transform="translate({x:.1f},{_HEIGHT - _BOTTOM + 16}) rotate(35)">{label}</text>')
    name = f"greatest absolute difference of each layer of the {tower} tower"
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{name}">{"".join(parts)}</svg>'


def _height(value: float | None) -> float:
    """Where a difference lies; one that is not known or not finite at the top, where it cannot be overlooked."""
    decade = _HIGHEST if value is None or math.isinf(value) else _LOWEST if value == 0 else math.log10(value)
    part = (min(max(decade, _LOWEST), _HIGHEST) - _LOWEST) / (_HIGHEST - _LOWEST)
    return _HEIGHT - _BOTTOM - part * (_HEIGHT - _BOTTOM - _TOP)


def _grid() -> str:
    lines = []
    for decade in range(_LOWEST, _HIGHEST + 1, 2):
        y = _height(10.0**decade)
        lines.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        lines.append(f'<text x="{_LEFT - 10}" y="{y + 4:.1f}" text-anchor="end">1e{decade}</text>')
    lines.append(f'<text x="{_LEFT}" y="{_TOP - 12}">greatest absolute difference, all batches</text>')
    return "".join(lines)


def _limit(atol: float) -> str:
    if not atol:
        return ""
    y = _height(atol)
    return (
        f'<line class="limit" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text x="{_WIDTH - _RIGHT}" y="{y - 5:.1f}" text-anchor="end">atol {atol:g}</text>'
    )


def _table(taps: Sequence[TapComparison]) -> str:
    head = "".join(f"<th>{name}</th>" for name in _HEADER)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(_row(tap) for tap in taps)}</tbody></table>"


def _row(tap: TapComparison) -> str:
    cells = (
        tap.where,
        str(tap.batch),
        figure(tap.greatest_absolute),
        "" if tap.index_absolute is None else str(list(tap.index_absolute)),
        figure(tap.greatest_relative),
        f"{tap.exceeding:,}",
        figure_above(tap.passing_atol),
        f"{tap.compared:,}",
        f"{tap.left_out:,}",
        remark(tap),
    )
    kind = "" if tap.passed else ' class="failed"'
    return f"<tr{kind}>{''.join(f'<td>{_text(cell)}</td>' for cell in cells)}</tr>"

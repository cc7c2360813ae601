"""What verifying found as one HTML page that needs nothing else: the verdict, the pictures, every layer, every figure."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from converter.parity.comparison import ParityReport
from converter.parity.finding import Finding, Status
from converter.parity.occasion import Occasion
from converter.parity.reports.json import to_json_text
from converter.parity.reports.markup import escaped, shown
from converter.parity.reports.page_plot import plot
from converter.parity.reports.page_style import POLICY, SCRIPT, STYLE
from converter.parity.reports.page_table import table
from converter.parity.reports.page_trial import tried
from converter.parity.reports.words import described_precision, problems, run_facts, verdict
from converter.parity.taps import TOWERS
from converter.parity.trial import Trial

if TYPE_CHECKING:
    from converter.parity.verify import Verification

_KINDS = {"passed": "equal", "failed": "different", "not checked": "unchecked"}
_SIGNS = {"passed": "✓", "failed": "✗", "not checked": "?"}


def to_page(found: Verification) -> str:
    """A complete HTML page."""
    return to_html(
        found.report,
        found.findings,
        verdict(found),
        found.status,
        trial=found.trial,
        occasion=found.occasion,
        data=to_json_text(found),
    )


def to_html(
    report: ParityReport | None,
    findings: Sequence[Finding] = (),
    title: str = "",
    status: Status | None = None,
    *,
    trial: Trial | None = None,
    occasion: Occasion | None = None,
    data: str = "",
) -> str:
    """Renders a report as a page without anything from elsewhere.

    Args:
        report: of one comparison, or None.
        findings: what verifying found of each part.
        title: the verdict over all parts; by default the report's.
        status: whether it is a good one; by default the report's, if there is one.
        trial: the pictures and captions that were tried.
        occasion: when this was, and of which model.
        data: the whole report as JSON, which a link on the page gives to the reader.

    Returns:
        An HTML document.
    """
    if status is None:
        status = "passed" if report is not None and report.passed else "failed"
    title = title or (report.verdict if report is not None else "nothing was compared")
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escaped(title)}</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        f'<meta name="viewport" content="width=device-width,initial-scale=1"><style>{STYLE}</style></head><body>'
        f'<h1 class="{_KINDS[status]}">{_SIGNS[status]} {shown(title)}</h1>{_occasion(occasion)}{_data(data)}'
        f"{_parts(findings)}{tried(trial)}{_figures(report)}<script>{SCRIPT}</script></body></html>\n"
    )


def _occasion(occasion: Occasion | None) -> str:
    if occasion is None:
        return ""
    facts = {
        "model": occasion.model,
        "made from": occasion.source,
        "date": occasion.date.replace("T", " ").replace("Z", " UTC"),
        "commit": occasion.commit,
        "made by": f"dual-encoder-converter {occasion.version}",
    }
    return _facts({name: value for name, value in facts.items() if value})


def _facts(facts: Mapping[str, str]) -> str:
    return f"<dl>{''.join(f'<dt>{name}</dt><dd>{shown(value)}</dd>' for name, value in facts.items())}</dl>"


def _data(data: str) -> str:
    if not data:
        return ""
    coded = base64.b64encode(data.encode("utf-8", "backslashreplace")).decode()
    return f'<p class="json"><a download="parity.json" href="data:application/json;base64,{coded}">This report as JSON</a></p>'


def _parts(findings: Sequence[Finding]) -> str:
    rows = []
    for finding in findings:
        kind = ' class="failed"' if finding.status == "failed" else ""
        said = "".join(f"<li>{shown(problem)}</li>" for problem in problems(finding))
        cells = {"": finding.status, ' data-name="compared"': f"{finding.compared:,}" if finding.compared else ""}
        cells[' data-name="against"'] = finding.against
        row = "".join(f"<td{name if cell else ''}>{shown(cell)}</td>" for name, cell in cells.items())
        row = f"<td>{shown(finding.part)}</td>{row}"
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
        "tolerance": str(report.tolerance),
        "compared": f"{report.compared:,} values, {report.left_out:,} masked",
        "batches": "; ".join(f"{number}: {title}" for number, title in enumerate(report.batches)),
    }
    said = "".join(f"<li>{shown(text)}</li>" for text in (*report.problems, *report.notes))
    plots = "".join(f"<h2>{tower.capitalize()} tower</h2>{plot(report, tower)}" for tower in TOWERS)
    return (
        f"<h2>Outputs</h2>{_facts(facts)}{f'<ul>{said}</ul>' if said else ''}{plots}"
        f"<h2>All layer outputs: the batch that differs most, counts over all batches</h2>{table(report.worst)}"
        f"<h2>What ran where</h2>{_sides(report)}"
    )


def _sides(report: ParityReport) -> str:
    """Versions, devices and precision of both sides, next to each other."""
    theirs, ours = (
        {**run_facts(metadata), "precision": described_precision(metadata)}
        for metadata in (report.reference, report.candidate)
    )
    rows = "".join(
        f'<tr><th scope="row">{shown(name)}</th><td>{shown(theirs.get(name, ""))}</td><td>{shown(ours.get(name, ""))}</td></tr>'
        for name in dict.fromkeys((*theirs, *ours))
    )
    return (
        '<table class="sides"><thead><tr><th></th><th scope="col">reference</th><th scope="col">candidate</th></tr></thead>'
        f"<tbody>{rows}</tbody></table>"
    )

"""The results of an export: lines for a terminal, and one HTML page."""

from __future__ import annotations

import html
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from converter.errors import OptionError, listed, printable, quoted
from converter.exporting.checking.files import FileCheck
from converter.exporting.results import Export, ExportedFile, ExportVerification
from converter.exporting.targets import TARGETS
from converter.folder.staging import staged_file

ENDINGS = (".json", ".html", ".txt")
_VERDICTS = {
    "passed": "every file matches its source",
    "failed": "does NOT match its source",
    "not checked": "not checked",
}
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem; color-scheme: light dark; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; } .wide { overflow-x: auto; }
th, td { padding: .25rem .6rem; text-align: right; border-bottom: 1px solid #8888; }
th:first-child, td:first-child { text-align: left; }
"""
QUALITY = ("format", "side", "count", "cosine mean", "cosine min", "top 1 kept", "top 10 kept")
COST = ("format", "size", "1 image", "1 text", "8 images, each", "8 texts, each")
OUTPUTS = ("format", "output", "compared", "max abs diff", "allowed", "cosine min")
Table = tuple[tuple[str, ...], list[tuple[str, ...]]]


def export_lines(found: Export, verbose: bool = False) -> Iterator[str]:
    """What was exported, the verdict first, then the tables."""
    formats = ", ".join(TARGETS[one.format].label for one in found.exported)
    yield f"{found.folder}: {formats}, {found.options.precision}: every file was run and matches its source"
    compared = sum(one.check.compared for one in found.exported)
    yield f"  {compared:,} values compared with {_reference(found.reference)}, in {found.seconds:.0f} s"
    for one in found.exported:
        yield from _not_given(one.check, TARGETS[one.format].label)
    for title, table in _tables(found, verbose):
        yield from ("", f"{title}:", *_aligned(table))
    for one in found.exported:
        bad = [kind for kind, said in one.wrong_inputs.items() if said.startswith(("answered, and", "crashes"))]
        if bad:
            yield f"  {TARGETS[one.format].label} does not refuse: {listed(bad)}. Check inputs before the call."
    yield f"next: convert verify {quoted(found.folder)}"


def verification_lines(found: ExportVerification) -> Iterator[str]:
    """What verifying an export found, the verdict first."""
    yield f"{found.folder}: {_VERDICTS[found.status]}"
    for finding in found.findings:
        yield f"  {finding.part:24} {finding.status}, {finding.compared:,} compared with {finding.against or 'nothing'}"
        for problem in finding.problems:
            yield from (f"    {line}" for line in problem.splitlines())
    for name, check in found.checks.items():
        yield from _not_given(check, TARGETS[name].label)


def _not_given(check: FileCheck, label: str) -> Iterator[str]:
    for signature, why in check.not_given.items():
        reasons = "; ".join(sorted(set(why.values())))
        yield f"  {label}: {len(why)} {'batch' if len(why) == 1 else 'batches'} cannot be given to {signature}: {reasons}"


def _reference(metadata: Mapping[str, str]) -> str:
    return f"{printable(metadata.get('framework', 'PyTorch'), 40)} on {printable(metadata.get('device', 'cpu'), 40)}"


def _tables(found: Export, verbose: bool = True) -> Iterator[tuple[str, Table]]:
    quality: list[tuple[str, ...]] = [
        (
            one.format, kept.side, str(kept.count), f"{kept.cosine_mean:.5f}", f"{kept.cosine_min:.5f}",
            _share(kept.top1), _share(kept.top10),
        )
        for one in found.exported
        for kept in one.check.quality
    ]  # fmt: skip
    if quality:
        yield "quality on real inputs", (QUALITY, quality)
    yield "size, and milliseconds on one thread", (COST, [row for one in found.exported for row in _cost(one)])
    if verbose:
        yield "outputs", (OUTPUTS, [row for one in found.exported for row in _outputs(one.format, one.check)])


def _cost(one: ExportedFile) -> Iterator[tuple[str, ...]]:
    yield (one.format, f"{one.nbytes / 1e6:,.1f} MB", *_times(one.check.milliseconds))
    if one.float32 is not None:
        yield (f"{one.format} float32", f"{one.float32['size'] / 1e6:,.1f} MB", *_times(one.float32["milliseconds"]))


def _times(spent: Mapping[str, float]) -> Iterator[str]:
    """In the columns of ``COST``; for a static shape, the first two have the time of its batch."""
    for count in (1, 8):
        for side in ("image", "text"):
            value = spent.get(f"{side} of {count}")
            if value is None and count == 1:
                value = next((other for name, other in spent.items() if name.startswith(side)), None)
            yield "" if value is None else f"{value:.2f}"


def _outputs(name: str, check: FileCheck) -> Iterator[tuple[str, ...]]:
    for figure in check.figures:
        yield (
            name,
            f"{figure.signature}: {figure.output}",
            f"{figure.compared:,}",
            "" if figure.greatest is None else f"{figure.greatest:.1e}",
            "" if figure.allowed is None else f"{figure.allowed:.0e}",
            "" if figure.cosine is None else f"{figure.cosine:.6f}",
        )


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _aligned(table: Table) -> Iterator[str]:
    head, rows = table
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    for row in (head, *rows):
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        yield f"  {'  '.join(cells)}".rstrip()


def export_page(found: Export) -> str:
    """A complete HTML page, without scripts and external resources."""
    title, *lines = (line for line in export_lines(found) if line and not line.startswith("  "))
    del lines
    said = [line.strip() for one in found.exported for line in _not_given(one.check, TARGETS[one.format].label)]
    wrong = [
        f"{TARGETS[one.format].label}, {kind}: {answer}"
        for one in found.exported
        for kind, answer in one.wrong_inputs.items()
    ]
    tables = "".join(f"<h2>{_text(name.capitalize())}</h2>{_html(table)}" for name, table in _tables(found))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Export</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body><h1>{_text(title)}</h1>'
        f"{_items(said)}{tables}<h2>Wrong inputs</h2>{_items(wrong)}</body></html>\n"
    )


def _html(table: Table) -> str:
    head, rows = table
    cells = "".join(f"<th>{_text(cell)}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table></div>'


def _items(lines: Sequence[str]) -> str:
    return f"<ul>{''.join(f'<li>{_text(line)}</li>' for line in lines)}</ul>" if lines else ""


def _text(text: Any) -> str:
    return html.escape(printable(str(text), 4000))


def check_report(path: Path) -> None:
    """Checks, before anything runs, that a report can be written.

    Raises:
        OptionError: its ending is unknown, or it cannot be made there.
    """
    if path.suffix not in ENDINGS:
        raise OptionError(f"{printable(str(path))}: no report has this ending; choose {', '.join(ENDINGS)}")
    if not path.parent.is_dir():
        raise OptionError(f"{printable(str(path))}: its folder does not exist; choose another place")


def write_report(found: Export, path: Path) -> None:
    """Writes a report, of the kind that its name says.

    Raises:
        OSError: it cannot be written.
    """
    texts = {
        ".json": lambda: json.dumps(found.to_json(), indent=2) + "\n",
        ".html": lambda: export_page(found),
        ".txt": lambda: "\n".join(printable(line, 4000) for line in export_lines(found, verbose=True)) + "\n",
    }
    with staged_file(path) as fresh:
        fresh.write_text(texts[path.suffix](), "utf-8")

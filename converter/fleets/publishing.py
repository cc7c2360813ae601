"""``fleet.json`` and ``fleet.html`` in OUTDIR, which may be published; and what must not be ours there."""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote

from converter.errors import TargetError, printable
from converter.fleets.attempts import report_of
from converter.fleets.results import ORDER, Fleet, FleetTask
from converter.folder.files import json_bytes
from converter.folder.staging import staged_file

JSON_NAME, PAGE_NAME = "fleet.json", "fleet.html"
REPORTS = report_of("x").partition("/")[0]
_COLUMNS = ("state", "checkpoint", "source", "verdict", "bytes", "seconds", "attempt", "why, and what to do", "report")
_STYLE = """
:root { color-scheme: light dark; } body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 90rem;
  padding: 0 1rem; overflow-wrap: anywhere; } h1 { font-size: 1.5rem; } .wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .6rem; text-align: left; vertical-align: top; border-bottom: 1px solid #8884; }
th button { all: unset; cursor: pointer; font-weight: 600; } th button:focus-visible { outline: 2px solid; }
tr.failed td { background: #c3201822; } tr.not-checked td { background: #c38a1822; } td.number { text-align: right; }
"""
# Sorts by the column whose head is pressed, the other way round when it is pressed again.
_SCRIPT = """
document.querySelectorAll("th button").forEach((button, column) => button.addEventListener("click", () => {
  const body = document.querySelector("tbody"), head = button.parentElement;
  const down = head.getAttribute("aria-sort") === "ascending";
  const key = row => row.cells[column].dataset.key ?? row.cells[column].textContent;
  const order = (a, b) => key(a).localeCompare(key(b), "en", {numeric: true}) * (down ? -1 : 1);
  document.querySelectorAll("th").forEach(other => other.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  body.append(...[...body.rows].sort(order));
}));
"""
_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-"
    + base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()
    + "'"
)


def check_free(out: Path) -> None:
    """Refuses a folder that holds files by our names which no fleet of ours wrote: it has no ledger.

    Raises:
        TargetError: it does.
    """
    for name in (JSON_NAME, PAGE_NAME, REPORTS):
        if (out / name).is_symlink() or (out / name).exists():
            raise TargetError(
                f"{out / name}: exists, and there is no ledger of a fleet; choose another folder, or move it away"
            )


def write_pages(found: Fleet, folder: Path) -> None:
    """Writes both into a folder, each whole or not at all.

    Raises:
        TargetError: they cannot be written.
    """
    for name, text in (
        (JSON_NAME, json_bytes(found.to_json())),
        (PAGE_NAME, to_page(found).encode("utf-8", "replace")),
    ):
        path = folder / name
        try:
            with staged_file(path) as fresh:
                fresh.write_bytes(text)
        except OSError as error:
            raise TargetError(
                f"{path}: cannot be written: {error.strerror}; remove what is in its place and run this again"
            ) from None


def to_page(found: Fleet) -> str:
    """A page that needs nothing else, and in which no script runs but its own."""
    said = ", ".join(f"{count:,} {state}" for state, count in found.counts.items())
    head = "".join(f'<th scope="col"><button>{name}</button></th>' for name in _COLUMNS)
    stopped = f"<p>{_text(found.stopped)}</p>" if found.stopped else ""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Fleet</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>'
        f"<h1>{len(found.tasks):,} checkpoints to {_text(found.to)}: {_text(said or 'none')}</h1>{stopped}"
        f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{"".join(_rows(found.tasks))}</tbody></table></div>'
        f"<script>{_SCRIPT}</script></body></html>\n"
    )


def _rows(tasks: Iterable[FleetTask]) -> Iterable[str]:
    for task in tasks:
        report = f'<a href="{html.escape(quote(task.report))}">parity</a>' if task.report else ""
        cells = (
            f'<td data-key="{ORDER.index(task.state)}">{_text(task.state)}</td>',
            f"<td>{_text(task.name)}</td>",
            f"<td>{_text(task.source)}</td>",
            f"<td>{_text(task.verdict)}</td>",
            f'<td class="number" data-key="{task.nbytes}">{task.nbytes:,}</td>',
            f'<td class="number">{task.seconds:.2f}</td>',
            f'<td class="number">{task.attempt}</td>',
            f"<td>{_text(task.error)}</td>",
            f"<td>{report}</td>",
        )
        yield f'<tr class="{task.state.replace(" ", "-")}">{"".join(cells)}</tr>'


def _text(text: str) -> str:
    return html.escape(printable(text, 4_000))

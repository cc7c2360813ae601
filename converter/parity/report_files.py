"""Writes parity reports to files; the ending of a file's name decides its kind."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from converter.errors import ParityError, printable
from converter.parity.comparison import ParityReport
from converter.parity.report import to_text
from converter.parity.report_html import to_html
from converter.parity.report_junit import to_junit
from converter.parity.report_markdown import to_markdown


def to_json_text(report: ParityReport) -> str:
    """A report as a JSON file, every figure of every tap and batch."""
    return json.dumps(report.to_json(), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


KINDS: Mapping[str, Callable[[ParityReport], str]] = {
    ".json": to_json_text,
    ".md": to_markdown,
    ".html": to_html,
    ".xml": to_junit,
    ".txt": to_text,
}


def check_report_path(path: Path) -> None:
    """Checks, before any model runs, that a report can be of the kind its name asks for.

    Raises:
        ParityError: the name ends in none of ``KINDS``.
    """
    if path.suffix not in KINDS:
        raise ParityError(f"{printable(str(path))}: a report's name ends in {', '.join(KINDS)}; choose one of these")


def write_report(report: ParityReport, path: Path) -> None:
    """Writes a report to a file of the kind that its name asks for.

    Raises:
        ParityError: the name ends in none of ``KINDS``, or the file cannot be written.
    """
    check_report_path(path)
    try:
        path.write_text(KINDS[path.suffix](report), "utf-8")
    except OSError as error:
        raise ParityError(f"{printable(str(path))}: the report cannot be written: {error.strerror}") from None

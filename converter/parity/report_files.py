"""Writes what verifying found to files; the ending of a file's name decides its kind."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from converter.errors import ParityError, printable
from converter.parity.report_findings import verdict, verification_junit, verification_markdown, verification_text
from converter.parity.report_html import to_html

if TYPE_CHECKING:
    from converter.parity.verify import Verification


def to_json_text(found: Verification) -> str:
    """A JSON file with every figure of every tap and batch; ``docs/report.schema.json`` describes it."""
    return json.dumps(found.to_json(), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def to_page(found: Verification) -> str:
    """An HTML page of its own."""
    return to_html(found.report, found.findings, verdict(found))


KINDS: Mapping[str, Callable[[Verification], str]] = {
    ".json": to_json_text,
    ".md": verification_markdown,
    ".html": to_page,
    ".xml": verification_junit,
    ".txt": verification_text,
}


def check_report_path(path: Path) -> None:
    """Checks, before any model runs, that a report can be of the kind its name asks for.

    Raises:
        ParityError: the name ends in none of ``KINDS``, or there is no folder to write it into.
    """
    if path.suffix not in KINDS:
        raise ParityError(f"{printable(str(path))}: a report's name ends in {', '.join(KINDS)}; choose one of these")
    if path.is_dir() or not path.parent.is_dir():
        raise ParityError(f"{printable(str(path))}: is no place for a file; choose one in a folder that is there")


def write_report(found: Verification, path: Path) -> None:
    """Writes a report to a file of the kind that its name asks for.

    Raises:
        ParityError: the name ends in none of ``KINDS``, or the file cannot be written.
    """
    check_report_path(path)
    _write(path, KINDS[path.suffix](found), "w")


def add_to_job_summary(found: Verification) -> bool:
    """Adds the Markdown report to the summary of a GitHub Actions job, if this runs in one.

    Returns:
        Whether it does.

    Raises:
        ParityError: the summary cannot be written.
    """
    summary = os.environ.get("GITHUB_STEP_SUMMARY")
    if os.environ.get("GITHUB_ACTIONS") != "true" or not summary:
        return False
    _write(Path(summary), verification_markdown(found), "a")
    return True


def _write(path: Path, text: str, mode: str) -> None:
    try:
        with path.open(mode, encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise ParityError(f"{printable(str(path))}: the report cannot be written: {error.strerror}") from None

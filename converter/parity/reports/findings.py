"""What verifying found of each part, in every kind of report: beside figures of outputs stand files and weights."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from converter.errors import printable
from converter.parity.files_and_weights import OPTIONAL_PARTS, Finding
from converter.parity.reports.junit import junit_suite, to_xml
from converter.parity.reports.markdown import escaped, to_markdown
from converter.parity.reports.terminal import to_text

if TYPE_CHECKING:
    from converter.parity.verify import Verification

_SHOWN = 10  # problems of one part; the JSON report has them all


def verdict(found: Verification) -> str:
    """One line: whether the checkpoint is its source."""
    return f"{printable(str(found.folder))}: {'equal to its source' if found.passed else 'NOT shown to be its source'}"


def findings_text(found: Verification) -> str:
    """What was found of each part, for a terminal, the verdict last; no name from a file acts on the terminal."""
    return "\n".join([*(line for finding in found.findings for line in _lines(finding)), verdict(found)]) + "\n"


def _lines(finding: Finding) -> Iterator[str]:
    yield f"{finding.part:8} {finding.status}{_compared(finding)}"
    for problem in _problems(finding):
        for line in problem.split("\n"):  # a process's log has lines of its own
            yield f"         {printable(line, 2000)}"


def _compared(finding: Finding) -> str:
    against = f", against {printable(finding.against, 500)}" if finding.against else ""
    return f" ({finding.compared:,} compared{against})" if finding.compared else ""


def _problems(finding: Finding) -> list[str]:
    more = len(finding.problems) - _SHOWN
    return [*finding.problems[:_SHOWN], *([f"and {more} more"] if more > 0 else [])]


def verification_text(found: Verification) -> str:
    """The figures of the outputs, if there are any, and what was found of each part."""
    return f"{'' if found.report is None else to_text(found.report)}\n{findings_text(found)}".lstrip("\n")


def verification_markdown(found: Verification) -> str:
    """A section for a model card, a pull request or the summary of a CI job; the figures of the outputs below it."""
    lines = [
        f"## {'✅' if found.passed else '❌'} {escaped(verdict(found))}",
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
            *(f"- {finding.part}: {escaped(problem)}" for problem in _problems(finding)),
        ]
    return "\n".join(lines) + "\n" + ("" if found.report is None else f"\n{to_markdown(found.report)}")


def verification_junit(found: Verification) -> str:
    """JUnit XML: a suite with a test case per part, and one with a case per tower and output."""
    suite = ElementTree.Element("testsuite", name="verify")
    counts = {"failures": 0, "skipped": 0}
    for finding in found.findings:
        case = ElementTree.SubElement(suite, "testcase", classname="verify", name=finding.part)
        if finding.status == "passed":
            ElementTree.SubElement(case, "system-out").text = f"{finding.status}{_compared(finding)}"
            continue
        kind = "skipped" if finding.status == "not checked" and finding.part in OPTIONAL_PARTS else "failure"
        counts["skipped" if kind == "skipped" else "failures"] += 1
        message = f"{finding.status}: {printable('; '.join(finding.problems), 4000)}"
        ElementTree.SubElement(case, kind, message=message)
    suite.attrib |= {"tests": str(len(found.findings)), **{k: str(n) for k, n in counts.items()}, "errors": "0"}
    return to_xml([suite, *([] if found.report is None else [junit_suite(found.report)])])

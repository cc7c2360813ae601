"""The result of verifying as JUnit XML for CI systems: one test case per part, per tower and per output of the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from converter.errors import printable
from converter.parity.comparison import ParityReport, TapComparison
from converter.parity.reports.words import compared, figure, figure_above, remark
from converter.parity.taps import HEAD, TOWERS, in_words, tower_of

if TYPE_CHECKING:
    from converter.parity.verify import Verification

_CLASS = "parity"
_COUNTS = {"failure": "failures", "skipped": "skipped", "error": "errors"}


def verification_junit(found: Verification) -> str:
    """JUnit XML: a suite with a test case per part, and one with a case per tower and output."""
    suite = ElementTree.Element("testsuite", name="verify")
    counts = dict.fromkeys(_COUNTS.values(), 0)
    for finding in found.findings:
        case = ElementTree.SubElement(
            suite, "testcase", classname="verify", name=finding.part, time=_time(finding.seconds)
        )
        if finding.status == "passed":
            ElementTree.SubElement(case, "system-out").text = f"{finding.status}{compared(finding)}"
            continue
        # An unchecked part is neither a failure nor a success of the checkpoint: CI systems show errors separately.
        kind = "skipped" if finding.is_optional else "error"
        kind = "failure" if finding.status == "failed" else kind
        counts[_COUNTS[kind]] += 1
        message = f"{finding.status}: {printable('; '.join(finding.problems), 4000)}"
        ElementTree.SubElement(case, kind, message=message)
    suite.attrib |= {"tests": str(len(found.findings)), **{name: str(count) for name, count in counts.items()}}
    suite.attrib["time"] = _time(sum(finding.seconds for finding in found.findings))
    if found.occasion is not None:
        suite.attrib["timestamp"] = found.occasion.date
    return to_xml([suite, *([] if found.report is None else [junit_suite(found.report)])])


def to_junit(report: ParityReport) -> str:
    """Renders a report as a JUnit XML file.

    Args:
        report: of one comparison.

    Returns:
        XML with one test suite. A tower or output that was compared is a test case; so is each problem, which fails.
    """
    return to_xml([junit_suite(report)])


def to_xml(suites: Sequence[ElementTree.Element]) -> str:
    """Test suites as one JUnit XML file."""
    totals = {name: str(sum(int(suite.attrib[name]) for suite in suites)) for name in ("tests", "failures", "errors")}
    times = (float(suite.attrib["time"]) for suite in suites if suite.attrib["name"] != _CLASS or len(suites) == 1)
    root = ElementTree.Element("testsuites", {**totals, "time": _time(sum(times))})  # outputs are in both, once each
    root.extend(suites)
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def junit_suite(report: ParityReport) -> ElementTree.Element:
    """Only the report's ``<testsuite>``, to be placed beside others in one file."""
    cases = [_tower_case(report, tower) for tower in TOWERS]
    cases += [_output_case(report, name) for name in HEAD if any(tap.name == name for tap in report.comparisons)]
    cases += [_case("inputs and layer outputs", problem) for problem in report.problems]
    if not report.compared and not report.problems:
        cases.append(_case("inputs and layer outputs", report.verdict))
    failures = sum(case.find("failure") is not None for case in cases)
    counts = {"tests": str(len(cases)), "failures": str(failures), "errors": "0", "skipped": "0"}
    spent = _time(sum(tap.seconds for tap in report.comparisons))
    suite = ElementTree.Element("testsuite", {"name": _CLASS, **counts, "time": spent})
    suite.extend(cases)
    return suite


def _tower_case(report: ParityReport, tower: str) -> ElementTree.Element:
    taps = [tap for tap in report.worst if tower_of(tap.name) == tower]
    if not taps:
        return _case(f"{tower} tower", f"{tower} tower: nothing was compared")
    first = report.first_failure_in(tower)
    return _case(f"{tower} tower", None if first is None else f"first over tolerance at {first.where}", taps)


def _output_case(report: ParityReport, name: str) -> ElementTree.Element:
    taps = [tap for tap in report.worst if tap.name == name]
    failed = [tap for tap in taps if not tap.passed]
    return _case(in_words(name), failed[0].where + ": " + remark(failed[0]) if failed else None, taps)


def _time(seconds: float) -> str:
    return f"{seconds:.6f}"


def _case(name: str, failure: str | None, taps: Sequence[TapComparison] = ()) -> ElementTree.Element:
    spent = _time(sum(tap.seconds for tap in taps))
    case = ElementTree.Element("testcase", classname=_CLASS, name=name, time=spent)
    figures = "\n".join(_line(tap) for tap in taps)
    if failure:
        # what is not printable is no character of XML either
        ElementTree.SubElement(case, "failure", message=printable(failure, 4000)).text = figures
    elif figures:
        ElementTree.SubElement(case, "system-out").text = figures
    return case


def _line(tap: TapComparison) -> str:
    where = "" if tap.index_absolute is None else f" at {list(tap.index_absolute)} of batch {tap.batch}"
    return (
        f"{tap.where}: max abs diff {figure(tap.greatest_absolute)}{where}, max rel diff "
        f"{figure(tap.greatest_relative)}, {tap.exceeding:,} of {tap.compared:,} over tolerance, atol needed "
        f"{figure_above(tap.passing_atol)}, {tap.left_out:,} masked"
        f"{'; ' if remark(tap) else ''}{remark(tap)}"
    )

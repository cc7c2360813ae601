"""Reports for people and CI: whole outputs, nothing from a file acts as markup, and failures are shown."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import math
import re
import shutil
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jsonschema
import numpy as np
import pytest

from converter import pt2tf
from converter.errors import ParityError
from converter.parity.compare import compare_runs
from converter.parity.comparison import ParityReport, Tolerance
from converter.parity.finding import Finding
from converter.parity.occasion import Occasion
from converter.parity.reports.files import KINDS, add_to_job_summary, check_report_path, write_report
from converter.parity.reports.html import to_html, to_page
from converter.parity.reports.junit import to_junit, verification_junit
from converter.parity.reports.markdown import to_markdown, verification_markdown
from converter.parity.reports.page_style import POLICY, SCRIPT
from converter.parity.reports.words import verdict
from converter.parity.runners.golden import Recording
from converter.parity.trial import Trial
from converter.parity.verify import Verification, verify
from tests.parity.samples import METADATA, changed, recording, taps
from tests.tiny import config_of, tensors_of, write_checkpoint

CONFIG = config_of("clip_vision_model", "bert")
SCHEMA = Path(__file__).resolve().parents[2] / "docs" / "report.schema.json"
SCRIPT_TAG = f"<script>{SCRIPT}</script>"
HOSTILE = "<script>alert(1)</script>|[x](http://y)\x1b[31m\n&\x00"


def few() -> dict[str, Any]:
    return {
        "vision.embeddings": np.ones((4, 2)),
        "text.embeddings": np.ones((3, 5, 7)),
        "text.layers.0": np.ones((3, 5, 7)),
        "logits_per_image": np.ones((4, 3)),
    }


def report(**off: float) -> ParityReport:
    """Four taps of ones; ``text_layers_0=value`` replaces one value of that tap."""
    candidate = few()
    for name, value in off.items():
        tap = next(key for key in candidate if key.replace(".", "_") == name)
        candidate = changed(candidate, tap, (1,) * candidate[tap].ndim, value)
    return compare_runs(recording(candidate), recording(few()), Tolerance(1e-3))


def hostile() -> ParityReport:
    metadata = {**METADATA, "framework": HOSTILE, "versions": json.dumps({HOSTILE: HOSTILE})}
    run = Recording(metadata, recording(taps()).batches)
    return compare_runs(run, run, Tolerance(0.0))


def test_markdown_is_a_section_with_two_tables() -> None:
    run = "PyTorch, float32, cpu, torch 2.0, attention eager and sdpa"
    assert to_markdown(report(text_layers_0=1.5)).splitlines() == [
        "### Layer outputs: over tolerance",
        "",
        "over tolerance: first at text tower, layer 0 \\(batch 0, batch 0\\)",
        "",
        "| | |",
        "|---|---|",
        f"| reference | {run} |",
        f"| candidate | {run} |",
        "| precision | reference not recorded; candidate not recorded |",
        "| tolerance | atol 0.001, rtol 0 |",
        "| compared | 132 values, 98 masked |",
        "| vision tower | ▁  max abs diff 0.0e+00 |",
        "| text tower | ▁✗  first over tolerance at layer 0 |",
        "",
        "| layer output | max abs diff | at | max rel diff | over tolerance | atol needed | compared | masked |  |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---|",
        "| vision tower, embeddings | 0.0e+00 | 0,0 of batch 0 | 0.0e+00 | 0 | 0.0e+00 | 8 | 0 |  |",
        "| text tower, embeddings | 0.0e+00 | 0,0,0 of batch 0 | 0.0e+00 | 0 | 0.0e+00 | 56 | 49 |  |",
        "| **text tower, layer 0** | 5.0e-01 | 1,1,1 of batch 0 | 5.0e-01 | 1 | 5.0e-01 | 56 | 49 | over tolerance |",
        "| logits per image | 0.0e+00 | 0,0 of batch 0 | 0.0e+00 | 0 | 0.0e+00 | 12 | 0 |  |",
    ]
    assert to_markdown(report()).startswith(
        "### Layer outputs: all within tolerance\n\nwithin tolerance: 132 values, 4 layer outputs of"
    )


def test_markdown_shows_problems_and_escapes_what_came_from_a_file() -> None:
    odd = compare_runs(recording({}), recording(few()), Tolerance(0.0))
    assert "\n- batch 0 \\(batch 0\\): the sides have different layer outputs; " in to_markdown(odd)
    text = to_markdown(hostile())
    assert "<script>" not in text
    assert "\\<script\\>" in text
    assert "\\|\\[x\\]\\(http://y\\)" in text
    assert "\x1b" not in text


def cases(found: ParityReport) -> dict[str, str | None]:
    """Test cases by name, with the message of their failure."""
    root = ElementTree.fromstring(to_junit(found))
    suite = root[0]
    made = {}
    for case in suite:
        failure = case.find("failure")
        made[case.attrib["name"]] = None if failure is None else failure.attrib["message"]
    assert int(suite.attrib["tests"]) == len(suite)
    assert int(suite.attrib["failures"]) == int(root.attrib["failures"]) == len(suite.findall(".//failure"))
    return made


def test_junit_has_a_case_per_tower_and_output() -> None:
    assert cases(report()) == {"vision tower": None, "text tower": None, "logits per image": None}
    assert cases(report(text_layers_0=1.5, logits_per_image=math.nan)) == {
        "vision tower": None,
        "text tower": "first over tolerance at text tower, layer 0",
        "logits per image": "logits per image: 1 not finite in the candidate",
    }
    text = to_junit(report(text_layers_0=1.5))
    assert (
        "text tower, layer 0: max abs diff 5.0e-01 at [1, 1, 1] of batch 0, max rel diff 5.0e-01, 1 of 56 over "
        "tolerance, atol needed 5.0e-01, 49 masked; over tolerance"
    ) in text


def test_junit_says_how_long_each_case_took() -> None:
    """Of parts what they took; of a tower what comparing its outputs did, which the part "outputs" counts, too."""
    made = report()
    timed = replace(made, comparisons=tuple(replace(tap, seconds=0.25) for tap in made.comparisons))
    parts = (Finding("weights", "passed", 3, seconds=1.5), Finding("outputs", "passed", 3, seconds=2.0))
    root = ElementTree.fromstring(verification_junit(Verification(Path("out"), parts, timed)))
    assert root.attrib["time"] == "3.500000"
    assert [{case.attrib["name"]: float(case.attrib["time"]) for case in suite} for suite in root] == [
        {"weights": 1.5, "outputs": 2.0},
        {"vision tower": 0.25, "text tower": 0.5, "logits per image": 0.25},
    ]
    assert [float(suite.attrib["time"]) for suite in root] == [3.5, 1.0]
    assert ElementTree.fromstring(to_junit(timed)).attrib["time"] == "1.000000"
    assert all(0 < tap.seconds < 10 for tap in made.comparisons)


def test_junit_never_passes_a_report_that_did_not() -> None:
    for found in (
        compare_runs(recording(), recording(), Tolerance(1.0)),
        compare_runs(recording({}), recording(few()), Tolerance(1.0)),
        compare_runs(recording(few(), few()), recording(few()), Tolerance(1.0)),
        report(vision_embeddings=math.inf),
        ParityReport(Tolerance(1.0), {}, {}, (), ()),
    ):
        assert not found.passed
        assert any(cases(found).values())
    ElementTree.fromstring(to_junit(hostile()))


def test_junit_holds_what_xml_has() -> None:
    """A parser takes it, whatever a problem says; and reads what it said, escaped."""
    failure = ElementTree.fromstring(to_junit(replace(report(), problems=(HOSTILE,)))).find(".//failure")
    assert failure is not None
    assert failure.attrib["message"] == r"<script>alert(1)</script>|[x](http://y)\x1b[31m\n&\x00"


class Page(HTMLParser):
    """Collects what an HTML page consists of."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("made", [report(), report(text_layers_0=1.5, logits_per_image=math.nan), hostile()])
def test_html_is_one_page_without_anything_from_elsewhere(made: ParityReport) -> None:
    text = to_html(made, trial=tried(HOSTILE), occasion=Occasion("2026-11-27T17:00:00Z", HOSTILE, HOSTILE), data="{}")
    page = Page(text)
    assert page.open == []
    assert page.tags.count("script") == 1
    assert text.count("<script>") == text.count(f"<script>{SCRIPT}</script>") == 1
    assert ("http-equiv", "Content-Security-Policy") in page.attributes
    assert hashlib.sha256(SCRIPT.encode()).digest() == base64.b64decode(POLICY.partition("'sha256-")[2].rstrip("'"))
    assert not {name for name, _ in page.attributes if name.startswith("on")}
    links = {(value or "").partition(",")[0] for name, value in page.attributes if name in ("src", "href")}
    assert links == {"data:image/png;base64", "data:application/json;base64"}
    assert not re.search(r"https?://|@import|url\(|\x1b", text.replace("x](http://y)", ""))
    assert made.verdict in page.text
    assert page.tags.count("figure") == 2 + len(tried().names)
    assert text.count("<tr><td data-key=") + text.count('<tr class="failed"><td data-key=') == len(made.worst)


def tried(name: str = "croce.png") -> Trial:
    """Two pictures and four captions, on which both sides agree but for a thousandth."""
    theirs = ((0.9, 0.06, 0.03, 0.01), (0.1, 0.899, 0.001, 0.0))
    ours = ((0.901, 0.059, 0.03, 0.01), (0.1, 0.899, 0.001, 0.0))
    captions = (name, "un cerchio", "una stella", "un gatto")
    return Trial(captions, (name, "nave.png"), theirs, ours, (b"1", b"2"))


def test_html_shows_the_pictures_with_both_sides_probabilities() -> None:
    text = to_html(None, trial=tried())
    assert "the same caption for 2 of 2 pictures. Their probabilities differ by 1.0e-03 at most" in text
    first, second = text.split('<figure class="card">')[1:]
    assert f'src="data:image/png;base64,{base64.b64encode(b"1").decode()}"' in first
    assert re.findall(r"width:([\d.]+)%", first) == ["90.00", "90.10", "6.00", "5.90", "3.00", "3.00"]
    assert re.findall(r"<em>(.*?)</em>", first) == ["90.0%", "90.1%", "6.0%", "5.9%", "3.0%", "3.0%"]
    assert re.findall(r'<p class="said">(.*?)</p>', second) == ["un cerchio", "croce.png", "una stella"]
    assert "1 more, each at most 1.0%" in first
    assert "1 more, each at most 0.0%" in second
    rare = replace(tried(), reference=((0.9, 0.06, 0.03999, 1e-5),) * 2)
    assert "1 more, each below 0.1%" in to_html(None, trial=replace(rare, candidate=rare.reference))
    lost = replace(tried(), candidate=((math.nan,) * 4, tried().candidate[1]))
    text = to_html(None, trial=lost)
    assert "for 1 of 2 pictures. Some probabilities are not finite." in text
    assert re.findall(r"<em>(.*?)</em>", text)[:2] == ["90.0%", "NaN"]
    assert "Pictures and captions" not in to_html(report())


def test_html_says_of_which_model_and_when() -> None:
    occasion = Occasion("2026-11-27T17:00:00Z", "CLIPModel, vit + bert", "me/clip at commit 12", "ab" * 20)
    made = Verification(Path("out"), (Finding("weights", "passed", 3),), report(), trial=tried(), occasion=occasion)
    text = to_page(made)
    assert "<title>out: matches its source (weights only)</title>" in text
    for name, value in {
        "model": "CLIPModel, vit + bert",
        "made from": "me/clip at commit 12",
        "date": "2026-11-27 17:00:00 UTC",
        "commit": "ab" * 20,
    }.items():
        assert f"<dt>{name}</dt><dd>{value}</dd>" in text
    assert '<tr><th scope="row">torch</th><td>2.0</td><td>2.0</td></tr>' in text
    assert '<tr><th scope="row">device</th><td>cpu</td><td>cpu</td></tr>' in text
    coded = re.search(r'download="parity.json" href="data:application/json;base64,([^"]+)"', text)
    assert coded is not None
    assert json.loads(base64.b64decode(coded[1])) == made.to_json()
    assert ElementTree.fromstring(verification_junit(made))[0].attrib["timestamp"] == "2026-11-27T17:00:00Z"


def test_html_says_the_figures_of_a_point_and_sorts_by_numbers() -> None:
    text = to_html(report(text_layers_0=1.5))
    said = "text tower, layer 0: max abs diff 5.0e-01, atol needed 5.0e-01, 1 of 56 values over tolerance"
    assert f"<title>{said}</title>" in text
    row = text.partition('<tr class="failed">')[2].partition("</tr>")[0]
    assert re.findall(r'data-key="([^"]*)"', row) == ["2", "0", "0.5", "1", "0.5", "1", "0.5", "56", "49"]
    assert text.count('<th scope="col"><button>') == 9
    row = to_html(report(text_layers_0=math.nan)).partition('<tr class="failed">')[2].partition("</tr>")[0]
    assert re.findall(r'data-key="([^"]*)"', row)[6] == "Infinity", "no atol would pass"


def test_html_marks_what_failed() -> None:
    attributes = Page(to_html(report(text_layers_0=1.5))).attributes
    assert attributes.count(("class", "failed")) == 1
    assert attributes.count(("class", "bad")) == 1
    assert attributes.count(("class", "dot")) == 2
    assert ("class", "failed") not in Page(to_html(report())).attributes
    nothing = compare_runs(recording({}), recording(few()), Tolerance(0.0))
    assert "nothing compared" in Page(to_html(nothing)).text


def test_html_says_why_a_tap_failed_where_its_name_stands() -> None:
    page = to_html(report(text_layers_0=math.nan))
    assert '<td data-key="2">text tower, layer 0<small>' in page
    assert page.count("<small>") == 1
    assert "at the top" not in page


def test_html_says_where_what_could_not_be_compared_is_drawn() -> None:
    lost = {**few(), "text.layers.0": np.full_like(few()["text.layers.0"], np.nan)}
    page = to_html(compare_runs(recording(lost), recording(few()), Tolerance(0.0)))
    assert page.count("at the top: no value was compared") == 1, "in the plot of that tower alone"


def test_html_breaks_no_option_in_two() -> None:
    page = to_html(None, [Finding("outputs", "not checked", problems=("name it with --reference <b>--</b>",))])
    assert 'with <span class="option">--reference</span> &lt;b&gt;--&lt;/b&gt;' in page


def test_html_plots_greater_differences_higher() -> None:
    def heights(off: float) -> list[float]:
        attributes = Page(to_html(report(text_layers_0=1 + off))).attributes
        return [float(value or 0) for name, value in attributes if name == "cy"]

    above = [heights(off)[2] for off in (0.0, 1e-8, 1e-5, 1e-2, 1.0, 1e9)]
    assert above == sorted(above, reverse=True)
    assert len(set(above)) == len(above)
    assert heights(math.nan)[2] > min(heights(math.nan)) - 1


def test_html_has_room_for_what_float64_leaves() -> None:
    def heights(dtype: str) -> list[str]:
        one = {name: np.asarray(array, dtype) for name, array in few().items()}
        other = {
            **one,
            "text.layers.0": one["text.layers.0"] + 4e-15,
            "text.embeddings": one["text.embeddings"] + 4e-11,
        }
        made = compare_runs(recording(other), recording(one), Tolerance(1e-9))
        return [value or "" for name, value in Page(to_html(made)).attributes if name == "cy"]

    assert len(set(heights("float64"))) == 3
    page = to_html(compare_runs(recording(few()), recording(few()), Tolerance(1e-9)))
    assert ">1e-18</text>" in page
    assert ">1e-18</text>" not in to_html(compare_runs(recording(taps()), recording(taps()), Tolerance(1e-9))), (
        "float32 has nothing there"
    )


def test_html_says_what_was_found_of_each_part() -> None:
    page = Page(to_page(found()))
    assert page.open == []
    assert "out: does NOT match its source" in page.text
    assert page.text.count("a.bin: 3 bytes, recorded 4") == 1
    assert ("class", "different") in page.attributes  # equal outputs do not make up for it
    assert Page(to_page(replace(found(), report=None))).tags.count("svg") == 0


def test_html_is_not_green_where_outputs_were_not_checked() -> None:
    unchecked = Finding("outputs", "not checked", problems=("the source is gone",))
    weights = Finding("weights", "passed", 3)
    failed = replace(weights, status="failed")
    colours = ("equal", "different", "unchecked")
    for findings, colour in (
        ((weights, unchecked), "unchecked"),
        ((weights,), "equal"),
        ((failed, unchecked), "different"),
    ):
        made = Verification(Path("out"), findings, None)
        assert [value for name, value in Page(to_page(made)).attributes if value in colours] == [colour]


def test_a_verdict_is_one_of_three_in_every_report() -> None:
    unchecked = Finding("outputs", "not checked", problems=("PyTorch reference: crashed with SIGSEGV",))
    made = Verification(Path("out"), (Finding("weights", "passed", 3), unchecked), None)
    assert verdict(made) == "out: not checked"
    assert verification_markdown(made).startswith("## ⚠️ out: not checked\n")
    assert json.loads(KINDS[".json"](made))["status"] == "not checked"
    assert json.loads(KINDS[".json"](made))["passed"] is False
    assert KINDS[".txt"](made).startswith("out: not checked\n  weights  passed (3 compared)\n")


def found(off: float = 1.0, *others: Finding) -> Verification:
    """Files that differ, weights that were not checked, outputs that may."""
    made = report(text_layers_0=off)
    findings = (
        Finding("files", "failed", 3, "the manifest", ("a.bin: 3 bytes, recorded 4",)),
        Finding("weights", "not checked", problems=("the source is gone",)),
        Finding("outputs", "passed" if made.passed else "failed", made.compared, "PyTorch"),
        Finding("samples", "not checked", problems=("no tokenizer",)),
        *others,
    )
    return Verification(Path("out"), findings, made)


def test_markdown_of_a_verification_begins_with_its_parts() -> None:
    text = verification_markdown(found())
    assert text == "\n".join(
        [
            "## ❌ out: does NOT match its source",
            "",
            "| part | result | compared | against |",
            "|---|---|---:|---|",
            "| files | **failed** | 3 | the manifest |",
            "| weights | **not checked** | 0 |  |",
            "| outputs | passed | 132 | PyTorch |",
            "| samples | **not checked** | 0 |  |",
            "",
            "- files: a.bin: 3 bytes, recorded 4",
            "",
            "- weights: the source is gone",
            "",
            "- samples: no tokenizer",
            "",
            to_markdown(report(text_layers_0=1.0)),
        ]
    )


def test_junit_of_a_verification_fails_where_it_did_not_pass() -> None:
    root = ElementTree.fromstring(verification_junit(found()))
    suite = root[0]
    kinds = {case.attrib["name"]: case[0].tag for case in suite}
    assert kinds == {"files": "failure", "weights": "error", "outputs": "system-out", "samples": "skipped"}
    counts = {name: suite.attrib[name] for name in ("tests", "failures", "errors", "skipped")}
    assert counts == {"tests": "4", "failures": "1", "errors": "1", "skipped": "1"}
    assert (root.attrib["tests"], root.attrib["failures"], root.attrib["errors"]) == ("7", "1", "1")
    assert suite[0][0].attrib["message"] == "failed: a.bin: 3 bytes, recorded 4"
    nothing = Verification(Path("out"), (Finding("outputs", "not checked", problems=("gone",)),), None)
    assert ElementTree.fromstring(verification_junit(nothing)).attrib == {
        "tests": "1", "failures": "0", "errors": "1", "time": "0.000000",
    }  # fmt: skip


def test_what_a_file_says_never_acts() -> None:
    odd = Finding("weights", "failed", 1, HOSTILE, (HOSTILE, *(f"more {n}" for n in range(30))))
    made = found(1.0, odd)
    for kind, render in KINDS.items():
        text = render(made)
        assert "\x1b" not in text, kind
        assert "<script>" not in text.replace(SCRIPT_TAG, "") or kind in (".json", ".txt"), kind
        assert "and 21 more" in text or kind in (".json", ".xml"), kind


@pytest.mark.parametrize("suffix", KINDS)
def test_a_files_name_decides_its_kind(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"report{suffix}"
    made = found(1.5)
    write_report(made, path)
    assert path.read_text("utf-8") == KINDS[suffix](made)
    if suffix == ".json":
        assert json.loads(path.read_text("utf-8")) == made.to_json()


@pytest.mark.parametrize("suffix", sorted(KINDS))
def test_no_report_holds_a_folder_of_this_machine(suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the source's, that of OUT, the home folder or Python's; below the working folder the path from there stays."""
    source = write_checkpoint(tmp_path / "my models" / "clip & co", CONFIG, tensors_of(CONFIG))
    pt2tf(source, tmp_path / "ci" / "out" / "tf")
    shutil.copytree(source, tmp_path / "ci" / "pt")
    monkeypatch.chdir(tmp_path / "ci")
    monkeypatch.setenv("HOME", str(tmp_path / "my models"))
    for reference, called in ((None, "clip & co"), (tmp_path / "ci" / "pt", "pt")):
        found = verify(tmp_path / "ci" / "out" / "tf", reference=reference, weights_only=True)
        wrong = (
            f"{Path.home()}/x.py failed",
            f"{sys.prefix}/lib/y.py: no",
            f"{source}/config.json",
            f"{tmp_path}/ci/z",
        )
        told = replace(found, findings=(*found.findings, Finding("outputs", "failed", problems=wrong)))
        write_report(told, Path(f"report{suffix}"))
        text = html.unescape(Path(f"report{suffix}").read_text("utf-8")).replace("\\", "")
        assert str(tmp_path) not in text
        assert sys.prefix not in text
        shown = [
            "~/x.py",
            "python/lib/y.py",
            f"{called}, bit for bit",
            "config.json",
            "z",
            *(["out/tf"] if suffix != ".xml" else []),
        ]
        assert [part for part in shown if part not in text] == []


def test_a_job_summary_is_added_to_in_github_actions_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    summary = tmp_path / "summary.md"
    summary.write_text("before\n", "utf-8")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    assert not add_to_job_summary(found())
    assert summary.read_text("utf-8") == "before\n"
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    assert add_to_job_summary(found())
    assert summary.read_text("utf-8") == "before\n" + verification_markdown(found())
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path))
    with pytest.raises(ParityError, match="cannot write the report: Is a directory"):
        add_to_job_summary(found())


@pytest.mark.parametrize("made", [found(), found(1.5), found(math.nan), replace(found(), report=None)])
def test_the_schema_describes_every_json_report(made: Verification) -> None:
    schema = json.loads(SCHEMA.read_text("utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    text = KINDS[".json"](made)
    jsonschema.validate(json.loads(text), schema)
    wrong = json.loads(text) | {"passed": "yes"}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, schema)


def test_other_names_are_refused_before_anything_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ParityError) as caught:
        check_report_path(Path("report.pdf"))
    assert str(caught.value) == (
        "report.pdf: a report's name ends in .json, .md, .html, .xml, .txt; choose one of them"
    )
    for path in (tmp_path / "none" / "report.json", tmp_path / "folder.md"):
        (tmp_path / "folder.md").mkdir(exist_ok=True)
        with pytest.raises(ParityError) as caught:
            check_report_path(path)
        assert (
            str(caught.value)
            == f"{path}: a folder, or in a folder that does not exist; choose a file in an existing folder"
        )
    (tmp_path / "taken").mkdir()
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "taken"))
    with pytest.raises(ParityError, match="cannot write the report: Is a directory"):
        add_to_job_summary(found())


def test_no_report_replaces_a_file_of_the_source_or_through_a_link(tmp_path: Path) -> None:
    for folder in ("out", "source"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "config.json").write_text("{}")
    (tmp_path / "link.json").symlink_to("out/config.json")
    (tmp_path / "out" / "tokenizer_config.json").write_text('{"vocab_file": "words.txt"}')
    (tmp_path / "out" / "words.txt").touch()
    for name in ("source/config.json", "source/tokenizer.json", "out/parity.json", "out/words.txt", "link.json"):
        with pytest.raises(ParityError) as caught:
            check_report_path(tmp_path / name, tmp_path / "out")
        assert str(caught.value) == (
            f"{tmp_path / name}: this file belongs to a checkpoint; choose another name for the report"
        )
    check_report_path(tmp_path / "config.json", tmp_path / "out")
    check_report_path(tmp_path / "source" / "report.json", tmp_path / "out")


def test_a_page_lists_its_batches_and_serves_light_and_dark_wide_and_narrow() -> None:
    page = to_html(report(text_layers_0=1.5))
    assert "<dt>batches</dt><dd>0: batch 0</dd>" in page
    assert "@media screen and (prefers-color-scheme: dark)" in page
    assert "@media (max-width: 45rem)" in page
    assert "@media print" in page
    # both towers, on a log scale: each has its grid of decades and its own line of dots
    assert page.count('<figure class="plot">') == page.count('<svg role="img"') == 2
    assert page.count(">1e-8</text>") == 2
    assert "viewBox" not in page, "text would shrink with the page"
    assert not re.findall(r"https?://[^\"'<> ]+|src=|<link|@import", page)


def test_a_plot_names_as_many_layers_as_there_is_room_for() -> None:
    one = {"vision.embeddings": np.ones((4, 10, 6))}
    one |= {f"vision.layers.{number}": np.ones((4, 10, 6)) for number in range(59)}
    page = to_html(compare_runs(recording(one), recording(one), Tolerance(0.0)))
    named = re.findall(r'<text( class="roomy")? text-anchor="end" transform=[^>]*>([^<]+)<', page)
    assert len(named) == 30
    assert [text for roomy, text in named if not roomy][:3] == ["embeddings", "layer 9", "layer 19"]
    assert page.count('<circle class="dot"') == 60
    edges = [float(x) for x in re.findall(r'<svg class="point" x="([\d.]+)%"', page)]
    assert (edges[0], edges[-1]) == (0.0, 100.0)

"""What README and docs name is there: commands, options and their values, targets of make, files, links, counts."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path
from typing import Any

import click
import pytest

from benchmarks.tolerances import MAX_FLOAT32, PAIRS_PER_TOWER, REAL, faults, page, pairs_to_measure, sample_of_pairs
from converter import towers
from converter.cli import cli
from converter.names.rule_files import supported
from converter.names.towers import class_in_transformers_4
from converter.parity.options import VerifyOptions
from tests.docs.pages import PAGES, ROOT, blocks, command_lines, inline_code, name_of, prose, slug

FOLDERS = r"(?:converter|docs|examples|tests|fixtures|benchmarks|rename_rules|constraints|\.ci)/"
# Options of other programs, as in `pytest -x --durations`.
FOREIGN = {"--constraint", "--extra-index-url", "--depth", "--upload-pack", "--version", "--help"}
pages = pytest.mark.parametrize("page", PAGES, ids=name_of)


Options = dict[str, list[click.ParamType]]


def params(*commands: str) -> Options:
    """Options of some commands by every spelling they have, with the type that each gives them."""
    found: Options = {}
    for command in commands:
        for p in cli.commands[command].params:
            for name in (*p.opts, *p.secondary_opts):
                found.setdefault(name, []).append(p.type)
    return found


EVERY_OPTION = params(*cli.commands)


def mistakes(line: str) -> list[str]:
    """What a line of shell says that the command line does not have."""
    found = re.search(r"(?:^|[;&|]\s*|: )(?:convert|python3? -m converter|\$CONVERT)\s+([a-z2]+\b|--?\w+)(.*)", line)
    if not found:
        given = re.match(r"(--[a-z][\w-]*)(?:[ =](\S+))?", line)
        return wrong_options(line, EVERY_OPTION) if given else []
    command, rest = found.groups()
    if command.startswith("-"):
        return [] if command in ("--help", "-h", "--version") else [f"convert {command}"]
    if command not in cli.commands:
        return [f"convert {command}"]
    return wrong_options(rest, params(command))


def wrong_options(text: str, known: Options) -> list[str]:
    """Options that are not known, and values that they do not take."""
    wrong = []
    for option, value in re.findall(r"(?<![\w-])(--[a-z][\w-]*|-[a-z]\b)(?:[ =]([\w|.]+))?", text):
        for name in option.split("/"):
            if name in FOREIGN:
                continue
            if name not in known:
                wrong.append(name)
            elif (choices := [kind.choices for kind in known[name] if isinstance(kind, click.Choice)]) and value:
                wrong += [f"{name} {one}" for one in value.split("|") if not any(one in known for known in choices)]
    return wrong


@pages
def test_every_command_and_option_exists(page: Path) -> None:
    assert {line: mistakes(line) for line in command_lines(page) if mistakes(line)} == {}


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("convert pt2tf A B --format h5", []),
        ("convert pt2tf A B --format bin", ["--format bin"]),
        ("convert pt2tf A B --names v5", ["--names"]),
        ("convert pt2pt A B", ["convert pt2pt"]),
        ("python -m converter verify OUT --report x.md --tolerance 1", ["--tolerance"]),
        ("--names v4|v6", ["--names v6"]),
        ("--no-such-thing", ["--no-such-thing"]),
        ("cd x && convert inspect SRC --names v4", ["--names"]),
        ("convert --verbose", ["convert --verbose"]),
        ("convert reference SRC -o FILE", []),
    ],
)
def test_mistakes_are_found(line: str, wrong: list[str]) -> None:
    assert mistakes(line) == wrong


def test_every_command_is_on_its_page() -> None:
    said = " ".join(command_lines(ROOT / "docs" / "commands.md"))
    assert [name for name in cli.commands if f"convert {name}" not in said] == []


@pages
def test_every_target_of_make_exists(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for line in command_lines(page):
        if named := re.fullmatch(r"make ((?:[a-z][a-z-]* ?)+)", line.strip()):
            assert set(named[1].split()) <= targets, line


@pages
def test_every_file_exists(page: Path) -> None:
    for code in inline_code(page):
        for name in re.findall(rf"(?<![\w./-]){FOLDERS}[\w./*-]*", code):
            if "<" not in code and not name.startswith("benchmarks/data"):
                assert list(ROOT.glob(name.rstrip("/"))), code


@pages
def test_every_link_resolves(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"[a-z]+:", target):
            assert target.startswith("https://"), target
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", prose(there), re.MULTILINE)
            assert anchor in [slug(heading) for heading in headings], target


@pages
def test_every_table_has_a_head(page: Path) -> None:
    """An empty line ends a table: what follows is text with bars in it."""
    lines = ["", *prose(page).splitlines(), ""]
    heads = [n for n, line in enumerate(lines) if line.startswith("|") and not lines[n - 1].startswith("|")]
    assert [lines[n] for n in heads if not re.fullmatch(r"\|(?: *:?-+:? *\|)+", lines[n + 1])] == []


def test_nothing_is_announced_twice() -> None:
    named = re.findall(r"`((?:docs|benchmarks|examples)/[\w./]+)`", (ROOT / "CHANGELOG.md").read_text("utf-8"))
    assert [name for name in set(named) if named.count(name) > 1] == []


def test_tables_are_made_of_the_rules_and_the_measurements() -> None:
    made = runpy.run_path(str(ROOT / "docs" / "make_tables.py"))["PAGES"]
    assert set(made) == {"README.md", "docs/supported.md", "docs/benchmarks.md"}
    for name, make in made.items():
        text = (ROOT / name).read_text("utf-8")
        assert make(text) == text, "say `make docs`"


def test_towers_are_those_that_the_command_lists() -> None:
    text = (ROOT / "docs" / "supported.md").read_text("utf-8")
    assert f"\n\n{towers().to_markdown()}\n\n" in text, "convert towers --markdown"
    counts = {side: sum(tower.side == side for tower in towers().towers) for side in ("vision", "text")}
    said = f"{counts['vision']} image towers and {counts['text']} text towers"
    assert said in (ROOT / "README.md").read_text("utf-8")


def test_every_pair_that_pytorch_runs_is_supported() -> None:
    """fixtures/universe.json has what PyTorch's dual encoder was seen to run."""
    runs = json.loads((ROOT / "fixtures" / "universe.json").read_text("utf-8"))
    for side in ("vision", "text"):
        assert sorted(set(runs[side]) - set(supported(side))) == []
    said = f"all {len(runs['vision'])} x {len(runs['text'])} that PyTorch runs"
    assert said in (ROOT / "README.md").read_text("utf-8")


def test_the_readme_is_short() -> None:
    """What it is in two sentences, the picture, three commands; a page that is read to its end."""
    text = (ROOT / "README.md").read_text("utf-8")
    assert len(text.split()) < 900
    about, picture = (text.split("\n\n")[1], text.split("\n\n")[2])
    assert len(re.findall(r"\.(?:\s|$)", about)) == 2
    assert re.fullmatch(r"!\[[^\]]+\]\(docs/terminal\.svg\)", picture)
    first = blocks(ROOT / "README.md")[0]
    assert [line.split()[1:3] for line in first.text.splitlines()] == [
        ["pip", "install"], ["convert", "pt2tf"], ["convert", "inspect"],
    ]  # fmt: skip


def test_pairs_of_tensorflow_are_as_many_as_the_rules_say() -> None:
    vision, text = (
        [t for t in supported(side) if class_in_transformers_4(side, t, "tf")] for side in ("vision", "text")
    )
    assert (len(vision), len(text)) == (4, 11)
    said = f"All {len(vision) * len(text)} pairs that transformers 4.57.6 runs in TensorFlow"
    assert said in (ROOT / "docs" / "proof.md").read_text("utf-8")
    said = f"It runs {len(vision) * len(text)} pairs of towers in TensorFlow"
    assert said in (ROOT / "docs" / "comparison.md").read_text("utf-8")


def test_every_page_is_found_from_the_readme() -> None:
    reached: set[Path] = set()
    queue: list[Any] = [ROOT / "README.md"]
    while queue:
        page = queue.pop()
        if page in reached:
            continue
        reached.add(page)
        if page.suffix == ".md":
            links = re.findall(r"\]\(([^)\s#:]+)", prose(page))
            queue += [(page.parent / link).resolve() for link in links]
    assert sorted({*(ROOT / "docs").glob("*.md"), *(ROOT / "docs").glob("*.json")} - reached) == []


def test_figures_of_tolerances_are_those_that_were_measured() -> None:
    found = json.loads((ROOT / "benchmarks" / "results" / "tolerances.json").read_text("utf-8"))
    pairs = [f"{vision}+{text}" for vision in supported("vision") for text in supported("text")]
    assert set(found) <= {*pairs, REAL}
    assert REAL in found
    assert pairs_to_measure(found) == [], "benchmarks/tolerances.py measures them"
    text = (ROOT / "docs" / "tolerances.md").read_text("utf-8")
    assert page(text, found) == text, "benchmarks/tolerances.py writes it"
    assert faults(found) == []
    assert VerifyOptions().atol / 2 == MAX_FLOAT32
    found["vit+bert"]["float64"]["logits"] = float("nan")
    assert faults(found) == ["vit+bert, float64, logits: nan, expected 2e-06 at most"]


def test_every_tower_is_measured_in_one_more_pair_every_day() -> None:
    towers = {*supported("vision"), *supported("text")}
    days = [sample_of_pairs(day) for day in range(2000, 2000 + len(supported("text")))]
    assert all({tower for pair in pairs for tower in pair.split("+")} == towers for pairs in days)
    assert len({pair for pairs in days for pair in pairs}) == len(supported("vision")) * len(supported("text"))


def test_a_tower_is_measured_in_two_pairs() -> None:
    found = json.loads((ROOT / "benchmarks" / "results" / "tolerances.json").read_text("utf-8"))
    kept = {pair: figures for pair, figures in found.items() if not {"swin", "bert"} & set(pair.split("+"))}
    asked = pairs_to_measure(kept)
    stand = [tower for pair in asked for tower in pair.split("+")]
    assert len(asked) == 3, "one of both, one of each"
    assert (stand.count("swin"), stand.count("bert")) == (PAIRS_PER_TOWER, PAIRS_PER_TOWER)

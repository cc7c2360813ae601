"""Proof that the proofs work: without a guard, the test that is named for it fails. README.md here has the table."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.hostile.guards import (
    BEGIN,
    CRASH,
    END,
    README,
    ROOT,
    TIMEOUT,
    Guard,
    complaint,
    copied,
    guards,
    mistakes,
    run_tests,
    with_table,
)
from tests.torture import FULL

# Cheap ones: of a reader, of names, of what is written, and of code that would run.
SAMPLE = ("overlap", "no function of the table", "soft links", "half made")


def title(guard: Guard) -> str:
    return f"{guard.part}: {guard.stops}"


def sample() -> list[Guard]:
    return [guard for guard in guards() if any(words in guard.stops for words in SAMPLE)]


@pytest.fixture(scope="module")
def tree() -> Iterator[Path]:
    """A copy of the code and its tests, in which a guard at a time is missing."""
    with copied() as made:
        yield made


@pytest.mark.parametrize("guard", guards() if FULL else sample(), ids=title)
def test_without_it_a_test_fails(tree: Path, guard: Guard) -> None:
    if guard.needs is not None and find_spec(guard.needs) is None:
        pytest.skip(f"{guard.needs} is not installed")
    assert complaint(tree, guard) is None


@pytest.mark.torture
def test_with_all_guards_the_tests_pass(tree: Path) -> None:
    """So that the failures above come from the missing guard, and not from the copy."""
    here = [guard for guard in guards() if guard.needs is None or find_spec(guard.needs)]
    status, noted, said = run_tests(tree, "converter.errors", sorted({guard.test for guard in here}), 600)
    assert (status, noted is not None) == (0, True), said[-3000:]


def test_what_nobody_notices_is_told(tree: Path) -> None:
    """Were nothing removed, or something that no test needs, or were the mutant no Python, that would not pass as proof."""
    guard = sample()[0]
    same = replace(guard, without=f"{guard.text.removesuffix(':')} and True:")
    assert complaint(tree, same) == f"{guard.test} passes all the same"
    assert complaint(tree, replace(guard, without=guard.text)) == "nothing is removed"
    assert complaint(tree, replace(guard, text="def ")).endswith(f" times in {guard.file}")  # type: ignore[union-attr]
    assert " fails of [" in str(complaint(tree, replace(guard, without="if undefined:")))
    with pytest.raises(SyntaxError):
        complaint(tree, replace(guard, without="if:"))
    assert (tree / guard.file).read_bytes() == (ROOT / guard.file).read_bytes()


@pytest.mark.parametrize("guard", guards(), ids=title)
def test_every_guard_is_where_it_is_said_to_be(guard: Guard) -> None:
    assert mistakes(guard) == []
    assert set(guard.by) & {TIMEOUT, CRASH} or all(name.isidentifier() for name in guard.by)


@pytest.mark.parametrize("file", sorted({guard.test.partition("::")[0] for guard in guards()}))
def test_every_test_that_is_named_is_there(file: str, request: pytest.FixtureRequest) -> None:
    """Where its module was collected as a whole, with its very parameters."""
    named = {guard.test for guard in guards() if guard.test.startswith(f"{file}::")}
    parsed = ast.parse((ROOT / file).read_text("utf-8"))
    functions = {node.name for node in parsed.body if isinstance(node, ast.FunctionDef)}
    assert {test.partition("::")[2].partition("[")[0] for test in named} <= functions
    collected = {item.nodeid for item in request.session.items if item.nodeid.startswith(f"{file}::")}
    partly = request.config.option.keyword or any("::" in argument for argument in request.config.args)
    if collected and not partly:
        assert named <= collected


def test_every_module_with_guards_is_in_the_table() -> None:
    """Where the safety code is: a new module that refuses strangers' input must be added here."""
    # Refuse what a person asks for, the Hub answers or a rule file gets wrong, not what a file holds.
    without = {
        "checkpoints/hdf5_written.py", "checkpoints/memory.py",
        "conversion/anywhere.py", "conversion/engine.py", "conversion/formats.py",
        "conversion/other_layouts.py", "conversion/planning.py",
        "conversion/positions.py", "buckets/scratch.py", "checkpoints/choice.py", "hub/client.py",
        "hub/explained.py", "publishing/pushing.py",
        "names/families.py", "names/rule_files.py", "names/scopes.py", "names/spelling.py", "tensors/layouts.py",
        "tensors/moves.py", "tensors/parts.py",
    }  # fmt: skip
    wings = ("buckets", "checkpoints", "conversion", "folder", "hub", "names", "publishing", "tensors")
    held = {guard.file.removeprefix("converter/") for guard in guards()}
    folder = ROOT / "converter"
    raising = {
        str(path.relative_to(folder))
        for wing in wings
        for path in (folder / wing).glob("*.py")
        if re.search(r"raise (_?corrupt|\w*(Error|Checkpoint|Container|Chunks|Pickle))\(", path.read_text("utf-8"))
    }
    assert raising - held == without


def test_the_table_is_made_of_the_data() -> None:
    text = README.read_text("utf-8")
    assert text.count(BEGIN) == text.count(END) == 1
    assert with_table(text) == text, "run python -m tests.hostile.guards --table"

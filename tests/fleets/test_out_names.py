"""Names of OUTs: plain, unique whatever the case, the same in every run, never ours nor outside."""

from __future__ import annotations

import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.errors import OptionError
from converter.fleets.out_names import MAX_OUT_NAME_CHARACTERS, derived_name, is_out_name, named
from converter.fleets.tasks import Task, task_of


def task(source: str, name: str = "", revision: str = "") -> Task:
    return task_of({"source": source, "name": name, "revision": revision}, "tf", f"line {source[:10]}")


@pytest.mark.parametrize(
    ("source", "revision", "name"),
    [
        ("org/name", "", "org--name"),
        ("org/name@v1.0", "", "org--name-v1.0"),
        ("org/name", "refs/pr/1", "org--name-refs--pr--1"),
        ("models/a/model.safetensors", "", "models--a"),
        ("../../etc/passwd", "", "etc--passwd"),
        ("/data/models/clip", "", "clip"),
        ("..", "", "checkpoint"),
        ("fleet.jsonl", "", "checkpoint-fleet.jsonl"),
        ("CON", "", "checkpoint-CON"),
        ("nul.bin", "", "checkpoint-nul.bin"),
        (".hidden", "", "hidden"),
        ("a name: spaß", "", "a-name-spa"),
        ("dots...", "", "dots"),
    ],
)
def test_derived(source: str, revision: str, name: str) -> None:
    assert derived_name(task(source, revision=revision)) == name
    assert is_out_name(name)


_sources = st.lists(
    st.text(string.ascii_letters + "/.-:\\ é\u212a~", min_size=1, max_size=30).filter(lambda text: text.strip()),
    min_size=1, max_size=8, unique_by=str.strip,
)  # fmt: skip


@given(_sources)
def test_any_sources(sources: list[str]) -> None:
    tasks = [task(source) for source in sources]
    found = named(tasks, {})
    names = {one.key: one.name for one in found}
    assert len({name.casefold() for name in names.values()}) == len(sources)
    assert all(is_out_name(name) and Path(name).name == name for name in names.values())
    assert {one.key: one.name for one in named(tasks[::-1], {})} == names
    # Whatever the list gains, what has a name keeps it.
    more = named([task(f"{number}!{source}") for number, source in enumerate(sources)] + tasks, names)
    assert {one.key: one.name for one in more if one.key in names} == names


def test_collisions_by_case_and_cleaning_and_length() -> None:
    found = named([task(source) for source in ("x/Y", "x--y", "x y", "z", "w" * 300, "w" * 301)], {})
    keys = [one.key[:8] for one in found]
    assert [one.name for one in found[:4]] == [f"x--Y-{keys[0]}", f"x--y-{keys[1]}", "x-y", "z"]
    assert max(len(one.name) for one in found) <= MAX_OUT_NAME_CHARACTERS
    assert len({one.name for one in found}) == 6


@pytest.mark.parametrize(
    "name", ["../x", "a/b", "..", ".x", "x.", "fleet.json", "fleet-reports", "FLEET", "con", "x y", "x" * 121, "-x"]
)
def test_names_that_a_list_may_not_give(name: str) -> None:
    with pytest.raises(OptionError, match="cannot be the name of an OUT"):
        named([task("x", name)], {})
    assert named([task("x")], {task("x").key: name})[0].name == "x"  # nor a ledger


def test_repeated() -> None:
    with pytest.raises(OptionError, match="repeats an earlier line, x; remove one"):
        named([task("x"), task("x")], {})
    with pytest.raises(OptionError, match="the name A is that of line x; choose another"):
        named([task("x", "a"), task("y", "A")], {})
    assert [one.name for one in named([task("x"), task("y", "x")], {})] == [f"x-{task('x').key[:8]}", "x"]

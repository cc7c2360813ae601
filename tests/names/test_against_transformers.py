"""The tables, and so the rules, against the transformers that is installed.

It runs in a process of its own: PyTorch and TensorFlow do not always get along in one.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from converter.names.buffers import swin_relative_position_index

VERSION_4, VERSION_5 = "4.57.6", "5.24.0"


# Of families.json: which question its column answers, by the version that is asked.
OF_FAMILIES = {
    VERSION_4: {"saved": "pt_v4", "tensorflow": "tf"},
    VERSION_5: {"state_dict": "pt_v5_live", "saved": "pt_v5", "same": "pt_v5_of_live"},
}


# Importing takes most of the time, so one process answers several; TensorFlow stays apart from PyTorch.
TOGETHER = [("state_dict", "saved", "same", "fields", "swin_index"), ("state_dict", "fields"), ("tensorflow",)]


def ask(question: str, names: Any, python: str = sys.executable) -> tuple[str, dict[str, Any]]:
    """Which version of transformers a Python has, and what it says."""
    group = TOGETHER[0] if python == sys.executable else next(g for g in TOGETHER[1:] if question in g)
    said = ask_all(python, group, names.directory / "odd.json")
    return said["transformers"], said["answers"][question]


@functools.cache
def ask_all(python: str, questions: tuple[str, ...], cases: Path) -> dict[str, Any]:
    script = Path(__file__).with_name("reference_names.py")
    with cases.open() as given:
        run = subprocess.run([python, script, *questions], stdin=given, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-2000:]
    said: dict[str, Any] = json.loads(run.stdout)
    return said


@pytest.mark.torch
@pytest.mark.parametrize(
    ("question", "column"), [("state_dict", "pt_v5_live"), ("saved", "pt_v5"), ("same", "pt_v5_of_live")]
)
def test_version_5_is_as_the_tables_say(question: str, column: str, names: Any) -> None:
    expected = {case: said[column] for case, said in names.table("odd").items()}
    assert ask(question, names) == (VERSION_5, expected)


@pytest.mark.torch
def test_fields_of_version_5_are_as_the_tables_say(names: Any) -> None:
    """A new field, or a new default, has to be sorted."""
    assert ask("fields", names) == (VERSION_5, names.table("config_fields")[VERSION_5])


@pytest.mark.compat
@pytest.mark.parametrize(("question", "column"), [("state_dict", "pt_v4"), ("tensorflow", "tf"), ("fields", "")])
def test_version_4_is_as_the_tables_say(question: str, column: str, names: Any) -> None:
    python = os.environ.get("COMPAT_PYTHON")
    if not python:
        pytest.skip("COMPAT_PYTHON names no interpreter with transformers 4.57.6")
    expected = {case: said[column] for case, said in names.table("odd").items()} if column else None
    assert ask(question, names, python) == (VERSION_4, expected or names.table("config_fields")[VERSION_4])


def families_are_as_the_tables_say(python: str, version: str, names: Any, tmp_path: Path) -> None:
    """Everything that families.json holds of one version, collected again."""
    table, asked = names.table("families"), OF_FAMILIES[version]
    read = {f"{family}: {case}": said for family, content in table.items() for case, said in content["read"].items()}
    (tmp_path / "read.json").write_text(json.dumps(read), "utf-8")
    apart = [(question,) for question in asked if question == "tensorflow"]
    answers: dict[str, Any] = {}
    for group in [(*(question for question in asked if question != "tensorflow"), "fields"), *apart]:
        said = ask_all(python, group, names.directory / "families.json")
        assert said["transformers"] == version
        answers |= said["answers"]
    for family, content in table.items():
        assert {column: answers[question][family] for question, column in asked.items()} == {
            column: content[column] for column in asked.values()
        }
        assert list(answers.get("tensorflow", {family: None})[family] or ()) == list(
            (content["tf"] if version == VERSION_4 else None) or ()
        )
        assert answers["fields"][family] == content["fields"][version]
    sections = ask_all(python, ("sections",), tmp_path / "read.json")["answers"]["sections"]
    assert sections == {case: said[version] for case, said in read.items()}


@pytest.mark.torch
def test_families_of_version_5_are_as_the_tables_say(names: Any, tmp_path: Path) -> None:
    families_are_as_the_tables_say(sys.executable, VERSION_5, names, tmp_path)


@pytest.mark.compat
def test_families_of_version_4_are_as_the_tables_say(names: Any, tmp_path: Path) -> None:
    families_are_as_the_tables_say(os.environ["COMPAT_PYTHON"], VERSION_4, names, tmp_path)


@pytest.mark.torch
def test_swin_index_is_transformers_own(names: Any) -> None:
    found = {case: index for case, index in ask("swin_index", names)[1].items() if index is not None}
    assert len(found) > 1
    for case, index in found.items():
        fields = names.table("odd")[case]["config"]
        assert swin_relative_position_index(fields).tolist() == index

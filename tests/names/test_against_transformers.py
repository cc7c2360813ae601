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
    """A new field, or a new default, has to be sorted anew."""
    assert ask("fields", names) == (VERSION_5, names.table("config_fields")[VERSION_5])


@pytest.mark.compat
@pytest.mark.parametrize(("question", "column"), [("state_dict", "pt_v4"), ("tensorflow", "tf"), ("fields", "")])
def test_version_4_is_as_the_tables_say(question: str, column: str, names: Any) -> None:
    python = os.environ.get("COMPAT_PYTHON")
    if not python:
        pytest.skip("COMPAT_PYTHON names no interpreter with transformers 4.57.6")
    expected = {case: said[column] for case, said in names.table("odd").items()} if column else None
    assert ask(question, names, python) == (VERSION_4, expected or names.table("config_fields")[VERSION_4])


@pytest.mark.torch
def test_swin_index_is_transformers_own(names: Any) -> None:
    found = {case: index for case, index in ask("swin_index", names)[1].items() if index is not None}
    assert len(found) > 1
    for case, index in found.items():
        fields = names.table("odd")[case]["config"]
        assert swin_relative_position_index(fields).tolist() == index

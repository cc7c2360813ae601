"""The tables, and so the rules, against the transformers that is installed.

It runs in a process of its own: PyTorch and TensorFlow do not always get along in one.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from converter.buffers import swin_relative_position_index

pytestmark = pytest.mark.torch


def ask(question, names):
    pytest.importorskip("torch")
    run = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("reference_names.py")), question],
        input=json.dumps({case: {"config": said["config"]} for case, said in names.table("odd").items()}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    said = json.loads(run.stdout)
    if not said["transformers"].startswith("5."):
        pytest.skip(f"the tables are of transformers 5, installed is {said['transformers']}")
    return said["answers"]


def test_live_models_are_as_the_tables_say(names):
    expected = {case: said["pt_v5_live"] for case, said in names.table("odd").items()}
    assert ask("state_dict", names) == expected


def test_saved_models_are_as_the_tables_say(names):
    expected = {case: said["pt_v5"] for case, said in names.table("odd").items()}
    assert ask("saved", names) == expected


def test_config_fields_are_as_the_tables_say(names):
    """A new field, or a new default, has to be sorted anew."""
    assert ask("fields", names) == names.table("config_fields")["5.23.0"]


def test_swin_index_is_transformers_own(names):
    found = {case: index for case, index in ask("swin_index", names).items() if index is not None}
    assert len(found) > 1
    for case, index in found.items():
        fields = names.table("odd")[case]["config"]
        assert swin_relative_position_index(fields).tolist() == index

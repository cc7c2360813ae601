"""The lower bounds of pyproject.toml are the versions that `make oldest` tests."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_lower_bounds_are_those_that_are_tested() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    bounds = dict(requirement.split(">=") for requirement in project["dependencies"])
    text = (ROOT / "constraints" / "oldest-core.txt").read_text("utf-8")
    tested = dict(re.findall(r"^(\S+)==(\S+)$", text, re.MULTILINE))
    assert tested.keys() == bounds.keys()
    for name, bound in bounds.items():
        parts = tested[name].split(".")
        assert ".".join([*bound.split("."), *parts[bound.count(".") + 1 :]]) == tested[name], name
        assert set(parts[bound.count(".") + 1 :]) <= {"0"}, name

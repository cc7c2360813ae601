"""A plugin of pytest for the runs without a guard: loads the mutant first, and notes which tests failed, and of what."""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

_NOTED: list[dict[str, str]] = []


def pytest_configure() -> None:
    """A mutant that cannot be loaded, or is not what the tests will use, ends the run before any test."""
    module = importlib.import_module(os.environ["GUARDS_MODULE"])
    assert Path(str(module.__file__)).is_relative_to(Path.cwd())


def pytest_runtest_call() -> None:
    """From now on a test is what takes time."""
    Path(os.environ["GUARDS_BEGAN"]).touch()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    report: Any = yield
    if call.excinfo is not None:
        _NOTED.append(
            {"test": item.nodeid, "when": report.when, "outcome": report.outcome, "raised": call.excinfo.typename}
        )
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    noted = {"ran": session.testscollected, "raised": _NOTED}
    Path(os.environ["GUARDS_NOTES"]).write_text(json.dumps(noted), "utf-8")

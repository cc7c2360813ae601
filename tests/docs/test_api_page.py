"""docs/api.md is what `make docs` writes now, and says everything; what `converter` exports is stable."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import converter
from tests.docs.pages import ROOT

# A name leaves this list, or changes, with a new major version only.
STABLE = [
    "CheckpointInfo", "Conversion", "ConverterError", "Publication", "TFVisionTextDualEncoderModel", "Verification",
    "VerifyOptions", "combine", "inspect", "pt2tf", "push", "record_reference", "tf2pt", "tf_to_pt_weight_rename", "verify",
]  # fmt: skip
FUNCTIONS = ["combine", "inspect", "pt2tf", "push", "record_reference", "tf2pt", "verify"]
PAGE = ROOT / "docs" / "api.md"


def test_exports_are_stable() -> None:
    assert converter.__all__ == STABLE


def test_page_is_up_to_date(tmp_path: Path) -> None:
    program = "import runpy; print(runpy.run_path('docs/make_api.py')['page'](), end='')"
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=os.environ, capture_output=True, text=True, check=True
    )
    assert run.stdout == PAGE.read_text("utf-8"), "say `make docs`"


def test_every_export_has_a_section() -> None:
    headings = re.findall(r"^## (.*)$", PAGE.read_text("utf-8"), re.MULTILINE)
    assert sorted(headings) == sorted([*STABLE, "Errors"])


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_argument_is_described(name: str) -> None:
    section = PAGE.read_text("utf-8").split(f"\n## {name}\n")[1].split("\n## ")[0]
    described = re.findall(r"^- `(\w+)`: \S", section.split("**Args**")[1].split("**Returns**")[0], re.MULTILINE)
    assert described == list(inspect.signature(getattr(converter, name)).parameters)


@pytest.mark.parametrize("name", ["CheckpointInfo", "Conversion", "Verification", "VerifyOptions"])
def test_every_field_is_described(name: str) -> None:
    section = PAGE.read_text("utf-8").split(f"\n## {name}\n")[1].split("\n#")[0]
    described = re.findall(r"^- `(\w+)`: \S", section, re.MULTILINE)
    assert described == list(getattr(converter, name).__dataclass_fields__)


def test_every_error_is_on_the_page() -> None:
    errors = importlib_errors()
    assert errors
    assert [name for name in errors if name not in PAGE.read_text("utf-8").split("\n## Errors\n")[1]] == []


def importlib_errors() -> list[str]:
    from converter import errors

    return [
        n for n, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, converter.ConverterError)
    ]

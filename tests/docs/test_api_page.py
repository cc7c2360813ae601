"""docs/api.md is what `make docs` writes now, and says everything; what `converter` exports is stable."""

from __future__ import annotations

import ast
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
    "AutoTwoTower", "CheckpointInfo", "Conversion", "ConverterError", "Export", "ExportVerification", "Fleet",
    "FleetProgress", "FleetTask", "Publication", "Supported",
    "SupportedFamily", "SupportedFormat", "SupportedTower",
    "TFAltCLIPModel", "TFCLIPModel", "TFChineseCLIPModel", "TFMetaClip2Model", "TFSiglip2Model", "TFSiglipModel",
    "TFVisionTextDualEncoderModel", "Verification", "VerifyOptions", "combine", "convert", "export", "fleet", "fleet_status",
    "inspect", "pt2tf", "push", "record_reference", "tf2pt", "tf_to_pt_weight_rename", "towers", "verify", "verify_export",
]  # fmt: skip
FUNCTIONS = [
    "combine", "convert", "export", "fleet", "fleet_status", "inspect", "pt2tf", "push", "record_reference",
    "tf2pt", "verify", "verify_export",
]  # fmt: skip
PAGE = ROOT / "docs" / "api.md"


def test_exports_are_stable() -> None:
    assert converter.__all__ == STABLE


def test_a_type_checker_finds_every_export() -> None:
    """What a module finds lazily by ``__getattr__`` is Any to those who import it."""
    tree = ast.parse(Path(str(converter.__file__)).read_text("utf-8"))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level == 0]
    places = {alias.name: str(node.module) for node in imports for alias in node.names if alias.name in STABLE}
    assert sorted(places) == STABLE
    for name, module in places.items():
        path = ROOT / module.replace(".", "/")
        held = ast.parse((path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text("utf-8")).body
        names = {node.name for node in held if isinstance(node, ast.FunctionDef | ast.ClassDef)}
        names |= {alias.name for node in held if isinstance(node, ast.ImportFrom) for alias in node.names}
        assert name in names, module


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


@pytest.mark.parametrize(
    "method",
    ["from_pretrained", "from_vision_text_pretrained", "save_pretrained", "export", "call", "compute_loss",
     "get_image_features", "get_text_features"],
)  # fmt: skip
def test_every_argument_of_the_model_is_described(method: str) -> None:
    """And what it returns is typed; the page sends nobody to a name that is not on it."""
    heading = f"\n### TFVisionTextDualEncoderModel.{method}\n"
    section = PAGE.read_text("utf-8").split(heading)[1].split("\n##")[0]
    signature, _, text = section.partition("\n```\n")
    named = re.findall(r"(?:^    |def \w+\(|, )(\*{0,2}\w+)(?=[:=])", signature, re.MULTILINE)
    assert re.findall(r"^- `([*\w]+)`: \S", text.split("**Args**")[1].split("\n**")[0], re.MULTILINE) == named
    assert "; see `" not in text
    assert method == "call" or "-> Any" not in signature  # call gives a tuple or an object, as transformers' does


@pytest.mark.parametrize("name", ["CheckpointInfo", "Conversion", "Publication", "Verification", "VerifyOptions"])
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

"""The Python in README and docs: it compiles, and what it takes from the library is there."""

from __future__ import annotations

import ast
import importlib.util
import inspect
from pathlib import Path
from typing import Any

import pytest

import converter
from tests.docs.pages import PAGES, Block, blocks, name_of

CASES = [(page, block) for page in PAGES for block in blocks(page) if block.language in ("python", "py")]
NEEDS_KERAS = "TFVisionTextDualEncoderModel"


def described(case: Any) -> str:
    return name_of(case) if isinstance(case, Path) else f"line {case.line}"


def unknown(text: str) -> list[str]:
    """Names taken from the library that it does not have, and keywords that its functions do not take."""
    tree = ast.parse(text)
    wrong = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "converter":
            home = importlib.import_module(str(node.module))
            known = {*dir(home), *getattr(home, "__all__", ())}
            wrong += [alias.name for alias in node.names if alias.name not in known]
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in converter.__all__:
            if node.func.id == NEEDS_KERAS:
                continue
            known = set(inspect.signature(getattr(converter, node.func.id)).parameters)
            wrong += [f"{node.func.id}({k.arg}=)" for k in node.keywords if k.arg and k.arg not in known]
    return wrong


def test_there_are_some() -> None:
    assert {"README.md", "docs/models.md", "docs/api.md"} <= {name_of(page) for page, _ in CASES}


@pytest.mark.parametrize(("page", "block"), CASES, ids=described)
def test_block_compiles_and_knows_the_library(page: Path, block: Block) -> None:
    compile(block.text, f"{page}:{block.line}", "exec")
    assert unknown(block.text) == []


def test_mistakes_are_found() -> None:
    assert unknown("from converter import pt2jax, pt2tf\npt2tf('a', 'b', quick=True)") == ["pt2jax", "pt2tf(quick=)"]

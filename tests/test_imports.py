"""No two modules import each other, at once or through others: not even a package and what it holds."""

from __future__ import annotations

import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    """Every import of every module, also those within functions and those for types alone."""
    return grimp.build_graph("converter", "rename_rules", cache_dir=None)


def circle(graph: grimp.ImportGraph) -> list[str]:
    """Modules each of which imports the one before it, the first again at the end; empty where there is no circle."""
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_no_two_modules_import_each_other(graph: grimp.ImportGraph) -> None:
    assert len(graph.modules) > 100
    assert circle(graph) == []


@pytest.mark.parametrize(
    ("importer", "imported"),
    [
        ("converter.parity.runners.isolation", "converter"),
        ("converter.parity.runners.options", "converter.parity.runners.torch_model"),
        ("converter.cli.printing", "converter.cli"),
        ("converter.errors", "converter.publishing.pushing"),
    ],
)
def test_a_circle_is_found(graph: grimp.ImportGraph, importer: str, imported: str) -> None:
    assert graph.chain_exists(imported, importer)
    graph.add_import(importer=importer, imported=imported)
    try:
        assert {importer, imported} <= set(circle(graph))
    finally:
        graph.remove_import(importer=importer, imported=imported)


@pytest.mark.parametrize("first", ["", "import tensorflow; "])
def test_triton_is_imported_before_tensorflow(first: str, tmp_path: Path) -> None:
    """After it, the triton that comes with PyTorch for CUDA ends the process; then it is left alone."""
    for name, text in {
        "triton": "print('triton')",
        "tensorflow": "print('tensorflow')",
        "keras": "import tensorflow",
    }.items():
        (tmp_path / f"{name}.py").write_text(text)
    code = f"{first}import sys; sys.path.insert(0, {str(ROOT)!r}); import converter, keras"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert done.stdout.split() == (["tensorflow"] if first else ["triton", "tensorflow"])

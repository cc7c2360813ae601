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


# What some conversions need, and a plain one would wait for: together more than the tensors of a small model take.
SLOW = {
    "concurrent.futures", "email", "hashlib", "importlib.metadata", "importlib.resources", "ml_dtypes", "multiprocessing",
    "secrets", "socket", "ssl", "subprocess", "tempfile", "zipfile",
}  # fmt: skip
READERS = {f"converter.checkpoints.{name}" for name in ("flax", "hdf5", "tensor_bundle", "torch_legacy", "torch_zip")}
ASKED = """
import sys
before = {*sys.modules}
from converter.cli import cli
cli(sys.argv[1:], standalone_mode=False)
print(*(sys.modules.keys() - before))
"""


@pytest.mark.parametrize(
    ("arguments", "needed"),
    [
        (["--format", "safetensors"], set[str]()),
        (["--format", "safetensors", "--no-check"], set[str]()),
        (["--format", "h5"], {"h5py", "converter.checkpoints.hdf5", "subprocess"}),  # the last by h5py
    ],
    ids=["safetensors", "safetensors, unchecked", "h5"],
)
def test_a_conversion_imports_what_it_uses(arguments: list[str], needed: set[str], tmp_path: Path) -> None:
    command = ["pt2tf", "-q", *arguments, str(ROOT / "fixtures" / "clip-bert-tiny"), str(tmp_path / "out")]
    done = subprocess.run([sys.executable, "-c", ASKED, *command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out").is_dir()
    found = set(done.stdout.split())
    assert found & READERS == needed & READERS
    assert found & SLOW == needed & SLOW
    ours = {"click", "numpy", "blake3", "converter", "rename_rules", "h5py"}
    tops = {name.partition(".")[0] for name in found if not name.startswith("_")} - {
        *sys.stdlib_module_names,
        "cython_runtime",
    }
    assert tops == ours - {"h5py"} | needed & {"h5py"}


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


def test_the_reference_runs_in_an_interpreter_that_has_not_what_conversions_need() -> None:
    """`--reference-python` names one with torch, transformers, NumPy and safetensors, and nothing of ours."""
    blocked = ("blake3", "h5py", "rich", "click", "ml_dtypes", "huggingface_hub", "tensorflow", "keras", "jax", "torch")
    modules = ("reference", "asking", "golden", "serving", "isolation", "options")
    lines = ["import sys", f"sys.modules.update(dict.fromkeys({blocked}))"]
    lines += [f"import converter.parity.runners.{name}" for name in modules]
    run = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr

"""The parity check for CI: the script as it stands, on the shipped checkpoint, and the workflow that calls it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file, save_file

from converter import record_reference
from tests.docs.pages import ROOT, blocks

pytestmark = [pytest.mark.torch, pytest.mark.tf]

SCRIPT = ROOT / "examples" / "ci" / "parity.sh"
# What the documentation promises, measured on two quiet cores, and what a busy machine is granted.
SECONDS, BUSY = 20.0, 3.0
# The check runs where torch is not installed.
WITHOUT_TORCH = """
import importlib.machinery as m
plain = m.PathFinder.find_spec
def find_spec(name, path=None, target=None):
    return None if name.split(".")[0] == "torch" else plain(name, path, target)
m.PathFinder.find_spec = staticmethod(find_spec)
"""
Check = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def golden(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a repository keeps: PyTorch's answers."""
    path = tmp_path_factory.mktemp("golden") / "golden.safetensors"
    record_reference(tiny, path)
    return path


@pytest.fixture
def check(tmp_path: Path) -> Check:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(WITHOUT_TORCH)

    def run(*arguments: Path) -> subprocess.CompletedProcess[str]:
        environment = {"PYTHONPATH": f"{tmp_path / 'site'}:{ROOT}", "CONVERT": f"{sys.executable} -m converter"}
        command = ["sh", str(SCRIPT), *map(str, arguments)]
        return subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)

    return run


def test_a_model_that_is_its_golden_reference(check: Check, tiny: Path, golden: Path, tmp_path: Path) -> None:
    started = time.perf_counter()
    done = check(tiny, golden, tmp_path / "out")
    seconds = time.perf_counter() - started
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == f"{tmp_path / 'out' / 'model'}: matches its source"
    suite = ElementTree.parse(tmp_path / "out" / "parity.xml").getroot()
    cases = list(suite.iter("testcase"))
    assert cases
    assert not list(suite.iter("failure"))
    assert (tmp_path / "out" / "parity.md").read_text().splitlines()[0].endswith(": matches its source")
    assert seconds < SECONDS * BUSY


def test_a_changed_model_fails(check: Check, tiny: Path, golden: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny, tmp_path / "model")
    tensors = load_file(tiny / "model.safetensors")
    tensors["visual_projection.weight"] = tensors["visual_projection.weight"] + np.float32(0.01)
    save_file(tensors, tmp_path / "model" / "model.safetensors", metadata={"format": "pt"})
    done = check(tmp_path / "model", golden, tmp_path / "out")
    assert done.returncode == 1, done.stderr
    suite = ElementTree.parse(tmp_path / "out" / "parity.xml").getroot()
    assert list(suite.iter("failure"))
    assert (tmp_path / "out" / "parity.md").read_text().splitlines()[0].endswith(": does NOT match its source")


def test_a_model_that_is_refused_leaves_no_report(check: Check, tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "parity.md").write_text("of an earlier run")
    done = check(tmp_path / "model", tmp_path / "golden", tmp_path / "out")
    assert done.returncode == 1
    assert done.stderr.startswith(f"convert: {tmp_path / 'model'}: ")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_golden_reference_that_was_not_pulled(check: Check, tiny: Path, tmp_path: Path) -> None:
    """As a checkout without ``lfs: true`` leaves it."""
    pointer = tmp_path / "golden.safetensors"
    pointer.write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{'a' * 64}\nsize 1465636\n")
    run = check(tiny, pointer, tmp_path / "out")
    assert run.returncode == 3
    assert run.stderr.endswith(
        f"convert: {pointer}: a Git LFS pointer, not the weights; run `git lfs pull` in its repository\n"
    )


def test_wrong_usage(check: Check, tiny: Path) -> None:
    done = check(tiny)
    assert (done.returncode, done.stderr) == (2, "usage: parity.sh MODEL GOLDEN [OUT]\n")


def test_the_workflow_calls_the_script() -> None:
    workflow = yaml.safe_load((SCRIPT.parent / "parity.yml").read_text())
    job = workflow["jobs"]["parity"]
    runs = [step["run"] for step in job["steps"] if "run" in step]
    assert runs[1] == 'sh parity.sh "$MODEL" "$GOLDEN" parity-out'
    named = {name for run in runs for name in ("CONVERTER", "MODEL", "GOLDEN") if f"${name}" in run}
    assert named == set(job["env"])
    assert [step["uses"].split("@")[0] for step in job["steps"] if "uses" in step] == [
        "actions/checkout", "actions/setup-python", "actions/upload-artifact",
    ]  # fmt: skip
    assert job["steps"][-1]["if"] == "always()"
    assert json.dumps(workflow["permissions"]) == '{"contents": "read"}'


def test_the_page_shows_both_files_as_they_are() -> None:
    page = (ROOT / "docs" / "ci.md").read_text()
    for name, language in (("parity.sh", "sh"), ("parity.yml", "yaml")):
        assert f"```{language}\n{(SCRIPT.parent / name).read_text()}```\n" in page


def test_the_page_shows_a_job_in_ten_lines() -> None:
    block, *_ = (block for block in blocks(ROOT / "docs" / "ci.md") if block.language == "yaml")
    workflow = yaml.safe_load(block.text)
    assert len(block.text.splitlines()) <= 10
    checkout, action = workflow["jobs"]["parity"]["steps"]
    assert checkout == {"uses": "actions/checkout@v4", "with": {"lfs": True}}
    source = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["urls"]["Source"]
    assert action["uses"] == f"{source.removeprefix('https://github.com/')}@main"
    assert action["with"] == {"source": "model", "reference": "golden.safetensors", "atol": "1e-4"}
    assert workflow[True] == "pull_request"  # what YAML 1.1 makes of "on"

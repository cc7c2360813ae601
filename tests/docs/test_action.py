"""action.yml, the GitHub Action: it keeps GitHub's schema, and its steps run under bash as the runner runs them."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jsonschema
import pytest
import yaml

from converter import record_reference
from tests.docs.pages import ROOT, blocks

ACTION = yaml.safe_load((ROOT / "action.yml").read_text("utf-8"))
SCHEMA = json.loads((ROOT / "fixtures" / "schemas" / "github-action.json").read_text("utf-8"))
STEPS = ACTION["runs"]["steps"]
# As GitHub's runner calls `shell: bash`.
BASH = ["bash", "--noprofile", "--norc", "-eo", "pipefail"]
# pip is called, and answers without installing anything; its arguments are kept.
PYTHON = """#!/bin/sh
case "$*" in
    "-m pip install "*) shift 3; printf '%s\\n' "$@" >>"$ASKED"; exit 0 ;;
esac
exec "{python}" "$@"
"""
Act = Callable[..., subprocess.CompletedProcess[str]]


def value(expression: str, inputs: dict[str, str]) -> str:
    """An expression of the kinds that action.yml has: names, and `a || b`."""
    known = {f"inputs.{name}": text for name, text in inputs.items()} | {"github.action_path": str(ROOT)}
    return next((known[name] for name in expression.split(" || ") if known[name]), "")


def substituted(text: str, inputs: dict[str, str]) -> str:
    return re.sub(r"\$\{\{ (.*?) \}\}", lambda found: value(found[1], inputs), text)


@pytest.fixture
def act(tmp_path: Path) -> Act:
    """Runs the steps of the action, up to the first that fails."""
    programs = {
        "python": PYTHON.format(python=sys.executable),
        "dual-encoder-converter": f'#!/bin/sh\nexec "{sys.executable}" -m converter "$@"\n',
    }
    (tmp_path / "summary").touch()
    (tmp_path / "bin").mkdir()
    for name, text in programs.items():
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o700 | stat.S_IXUSR)

    def run(**given: str) -> subprocess.CompletedProcess[str]:
        unknown = given.keys() - {name.replace("-", "_") for name in ACTION["inputs"]}
        assert not unknown, unknown
        inputs = {
            name: given.get(name.replace("-", "_"), str(held.get("default", "")))
            for name, held in ACTION["inputs"].items()
        }
        for number, step in enumerate(step for step in STEPS if "run" in step):
            script = tmp_path / f"step{number}.sh"
            script.write_text(substituted(step["run"], inputs))
            environment = {name: substituted(text, inputs) for name, text in step.get("env", {}).items()}
            done = subprocess.run(
                [*BASH, str(script)],
                cwd=tmp_path,
                env=os.environ
                | environment
                | {
                    "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT),
                    "ASKED": str(tmp_path / "asked"), "GITHUB_ACTIONS": "true",
                    "GITHUB_STEP_SUMMARY": str(tmp_path / "summary"),
                },
                capture_output=True, text=True, check=False,
            )  # fmt: skip
            if done.returncode:
                break
        return done

    return run


def test_it_keeps_the_schema_of_github() -> None:
    validator = jsonschema.validators.validator_for(SCHEMA)(SCHEMA)
    assert [error.message for error in validator.iter_errors(ACTION)] == []
    without = ACTION | {"runs": {"using": "composite", "steps": [{"run": "true"}]}}
    assert list(validator.iter_errors(without)), "a step of a composite action has to name its shell"


def test_no_input_is_pasted_into_a_script() -> None:
    """An input that is a script would run: inputs reach a script by its environment."""
    assert [step["name"] for step in STEPS if "${{" in step.get("run", "")] == []
    used = set(re.findall(r"inputs\.([\w-]+)", (ROOT / "action.yml").read_text("utf-8")))
    assert used == set(ACTION["inputs"])


def test_the_page_lists_its_inputs_and_defaults() -> None:
    page = (ROOT / "docs" / "ci.md").read_text("utf-8").split("| input | meaning | default |")[1].split("\n\n")[0]
    rows = dict(re.findall(r"^\| `([\w-]+)` \| .* \| (.*?) ?\|$", page, re.MULTILINE))
    assert list(rows) == list(ACTION["inputs"])
    said = {name: text.strip("`") for name, text in rows.items() if name != "package"}
    assert said == {name: held.get("default", "") for name, held in ACTION["inputs"].items() if name != "package"}
    job, *_ = (yaml.safe_load(block.text) for block in blocks(ROOT / "docs" / "ci.md") if block.language == "yaml")
    _, step = job["jobs"]["parity"]["steps"]
    assert set(step["with"]) <= set(ACTION["inputs"])
    assert {name for name, held in ACTION["inputs"].items() if held.get("required")} <= set(step["with"])


def test_there_and_back_without_a_framework(act: Act, tiny: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny, tmp_path / "model")
    done = act(source="model", out="tf", options="--format safetensors --max-shard-size 100KB")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "asked").read_text().split("\n") == [str(ROOT), ""]
    assert len(list((tmp_path / "tf").glob("model-*.safetensors"))) > 1
    assert list(ElementTree.parse(tmp_path / "parity-out" / "parity.xml").iter("testcase"))
    assert "matches its source" in (tmp_path / "parity-out" / "parity.md").read_text()
    assert (tmp_path / "summary").read_text()
    assert act(source="tf", out="a flax folder", direction="flax").returncode == 0
    assert (tmp_path / "a flax folder" / "flax_model.msgpack").is_file()


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        ({}, f"{ROOT}[tf]"),
        ({"extras": ""}, str(ROOT)),
        ({"package": "dist/a.whl", "extras": "tf,torch"}, "dist/a.whl[tf,torch]"),
        ({"package": "git+https://a.b/c"}, "dual-encoder-converter[tf] @ git+https://a.b/c"),
    ],
)
def test_what_pip_is_asked_for(act: Act, tmp_path: Path, given: dict[str, str], asked: str) -> None:
    assert act(source="none-there/", reference="golden", **given).returncode == 1
    assert (tmp_path / "asked").read_text() == f"{asked}\n"


@pytest.mark.parametrize(
    ("given", "status", "said"),
    [
        ({"source": "./none"}, 1, "convert: none: not found; "),
        (
            {"source": "model", "direction": "sideways"},
            2,
            "direction is 'sideways', expected pt2tf, tf2pt, pt, tf or flax",
        ),
        ({"source": "$(touch run)", "direction": "tf"}, 1, "convert: $(touch run): "),
        ({"source": "model", "direction": "pt2tf; touch run"}, 2, "direction is 'pt2tf; touch run'"),
    ],
)
def test_a_failure_fails_the_job(act: Act, tmp_path: Path, given: dict[str, Any], status: int, said: str) -> None:
    done = act(**given)
    assert (done.returncode, said in done.stderr) == (status, True), done.stderr
    assert not (tmp_path / "parity-out").exists()
    assert not (tmp_path / "run").exists()


@pytest.mark.torch
@pytest.mark.tf
def test_a_reference_is_compared(act: Act, tiny: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny, tmp_path / "model")
    record_reference(tiny, tmp_path / "golden.safetensors")
    assert act(source="model", reference="golden.safetensors").returncode == 0
    assert "outputs" in (tmp_path / "parity-out" / "parity.md").read_text()
    done = act(source="model", reference="golden.safetensors", atol="1e-12")
    assert done.returncode == 1
    assert "does NOT match its source" in (tmp_path / "parity-out" / "parity.md").read_text()

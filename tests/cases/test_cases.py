"""What people bring: the outcome of every folder is the one in fixtures/cases/outcomes.toml, and its next step works."""

from __future__ import annotations

import shlex
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from converter import ConverterError, combine, pt2tf, tf2pt
from converter.cli import cli
from converter.errors import listed, quoted
from converter.names.families import families
from converter.names.rule_files import supported
from tests.cases.conftest import CASES
from tests.tiny import assert_same, load

OUTCOMES: dict[str, dict[str, Any]] = {
    case["folder"]: case for case in tomllib.loads((CASES / "outcomes.toml").read_text("utf-8"))["case"]
}
CONVERTED = [folder for folder, case in OUTCOMES.items() if case["outcome"] == "converts"]
REFUSED = [folder for folder, case in OUTCOMES.items() if case["outcome"] == "refused"]
SUPPORTED = {
    "{families}": listed(tuple(families())),
    "{vision}": ", ".join(supported("vision")),
    "{text}": ", ".join(supported("text")),
}
# Rows of text in a terminal of 240 columns, paths left aside.
LONGEST = 3 * 240


def convert(cases: Path, folder: str, out: Path) -> Any:
    """As the command of a case says."""
    command: Callable[..., Any] = {"pt2tf": pt2tf, "tf2pt": tf2pt, "--config": pt2tf}[OUTCOMES[folder]["command"]]
    if OUTCOMES[folder]["command"] == "--config":
        return command(cases / "accelerate_state", out, config=cases / folder / "config.json")
    return command(cases / folder, out)


def filled(template: str, cases: Path, folder: str) -> str:
    """The text in the table, with the paths of this run, each as one word for a shell."""
    parts = []
    for word in template.split(" "):
        path = word.replace("{case}", str(cases / folder)).replace("{cases}", str(cases))
        parts.append(word if path == word else quoted(path))
    return " ".join(parts)


def test_every_case_has_an_outcome(cases: Path) -> None:
    folders = {path.name for path in cases.iterdir() if path.name != "config"}
    assert folders | {f"config/{path.name}" for path in (cases / "config").iterdir()} == set(OUTCOMES)
    assert len(OUTCOMES) == len(CONVERTED) + len(REFUSED) > 140
    assert sum(path.stat().st_size for path in CASES.rglob("*") if path.is_file()) < 4_500_000


@pytest.mark.parametrize("folder", CONVERTED)
def test_what_is_converted(folder: str, cases: Path, tmp_path: Path) -> None:
    done, case = convert(cases, folder, tmp_path / "out"), OUTCOMES[folder]
    assert done.checked
    assert (done.tensors, dict(done.dialects)) == (case["tensors"], case["dialects"])
    assert {item.name: item.reason for item in done.dropped} == case.get("dropped", {})
    assert [change for change in done.config_rewritten if "logit_scale_init" not in change] == case.get("rewritten", [])
    if case["command"] == "tf2pt" and done.tensors == 81:  # made from the same weights
        assert_same(load(tmp_path / "out" / "model.safetensors"), load(cases / "base4" / "model.safetensors"))


@pytest.mark.parametrize("folder", REFUSED)
def test_what_is_refused(folder: str, cases: Path, tmp_path: Path) -> None:
    with pytest.raises(ConverterError) as caught:
        convert(cases, folder, tmp_path / "out")
    said = OUTCOMES[folder]["says"]
    told = said.replace("{case}", str(cases / folder)).replace("{cases}", str(cases))
    for name, values in SUPPORTED.items():
        told = told.replace(name, values)
    assert unquoted(str(caught.value), cases) == told
    assert len(said) < LONGEST
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("folder", [folder for folder in REFUSED if "next" in OUTCOMES[folder]])
def test_the_command_of_a_message_converts(folder: str, cases: Path, tmp_path: Path) -> None:
    with pytest.raises(ConverterError) as caught:
        convert(cases, folder, tmp_path / "out")
    command = filled(OUTCOMES[folder]["next"], cases, folder)
    named = shlex.split(command)[2]
    if "another name" in str(caught.value) or "name one of them" in str(caught.value):
        assert quoted(named) in str(caught.value)
    program, *words = shlex.split(command)
    assert program == "convert"
    done = CliRunner().invoke(cli, [str(tmp_path / "ö ut") if word == "OUT" else word for word in words])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "ö ut" / "conversion.json").exists()


def unquoted(message: str, cases: Path) -> str:
    """A message with its paths as they are, not as a shell takes them."""
    inside = str(cases).replace("'", "'\"'\"'")
    parts = message.split(f"'{inside}")
    return parts[0] + "".join(str(cases) + part.replace("'", "", 1) for part in parts[1:])


@pytest.mark.parametrize("text", ["tf_bert_mlm", "tied_save_model"])
def test_towers_with_tied_weights_are_joined(text: str, cases: Path, tmp_path: Path) -> None:
    done = combine(cases / "vit_cls", cases / text, tmp_path / "out")
    assert not any("word_embeddings" in name for name in done.made_new)
    assert done.tensors == 82

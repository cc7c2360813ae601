"""What --json prints, results and errors of every command: one object, as its schema in docs has it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from converter import errors
from converter.cli import cli
from converter.conversion import engine
from converter.errors import ConverterError, ParityError, next_step
from converter.parity.reports import files
from tests.cli.conftest import Convert
from tests.cli.schemas import DOCS, RESULTS, schema, validated
from tests.tiny import BFLOAT16, config_of, tensors_of, write_checkpoint

COMMANDS = sorted(cli.commands)
# What version 0.1 wrote, and the type: scripts hold on to these.
KEYS_OF_0_1: dict[str, dict[str, Any]] = {
    "conversion": {
        "direction": str, "source": str, "commit": (str, type(None)), "out": str, "container": str, "weights": str,
        "towers": list, "tensors": int, "parameters": int, "nbytes": int, "dialects": dict, "casts": dict,
        "overflowed": dict, "dropped": list, "restored": list, "made_new": list, "config_rewritten": list,
        "config_unknown": list, "files": list, "checked": bool, "dry_run": bool, "seconds": float,
    },
    "inspection": {
        "source": str, "commit": (str, type(None)), "framework": str, "container": str, "files": dict, "metadata": dict,
        "tensors": int, "parameters": dict, "dtypes": dict, "dialects": dict, "towers": dict, "config_unknown": list,
        "dropped": dict, "restored": list, "problem": (str, type(None)), "nbytes": int,
    },
    "report": {"folder": str, "passed": bool, "findings": list, "report": (dict, type(None))},
    "publication": {
        "repository": str, "action": str, "revision": str, "creates": bool, "changes": list, "title": str,
        "description": str, "card_diff": str, "verified": bool, "url": str, "commit": (str, type(None)), "dry_run": bool,
    },
}  # fmt: skip


@pytest.fixture
def made(convert: Convert, here: Path) -> Path:
    """The fixture as ``src``, converted as ``tf``; and ``odd``, whose conversion casts, drops and rebuilds."""
    assert convert("pt2tf", "src", "tf", "--quiet").status == 0
    config = config_of("swin", fields={"zeta": 1})
    write_checkpoint(
        here / "odd", config, tensors_of(config, BFLOAT16) | {"text_model.embeddings.position_ids": np.arange(41)[None]}
    )
    return here


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        ("pt2tf src out", 0),
        ("pt2tf src out --no-check --max-shard-size 200KB", 0),
        ("pt2tf src out --dry-run", 0),
        ("pt2tf src tf --dry-run --overwrite", 0),
        ("pt2tf src tf --overwrite", 0),
        ("pt2tf odd out", 0),
        ("tf2pt tf out --format bin", 0),
        ("to flax src out", 0),
        ("to pt odd out --format bin --names v5", 0),
        ("combine src src out", 0),
        ("combine src odd out --to tf", 0),
        ("inspect src", 0),
        ("towers", 0),
        ("towers --markdown", 0),
        ("inspect tf", 0),
        ("inspect odd", 0),
        ("inspect src --config tf/conversion.json", 0),
        ("verify tf --weights-only", 0),
        ("verify tf --weights-only --reference src", 0),
        ("verify tf --weights-only --reference odd", 1),
    ],
)
def test_results(convert: Convert, made: Path, arguments: str, status: int) -> None:
    command, *others = arguments.split()
    run = convert(command, *others, "--json")
    assert (run.status, run.err) == (status, "")
    kind = RESULTS[command]
    found = validated(run.out, kind)
    for key, of in KEYS_OF_0_1.get(kind, {}).items():
        assert isinstance(found[key], of), key
    if kind in ("conversion", "inspection"):
        assert [sorted(one) for one in found["dropped_tensors"]] == [["name", "reason"]] * len(found["dropped"])
        assert {one["name"] for one in found["file_records"]} >= set(found["files"] if kind == "inspection" else ())
    before = convert(command, *others, "--json", "--quiet").out  # the same, as far as it goes: OUT is there by now
    assert json.loads(before)["format"] == 1


@pytest.mark.torch
def test_a_recording(convert: Convert, made: Path) -> None:
    run = convert("reference", "src", "-o", "golden.safetensors", "--json")
    assert run.status == 0
    found = validated(run.out, "recording")
    assert (found["source"], found["out"]) == ("src", "golden.safetensors")
    assert {"pixel_values", "input_ids"} <= set(found["batches"][0]["inputs"])


def test_every_command_has_a_schema() -> None:
    assert sorted(RESULTS) == COMMANDS
    names = {path.name.removesuffix(".schema.json") for path in DOCS.glob("*.schema.json")}
    assert names == {*RESULTS.values(), "error", "export-verification", "ledger"}
    for name in names:
        assert schema(name)["properties"]["format"]["const"] == 1
        with pytest.raises(jsonschema.ValidationError):
            validated("{}", name)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    "wrong",
    [("--nonsense",), (), ("a", "b", "c", "d", "e"), ("--quiet", "--verbose")],
    ids=["option", "missing", "surplus", "contradiction"],
)
def test_a_wrong_command_line(convert: Convert, here: Path, command: str, wrong: tuple[str, ...]) -> None:
    run = convert(command, "--json", *wrong)
    if command == "verify" and not wrong:  # which verifies the current folder
        assert validated(run.out, "error")["error"]["exit_status"] == run.status == 3
        return
    if command == "towers" and not wrong:  # which takes no argument
        assert (run.status, validated(run.out, "towers")["format"]) == (0, 1)
        return
    assert run.status == 2
    assert run.err.startswith(f"Usage: convert {command}")
    error = validated(run.out, "error")["error"]
    assert (error["kind"], error["exit_status"]) == ("UsageError", 2)
    assert error["message"] in run.err
    assert error["next"] == f"convert {command} --help lists the options"
    assert run == convert("--json", command, *wrong)


REFUSED = {
    "pt2tf": ("./none", "out"),
    "tf2pt": ("src", "out"),
    "to": ("tf", "./none", "out"),
    "combine": ("./none", "./none", "out"),
    "fleet": ("./none", "out"),
    "inspect": ("./none",),
    "verify": ("./none",),
    "reference": ("./none", "-o", "golden.safetensors"),
    "push": ("./none", "me/it"),
    "export": ("./none", "out"),
}


@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "towers"])  # which nothing is asked of
def test_a_refusal(convert: Convert, here: Path, command: str) -> None:
    run = convert(command, *REFUSED[command], "--json")
    error = validated(run.out, "error")["error"]
    assert error["exit_status"] == run.status == {"verify": 3, "fleet": 2}.get(command, 1)
    assert issubclass(getattr(errors, error["kind"]), ConverterError)
    assert run.err == f"convert: {error['message']}\n"
    assert error["next"]
    assert error["message"].endswith(error["next"])
    assert convert(command, *REFUSED[command]) == (run.status, "", run.err)


@pytest.mark.parametrize("arguments", [("--json",), ("--json", "bad"), ("bad", "--json")])
def test_no_command(convert: Convert, arguments: tuple[str, ...]) -> None:
    run = convert(*arguments)
    assert validated(run.out, "error")["error"]["exit_status"] == run.status == 2


def test_an_option_that_makes_no_sense(convert: Convert, made: Path) -> None:
    run = convert("verify", "tf", "--seconds", "-1", "--json")
    error = validated(run.out, "error")["error"]
    assert (error["kind"], error["exit_status"], run.status) == ("OptionError", 2, 2)


@pytest.mark.parametrize(
    ("raised", "kind", "status"),
    [(MemoryError(), "MemoryError", 1), (KeyboardInterrupt(), "Interrupted", 130)],
)
def test_other_ends(
    convert: Convert, here: Path, monkeypatch: pytest.MonkeyPatch, raised: BaseException, kind: str, status: int
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise raised

    monkeypatch.setattr(engine, "pt2tf", refuse)
    run = convert("pt2tf", "src", "out", "--json")
    error = validated(run.out, "error")["error"]
    assert (error["kind"], error["exit_status"], run.status) == (kind, status, status)
    assert run.err == f"convert: {error['message']}\n"


def test_a_bug_is_an_object_and_a_traceback(
    convert: Convert, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("ours")

    monkeypatch.setattr(engine, "pt2tf", broken)
    with pytest.raises(ZeroDivisionError, match="ours"):
        convert("pt2tf", "src", "out", "--json")
    assert validated(capsys.readouterr().out, "error")["error"]["kind"] == "ZeroDivisionError"


def test_one_object_whatever_fails_after_it(convert: Convert, made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A report that cannot be written: the verdict is on stdout, the error in the status and on stderr."""

    def refuse(*_: object) -> None:
        raise ParityError("report.md: cannot write the report: No space left on device")

    monkeypatch.setattr(files, "write_report", refuse)
    run = convert("verify", "tf", "--weights-only", "--report", "report.md", "--json")
    assert validated(run.out, "report")["passed"]
    assert (run.status, run.err) == (3, "convert: report.md: cannot write the report: No space left on device\n")


@pytest.mark.parametrize(
    ("message", "step"),
    [
        ("x: not found; name another", "name another"),
        ("x: not found; or it is; name another", "name another"),
        ("x: not found. Name another", "Name another"),
        ("x: not found (a; b); name it `a; b` [c; d]", "name it `a; b` [c; d]"),
        ("x: not found", ""),
        ("tf_model.h5: one. two; run `a.b; c`", "run `a.b; c`"),
    ],
)
def test_the_next_step_is_the_end_of_a_message(message: str, step: str) -> None:
    assert next_step(message) == ConverterError(message).next_step == step

"""Exit status and stderr: 0 done, 1 refused in one line, 2 wrong usage, 130 interrupted; bugs keep their traceback.

``verify`` has 1 for a difference alone, and 3 where it could not check.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from converter.conversion import engine, planning
from converter.errors import ParityError, TargetError
from converter.parity.reports import files
from tests.cli.conftest import Convert


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("pt2tf", "./none", "out"),
            "none: not found; name a folder that save_pretrained wrote, or a weights file in one",
        ),
        (("inspect", "./none"), "none: not found; name a folder that save_pretrained wrote, or a weights file in one"),
        (
            ("inspect", "none"),
            "none: not a file or folder here, nor complete in the Hub's cache, and HF_HUB_OFFLINE is set; correct the "
            "name, or unset HF_HUB_OFFLINE once to download it",
        ),
        (
            ("tf2pt", "src", "out"),
            "src: holds PyTorch weights, expected TensorFlow; use `convert pt2tf`",
        ),
        (("pt2tf", "src", "src/out"), "src/out: lies inside the source {here}/src; choose a folder beside it"),
        (
            ("pt2tf", "src", "out", "--dtype", "bfloat16"),
            "HDF5 has no bfloat16; choose another dtype, or format safetensors",
        ),
        (
            ("pt2tf", "src", "there"),
            "there: exists already; choose another folder, or replace its checkpoint with --overwrite",
        ),
    ],
)
def test_refused(convert: Convert, here: Path, arguments: tuple[str, ...], message: str) -> None:
    (here / "there").mkdir()
    before = sorted(here.rglob("*"))
    assert convert(*arguments) == (1, "", f"convert: {message.format(here=here)}\n")
    assert sorted(here.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("bad",), "Error: No such command 'bad'.\n"),
        (("pt2tf", "src"), "Error: Missing argument 'OUT'.\n"),
        (("pt2tf", "src", "out", "more"), "Error: Got unexpected extra argument (more)\n"),
        (("pt2tf", "src", "out", "--nonsense"), "--nonsense"),
        (
            ("pt2tf", "src", "out", "--dtype", "int8"),
            "Error: Invalid value for '--dtype': 'int8' is not one of 'keep', 'float32', 'float16', 'bfloat16'.\n",
        ),
        (
            ("tf2pt", "src", "out", "--format", "h5"),
            "Error: Invalid value for '--format': 'h5' is not ",
        ),
        (("pt2tf", "src", "out", "--names", "v5"), "--names"),
        (
            ("pt2tf", "src", "out", "--max-shard-size", "5XB"),
            "Error: Invalid value for '--max-shard-size': a shard size looks like 5GB, 200MB or 1GiB, found '5XB'\n",
        ),
    ],
)
def test_wrong_usage(convert: Convert, here: Path, arguments: tuple[str, ...], message: str) -> None:
    run = convert(*arguments)
    assert run.status == 2
    assert run.out == ""
    assert run.err.startswith("Usage: convert ")
    assert message in run.err.splitlines(keepends=True)[-1]
    assert [path.name for path in here.iterdir()] == ["src"]


def test_verify_where_nothing_was_converted(convert: Convert, here: Path) -> None:
    run = convert("verify")
    assert (run.status, run.out) == (3, "")
    assert run.err == "convert: .: holds no conversion.json and no weights; name the folder that a conversion made\n"


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        (("--device", "tpu"), 2, "device is tpu, expected auto, cpu, cuda or cuda:<number>"),
        (("--seconds", "-1"), 2, "seconds is -1.0; give a finite number above 0"),
        (("--atol", "nan"), 2, "atol is nan; give a finite number of 0 or more"),
        (("--texts", "none.txt"), 2, "none.txt: cannot be read: No such file or directory; name another file"),
        (("--report", "tf/report.doc"), 2, "tf/report.doc: a report's name ends in .json, .md, .html, .xml, .txt; choose"
         " one of them"),
        (("--reference", "./none"), 3, "./none: not found; name the source's folder or a golden reference file"),
    ],
)  # fmt: skip
def test_no_verdict_is_no_difference(
    convert: Convert, here: Path, options: tuple[str, ...], status: int, message: str
) -> None:
    convert("pt2tf", "src", "tf", "--quiet")
    run = convert("verify", "tf", *options)
    assert (run.status, run.out) == (status, "")
    assert run.err.splitlines()[-1] == f"convert: {message}"
    assert not (here / "tf" / "parity.json").exists()


def test_verify_has_a_status_per_verdict(convert: Convert, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    convert("pt2tf", "src", "tf", "--quiet")
    assert convert("verify", "tf", "--weights-only").status == 0
    monkeypatch.setenv("COLUMNS", "100")
    shutil.move(here / "src", here / "gone")
    run = convert("verify", "tf", "--report", "report.xml")
    assert run.status == 3
    assert run.out.splitlines()[0] == "tf: not checked"
    assert 'errors="1"' in (here / "report.xml").read_text()
    (here / "tf" / "config.json").write_text("{}")
    assert convert("verify", "tf").status == 1


def test_frameworks_that_are_missing_are_named_with_their_extras(
    convert: Convert, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "path").mkdir()
    for name in ("torch", "keras", "tensorflow", "transformers"):
        (here / "path" / f"{name}.py").write_text(f"raise ModuleNotFoundError({f'No module named {name!r}'!r})")
    monkeypatch.setenv("PYTHONPATH", str(here / "path"))
    convert("pt2tf", "src", "tf", "--quiet")
    run = convert("verify", "tf")
    assert run.status == 3
    lines = [" ".join(line.split()) for line in run.out.splitlines()]
    said = {line.partition("; ")[2] for line in lines if "cannot be started: No module named" in line}
    assert said == {
        "pip install 'dual-encoder-converter[torch]', or name the interpreter of an environment that has torch and "
        "transformers (--reference-python)",
        "pip install 'dual-encoder-converter[tf]'",
    }
    assert lines[0] == "tf: not checked"
    assert not (here / "tf" / "parity.json").exists()


def test_a_report_that_cannot_be_written_does_not_hide_a_difference(
    convert: Convert, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise ParityError("report.md: cannot write the report: No space left on device")

    monkeypatch.setattr(files, "write_report", refuse)
    convert("pt2tf", "src", "tf", "--quiet")
    arguments = ("verify", "tf", "--weights-only", "--report", "report.md")
    run = convert(*arguments)
    assert (run.status, run.err.splitlines()[-1]) == (
        3, "convert: report.md: cannot write the report: No space left on device"
    )  # fmt: skip
    (here / "tf" / "config.json").write_text("{}")
    assert convert(*arguments).status == 1


def test_nothing_asked_for(convert: Convert) -> None:
    run = convert()
    assert (run.status, run.out) == (2, "")
    assert run.err == convert("--help").out


def test_a_bug_keeps_its_traceback(convert: Convert, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("ours")

    monkeypatch.setattr(engine, "pt2tf", broken)
    with pytest.raises(ZeroDivisionError, match="ours"):
        convert("pt2tf", "src", "out")


def test_every_error_is_one_line(convert: Convert, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise TargetError("no")

    monkeypatch.setattr(engine, "pt2tf", refuse)
    assert convert("pt2tf", "src", "out") == (1, "", "convert: no\n")


def test_interrupted(convert: Convert, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(engine, "pt2tf", interrupt)
    assert convert("pt2tf", "src", "out") == (130, "", "convert: interrupted; nothing half-made was left behind\n")


def run_module(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "converter", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, **options)


def test_the_module_is_the_program(here: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(Path(engine.__file__).parents[2])}
    run = run_module("pt2tf", "src", "tf", env=environment, cwd=here)
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.startswith("src -> tf/tf_model.h5: matches its source bit for bit\n")
    run = run_module("pt2tf", "src", "tf", env=environment, cwd=here)
    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr == (
        "convert: tf: exists already; choose another folder, or replace its checkpoint with --overwrite\n"
    )
    assert run_module("pt2tf", env=environment, cwd=here).returncode == 2


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_standard_streams_that_are_closed(here: Path, closed: str) -> None:
    """Files that are opened would get their numbers, and what is said be written into them."""
    environment = os.environ | {"PYTHONPATH": str(Path(engine.__file__).parents[2])}
    program = [sys.executable, "-m", "converter"]
    for words, status in (
        (("pt2tf", "src", "tf"), 0),
        (("pt2tf", "src", "tf"), 1),
        (("verify", "tf", "--weights-only"), 0),
    ):
        command = ["bash", "-c", f'"$@" {closed}', "bash", *program, *words]
        run = subprocess.run(command, capture_output=True, text=True, check=False, cwd=here, env=environment)
        assert run.returncode == status, run.stderr
        assert run.stderr == "" or (status == 1 and run.stderr.count("\n") == 1)


def test_too_little_memory(convert: Convert, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def ask_for_too_much(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(planning, "make_plan", ask_for_too_much)
    assert convert("pt2tf", "src", "out") == (
        1, "", "convert: this machine has too little memory; use one with more\n"
    )  # fmt: skip


# Stops in the middle of a conversion until somebody interrupts it.
SLOW = """
import sys, time
from converter.conversion import writing
real = writing.copy_sidecars
def wait(*arguments, **options):
    print("waiting", flush=True)
    time.sleep(60)
writing.copy_sidecars = wait
from converter.cli import main
main()
"""


@pytest.mark.parametrize(
    ("number", "status", "said"),
    [
        (signal.SIGINT, 130, "convert: interrupted; nothing half-made was left behind\n"),
        (signal.SIGTERM, 143, ""),
        (signal.SIGKILL, -9, ""),
    ],
)
def test_signals(here: Path, number: signal.Signals, status: int, said: str) -> None:
    environment = os.environ | {"PYTHONPATH": str(Path(engine.__file__).parents[2])}
    command = [sys.executable, "-c", SLOW, "pt2tf", "src", "out"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, cwd=here, env=environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "waiting\n"
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (status, "", said)
    leftovers = [path.name for path in here.iterdir() if path.name != "src"]
    assert not (here / "out").exists()
    assert len(leftovers) == (1 if number == signal.SIGKILL else 0)
    assert all(name.startswith(".out.partial-") for name in leftovers)


def test_help_is_quick() -> None:
    """0.15 s is promised; a machine that is busy gets a second."""
    started = time.perf_counter()
    assert run_module("--help").returncode == 0
    assert time.perf_counter() - started < 1


@pytest.mark.parametrize("given", [None, "3"])
def test_numpy_starts_no_threads_and_what_a_command_starts_is_not_told_of_it(given: str | None) -> None:
    program = """
import os, sys
from converter import cli
import click
@cli.cli.command()
def probe():
    threads = len(os.listdir("/proc/self/task")) if os.path.isdir("/proc/self/task") else 1
    print("numpy" in sys.modules, os.environ.get("OPENBLAS_NUM_THREADS"), threads)
print("numpy" in sys.modules)
cli.cli(["probe"])
"""
    environment = {name: value for name, value in os.environ.items() if name != "OPENBLAS_NUM_THREADS"}
    environment |= {} if given is None else {"OPENBLAS_NUM_THREADS": given}
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)
    assert run.stdout.split()[:3] == ["False", str(given is None), str(given)]
    assert given is not None or run.stdout.split()[3] == "1"

"""How much is said, and in which colours: -q, -v, -V, NO_COLOR, FORCE_COLOR, on the program and on every command."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest

from converter.cli import cli
from converter.cli.colours import coloured
from converter.cli.voice import in_colour
from tests.cli.conftest import Convert

COMMANDS = sorted(cli.commands)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_takes_them(convert: Convert, command: str) -> None:
    for version in ("-V", "--version"):
        said = convert(version)
        assert said.status == 0
        assert re.fullmatch(r"convert, version \d\S+\n", said.out)
        assert convert(command, version) == convert(version, command) == said
    shown = convert(command, "--help").out
    for flag in ("-q, --quiet", "-v, --verbose", "-V, --version", "--json"):
        assert flag in shown
        assert flag in convert("--help").out


@pytest.mark.parametrize("flag", ["-q", "--quiet"])
def test_quiet_says_errors_alone(convert: Convert, here: Path, flag: str) -> None:
    assert convert(flag, "pt2tf", "src", "tf") == (0, "", "")
    for words in (
        ("pt2tf", "src", "tf2"),
        ("inspect", "src"),
        ("verify", "tf", "--weights-only"),
        ("combine", "src", "src", "c"),
    ):
        assert convert(*words, flag) == (0, "", ""), words
    (here / "tf" / "config.json").write_text("{}")
    assert convert("verify", "tf", "--weights-only", flag) == (1, "", "")
    run = convert("pt2tf", "src", "tf", flag)
    assert (run.status, run.out) == (1, "")
    assert run.err.startswith("convert: tf: exists already; ")


@pytest.mark.parametrize("words", [("-v", "pt2tf", "src", "tf"), ("pt2tf", "src", "tf", "--verbose")])
def test_verbose_has_tables_and_each_step(convert: Convert, here: Path, words: tuple[str, ...]) -> None:
    run = convert(*words)
    assert run.out.splitlines()[0] == "src -> tf/tf_model.h5: matches its source bit for bit"
    assert "    1  visual_projection.weight -> visual_projection/kernel  [dense]" in run.out.splitlines()
    steps = run.err.splitlines()
    assert steps[0] == "convert: pt2tf src -> tf: clip_vision_model + bert, 97 tensors"
    assert re.fullmatch(r"convert: tf: [\d,]+ bytes in [\d.]+ s", steps[1])
    assert convert("inspect", "src").err == "", "the next command is as quiet as ever"


def test_the_verdict_is_first(convert: Convert, here: Path) -> None:
    assert convert("pt2tf", "src", "tf").out.startswith("src -> tf/tf_model.h5: matches its source bit for bit\n")
    assert convert("inspect", "tf").out.startswith("tf: can be converted\n")
    assert convert("verify", "tf", "--weights-only").out.startswith("tf: matches its source (weights only)\n")
    (here / "tf" / "config.json").write_text("{}")
    assert convert("inspect", "tf").out.startswith("tf: CANNOT be converted: tf/config.json: ")
    assert convert("verify", "tf", "--weights-only").out.startswith("tf: does NOT match its source (weights only)\n")


@pytest.mark.parametrize(
    ("environment", "file", "terminal"),
    [
        ({}, False, True),
        ({"NO_COLOR": "1"}, False, False),
        ({"NO_COLOR": ""}, False, True),
        ({"FORCE_COLOR": "1"}, True, True),
        ({"FORCE_COLOR": "", "TERM": "dumb"}, False, False),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False, False),
    ],
)
def test_colours(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], file: bool, terminal: bool) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert (in_colour(io.StringIO()), in_colour(Terminal()), in_colour(None)) == (file, terminal, file)


@pytest.mark.parametrize("command", ["inspect", "verify", "pt2tf"])
def test_colours_are_all_that_a_terminal_adds(
    convert: Convert, here: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    convert("pt2tf", "src", "tf")
    arguments = {"inspect": ("src",), "verify": ("tf", "--weights-only"), "pt2tf": ("src", "new", "--dry-run")}[command]
    bare = convert(command, *arguments)
    assert "\x1b" not in bare.out + bare.err
    monkeypatch.setenv("FORCE_COLOR", "1")
    run = convert(command, *arguments)
    first, *others = run.out.splitlines()
    assert first == f"\x1b[32m\x1b[1m{bare.out.splitlines()[0]}\x1b[0m"
    assert [re.sub(r"\x1b\[\d+m", "", line) for line in others] == bare.out.splitlines()[1:]
    assert any("\x1b" in line for line in others)
    assert "\x1b" not in convert(command, *arguments, "--json").out
    assert convert(command, "./none", "x").err.startswith(("\x1b[31m\x1b[1mconvert:\x1b[0m ", "Usage"))
    monkeypatch.setenv("NO_COLOR", "1")
    assert convert(command, *arguments) == bare


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("next: convert verify tf", "<cyan>next:</> convert verify tf"),
        ("  vision  bert  ██░░   50%", "  <bold>vision</>  bert  <cyan>██</><dim>░░</>   50%"),
        ("  vision tower  ▁▃✗✗  first over", "  <bold>vision</> tower  <cyan>▁▃</><red>✗✗</>  first over"),
        ("  weights  passed (3 compared)", "  weights  <green>passed</> (3 compared)"),
        ("  files    failed", "  files    <red>failed</>"),
        ("  samples  not checked", "  samples  <yellow>not checked</>"),
        ("  passed: a name with failed and next: in it", "  passed: a name with failed and next: in it"),
    ],
)
def test_a_word_is_coloured_where_the_program_prints_it(line: str, shown: str) -> None:
    """And not in a name from a file, wherever that stands."""
    made = coloured(line).replace("\x1b[36m\x1b[1m", "\x1b[36m").replace("\x1b[0m", "</>")
    for name, code in {"cyan": 36, "bold": 1, "dim": 2, "red": 31, "green": 32, "yellow": 33}.items():
        made = made.replace(f"\x1b[{code}m", f"<{name}>")
    assert made == shown

"""Help is complete: every command has an example, every option a text; what it says is what it does."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from converter.cli import cli
from converter.specs import FRAMEWORKS
from tests.cli.conftest import Convert

COMMANDS = sorted(cli.commands)


def test_commands() -> None:
    assert {"pt2tf", "tf2pt", "inspect"} <= set(COMMANDS)


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_of_the_program(convert: Convert, flag: str) -> None:
    run = convert(flag)
    assert (run.status, run.err) == (0, "")
    assert "Example: convert pt2tf clip-italian/ clip-italian-tf/" in run.out
    listed = run.out.split("\nCommands:\n")[1].split("\n\n")[0].splitlines()
    assert [line.split()[0] for line in listed] == list(cli.commands)
    assert all(line.endswith(".") and not line.endswith("...") for line in listed)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_each_command(convert: Convert, name: str) -> None:
    run = convert(name, "--help")
    assert (run.status, run.err) == (0, "")
    assert f"Example: convert {name} " in run.out
    assert run.out.startswith(f"Usage: convert {name} [OPTIONS]")
    for parameter in cli.commands[name].params:
        if isinstance(parameter, click.Option):
            assert all(f" {option}" in run.out for option in (*parameter.opts, *parameter.secondary_opts))
            assert parameter.help
            assert parameter.help.endswith(".")
            assert parameter.help.split()[0] in run.out
        else:
            assert parameter.make_metavar(click.Context(cli.commands[name])) in run.out


@pytest.mark.parametrize("name", COMMANDS)
def test_examples_can_be_copied(convert: Convert, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """On a terminal of 80 columns, too, an example is one line, and no folder's name is cut at its hyphen."""
    monkeypatch.setenv("COLUMNS", "80")
    example = " ".join((cli.commands[name].epilog or "").split())
    assert f"\n  {example}\n" in convert(name, "--help").out


def test_both_directions_have_the_same_options() -> None:
    pt2tf, tf2pt = ({name for param in cli.commands[c].params for name in param.opts} for c in ("pt2tf", "tf2pt"))
    assert tf2pt - pt2tf == {"--names"}
    assert pt2tf - tf2pt == {"--positions"}  # pt2tf takes a Flax source too
    for option in ("--format", "--dtype", "--overwrite", "--dry-run", "--no-check", "--json", "--quiet"):
        assert option in pt2tf


def test_version(convert: Convert) -> None:
    run = convert("--version")
    assert (run.status, run.err) == (0, "")
    assert run.out.startswith("convert, version ")


@pytest.mark.parametrize("name", ["pt2tf", "tf2pt"])
def test_examples_work(convert: Convert, here: Path, name: str) -> None:
    """The example in the help, with the folders that it names."""
    (here / "src").rename(here / "clip-italian")
    assert convert("pt2tf", "clip-italian/", "made/").status == 0
    (here / "made").rename(here / "clip-italian-tf")
    example = convert(name, "--help").out.partition("Example: convert ")[2].split()
    (here / example[2]).exists()
    run = convert(*example[:2], "fresh/", *example[3:])
    assert (run.status, run.err) == (0, "")


def test_the_frameworks_that_can_be_named_are_those_there_are() -> None:
    """Said once more in the command line: the module that knows them takes 2 ms to import, which every --help would wait for."""
    target = next(parameter for parameter in cli.commands["combine"].params if parameter.name == "target")
    assert isinstance(target.type, click.Choice)
    assert tuple(target.type.choices) == FRAMEWORKS

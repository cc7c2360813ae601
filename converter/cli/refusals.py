"""How a command says that it was refused: one line on stderr and, for programs, one JSON object on stdout."""

from __future__ import annotations

import contextlib
import json
import sys

import click

from converter.cli.voice import LONG_LINE, styled
from converter.errors import printable
from converter.specs import JSON_FORMAT


def print_refusal(kind: str, message: str, following: str, status: int, *, as_json: bool, shown: bool = True) -> None:
    """Says why a command ends without a result.

    Args:
        kind: name of the error's class.
        message: what happened, with the next step.
        following: the next step, or empty.
        status: exit status of the program.
        as_json: print the object of docs/error.schema.json, too.
        shown: whether to print the line on stderr; False if that was already done.
    """
    if shown:
        label = styled("convert:", sys.stderr, fg="red", bold=True)
        click.echo(f"{label} {printable(message, LONG_LINE)}", err=True, color=True)
    if as_json:
        error = {"kind": kind, "message": message, "next": following, "exit_status": status}
        with contextlib.suppress(OSError):  # such as a full disk: the line on stderr reports that
            click.echo(json.dumps({"format": JSON_FORMAT, "error": error}, indent=2))

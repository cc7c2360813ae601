"""What every command has in common: how it starts, and how its errors are printed."""

from __future__ import annotations

import os
from typing import Any, ClassVar

import click

from converter.cli.printing import LONG_LINE
from converter.cli.signals import INTERRUPTED_STATUS, Stop
from converter.errors import INTERRUPTED, ConverterError, OptionError, printable

WRONG_USAGE = 2  # as click has it
_MULTIPLYING = "OPENBLAS_NUM_THREADS"


class Command(click.Command):
    """Imports NumPy without the threads that it would multiply matrices with, of which there are none here.

    Attributes:
        refused: exit status where an error of the library, or too little memory, ends it.
    """

    refused: ClassVar[int] = 1

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command; what it starts finds the environment as it was."""
        for option in self.params:
            if isinstance(option.type, click.Path):
                ctx.params[str(option.name)] = _at_home(ctx.params[str(option.name)])
        if _MULTIPLYING not in os.environ:
            os.environ[_MULTIPLYING] = "1"
            try:
                import numpy  # noqa: F401 - it starts them when it is imported, which takes 40 ms
            finally:
                del os.environ[_MULTIPLYING]
        return super().invoke(ctx)


def _at_home(value: Any) -> Any:
    """What a path option holds, one path or several, of its own type: no shell puts the home folder after ``--option=``."""
    if isinstance(value, tuple):
        return tuple(_at_home(one) for one in value)
    if value is None or not str(value).startswith("~"):
        return value
    from converter.folder.files import expanded

    return type(value)(expanded(value))


class Group(click.Group):
    """Prints errors of the library in one line and keeps the traceback of bugs."""

    command_class = Command

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - as click has it
        """In the order in which they were added."""
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command."""
        try:
            return super().invoke(ctx)
        except ConverterError as error:
            if isinstance(ctx.obj, Stop) and ctx.obj.status is not None:  # what the signal was taken for on its way
                raise SystemExit(ctx.obj.status) from None
            click.echo(printable(f"convert: {error}", LONG_LINE), err=True)
            ctx.exit(WRONG_USAGE if isinstance(error, OptionError) else self._refused(ctx))
        except MemoryError:
            click.echo("convert: this machine has too little memory for that; take one with more", err=True)
            ctx.exit(self._refused(ctx))
        except KeyboardInterrupt:  # before click does, which prints an empty line first
            click.echo(INTERRUPTED, err=True)
            ctx.exit(INTERRUPTED_STATUS)

    def _refused(self, ctx: click.Context) -> int:
        """Exit status of an error of the command that ran."""
        command = self.commands.get(ctx.invoked_subcommand or "")
        return command.refused if isinstance(command, Command) else Command.refused

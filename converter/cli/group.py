"""What all commands share: how they start, their common options, and how errors are printed."""

from __future__ import annotations

import os
from typing import Any, ClassVar

import click

from converter.cli.refusals import print_refusal
from converter.cli.signals import INTERRUPTED_STATUS, Stop
from converter.cli.voice import common_options, logged, wants_json
from converter.errors import INTERRUPTED, ConverterError, OptionError, next_step

WRONG_USAGE = 2  # as click has it
TOO_LITTLE_MEMORY = "this machine has too little memory; use one with more"
_MULTIPLYING = "OPENBLAS_NUM_THREADS"


class Command(click.Command):
    """Imports NumPy without its threads for matrix products, which are not needed here.

    Attributes:
        refused: exit status where an error of the library, or too little memory, ends it.
    """

    refused: ClassVar[int] = 1

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.params += common_options()

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
        with logged():
            return super().invoke(ctx)


def _at_home(value: Any) -> Any:
    """The value of a path option, one path or several, of the same type: no shell expands ``~`` after ``--option=``."""
    if isinstance(value, tuple):
        return tuple(_at_home(one) for one in value)
    if value is None or not str(value).startswith("~"):
        return value
    from converter.folder.files import expanded

    return type(value)(expanded(value))


class Group(click.Group):
    """Prints errors of the library in one line and keeps the traceback of bugs."""

    command_class = Command

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.params += common_options()

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - as click has it
        """In the order in which they were added."""
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command."""
        try:
            return super().invoke(ctx)
        except ConverterError as error:
            if isinstance(ctx.obj, Stop) and ctx.obj.status is not None:  # what the signal turned into on its way
                raise SystemExit(ctx.obj.status) from None
            status = WRONG_USAGE if isinstance(error, OptionError) else self._refused(ctx)
            print_refusal(type(error).__name__, str(error), error.next_step, status, as_json=wants_json())
            ctx.exit(status)
        except MemoryError:
            status = self._refused(ctx)
            print_refusal("MemoryError", TOO_LITTLE_MEMORY, next_step(TOO_LITTLE_MEMORY), status, as_json=wants_json())
            ctx.exit(status)
        except KeyboardInterrupt:  # before click does, which prints an empty line first
            print_refusal("Interrupted", INTERRUPTED, "", INTERRUPTED_STATUS, as_json=wants_json())
            ctx.exit(INTERRUPTED_STATUS)

    def _refused(self, ctx: click.Context) -> int:
        """Exit status of an error of the command that ran."""
        command = self.commands.get(ctx.invoked_subcommand or "")
        return command.refused if isinstance(command, Command) else Command.refused

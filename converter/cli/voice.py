"""How much a run prints: --json, -q, -v and -V on the program and on every command; NO_COLOR and FORCE_COLOR."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO, Any

import click

from converter.errors import printable

LONG_LINE = 20_000
_MADE_BY = "dual-encoder-converter"
_JSON, _QUIET, _VERBOSE, _ANSWERED = "json", "quiet", "verbose", "answered"
_KEY = "converter.voice."  # click keeps values under it for the program and its commands together


def common_options() -> list[click.Option]:
    """Options that the program and each command take, before the command's name and after it."""
    version = click.version_option(None, "-V", "--version", package_name=_MADE_BY, prog_name="convert")
    decorated = version(click.Command(""))
    return [
        _switch(_JSON, "Print one JSON object, on errors too.", "--json"),
        _switch(_QUIET, "Print nothing but errors.", "-q", "--quiet"),
        _switch(_VERBOSE, "Print every table, and log each step to stderr.", "-v", "--verbose"),
        *(option for option in decorated.params if isinstance(option, click.Option)),
    ]


def _switch(name: str, text: str, *flags: str) -> click.Option:
    return click.Option([*flags], is_flag=True, expose_value=False, callback=_noted(name), help=text)


def _noted(name: str) -> Any:
    def note(ctx: click.Context, _: click.Parameter, value: bool) -> None:
        if value:
            ctx.meta[_KEY + name] = True
        if _said(_QUIET) and _said(_VERBOSE):
            raise click.UsageError("--quiet and --verbose contradict each other; choose one", ctx)

    return note


def _said(name: str) -> bool:
    context = click.get_current_context(silent=True)
    return context is not None and bool(context.meta.get(_KEY + name))


def wants_json() -> bool:
    """Whether the next output, a result or an error, is for a program."""
    return _said(_JSON) and not _said(_ANSWERED)


def is_quiet() -> bool:
    """Whether nothing but errors is printed."""
    return _said(_QUIET)


def is_verbose() -> bool:
    """Whether tables are printed, too."""
    return _said(_VERBOSE)


def mark_answered() -> None:
    """Notes that JSON was printed: stdout gets one object, even if something fails afterwards."""
    context = click.get_current_context(silent=True)
    if context is not None:
        context.meta[_KEY + _ANSWERED] = True
        if hasattr(context.find_root().obj, _ANSWERED):
            context.find_root().obj.answered = True


def json_in(arguments: Sequence[str]) -> bool:
    """Whether a command line asks for JSON, also one that click could not read to its end."""
    before = arguments[: arguments.index("--")] if "--" in arguments else arguments
    return "--json" in before


def in_colour(stream: IO[Any] | None) -> bool:
    """Whether a stream is written to in colours: a terminal, unless NO_COLOR is set; where FORCE_COLOR is, any stream.

    Each counts if it is not empty (https://no-color.org, https://force-color.org); NO_COLOR wins.
    """
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return stream is not None and stream.isatty() and os.environ.get("TERM") != "dumb"


def styled(text: str, stream: IO[Any] | None, **style: Any) -> str:
    """Text in a colour, where the stream has colours."""
    return click.style(text, **style) if in_colour(stream) else text


@contextmanager
def logged() -> Iterator[None]:
    """The log of this program and of huggingface_hub on stderr: each step with --verbose, no warning with --quiet."""
    import logging  # 3 ms, for which --help would wait

    class Line(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:  # a name from a file may hold anything
            return printable(f"convert: {super().format(record)}", LONG_LINE)

    loggers = [logging.getLogger(name) for name in ("converter", "huggingface_hub")]
    levels = [logger.level for logger in loggers]
    steps = logging.StreamHandler(sys.stderr)
    if is_quiet():
        for logger in loggers:
            logger.setLevel(logging.ERROR)
    elif is_verbose():
        steps.setFormatter(Line())
        loggers[0].addHandler(steps)
        loggers[0].setLevel(logging.INFO)
    try:
        yield
    finally:
        loggers[0].removeHandler(steps)
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)

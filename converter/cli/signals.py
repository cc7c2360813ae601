"""How the program ends: by itself, by a signal, or with a standard stream that was closed before it began."""

from __future__ import annotations

import gc
import io
import os
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn

import click

from converter.cli.refusals import print_refusal
from converter.cli.voice import json_in
from converter.errors import INTERRUPTED
from converter.system.processes import STOPPING

INTERRUPTED_STATUS = 128 + signal.SIGINT  # what a shell expects of a program that ends by a signal
_REPORT_IT = "report it with the traceback on stderr"


class Stop:
    """Ends the program by an exception, once: a second signal must not disturb what the first makes clean up.

    The status is kept because the exception may not arrive. HDF5 calls back into Python, and an exception raised there
    comes out as another error, or not at all.
    """

    status: int | None = None
    answered = False  # whether JSON was printed

    def __call__(self, number: int, _: object) -> NoReturn:
        """Handles a signal."""
        _ignore_signals()
        self.status = 128 + number
        raise SystemExit(self.status)


def _ignore_signals() -> None:
    for each in STOPPING:
        signal.signal(each, signal.SIG_IGN)


def run(group: click.Group) -> NoReturn:
    """Runs a command line and exits with its status, also where a signal ends it."""
    _fill_standard_streams()
    stop = Stop()
    for number in STOPPING:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as a shell has it in the background, and nohup
            signal.signal(number, stop)
    status: Any = None
    try:
        status = group.main(prog_name="convert", standalone_mode=False, obj=stop)  # status of ctx.exit, or None
    except click.ClickException as error:
        status = _wrong_usage(error)
    except SystemExit as stopped:
        status = stopped.code
    except (click.Abort, KeyboardInterrupt):
        stop.status = INTERRUPTED_STATUS
    except Exception as error:
        if stop.status is None:
            as_json = json_in(sys.argv[1:]) and not stop.answered
            print_refusal(type(error).__name__, f"a bug: {error}", _REPORT_IT, 1, as_json=as_json, shown=False)
            raise
    _ignore_signals()  # everything is printed; Python would complain while it shuts down
    if stop.status is not None:
        gc.collect()  # what was raised on the threshold of a `with` leaves its generator suspended: now it cleans up
        as_json = json_in(sys.argv[1:]) and not stop.answered
        interrupted = stop.status == INTERRUPTED_STATUS
        print_refusal("Interrupted", INTERRUPTED, "", stop.status, as_json=as_json, shown=interrupted)
    gc.freeze()  # Python would look for circles among all objects twice while it shuts down, which takes 20 ms
    sys.exit(status if stop.status is None else stop.status)


def _wrong_usage(error: click.ClickException) -> int:
    """Says what is wrong with a command line, and gives the exit status."""
    error.show()
    context = getattr(error, "ctx", None)
    command = "convert" if context is None else context.command_path
    helped = isinstance(error, click.exceptions.NoArgsIsHelpError)
    message = "no command was given" if helped else error.format_message()
    following = f"{command} --help lists the options"
    print_refusal("UsageError", message, following, error.exit_code, as_json=json_in(sys.argv[1:]), shown=False)
    return error.exit_code


def _fill_standard_streams() -> None:
    """Opens what is closed of stdin, stdout and stderr: files opened later would get their numbers, and be written to."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free, which is this one
    sys.stderr = sys.stderr or Path(os.devnull).open("w")  # noqa: SIM115 - for as long as the program runs
    # A pipe's encoding on Windows lacks most letters: they are escaped, as on stderr.
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")

"""Commands that show a checkpoint to be its source: verify, reference."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, NoReturn

import click

from converter.cli.group import Command
from converter.cli.options import revision_option, run_options
from converter.cli.printing import recording_lines, show
from converter.cli.progress import stages
from converter.cli.refusals import print_refusal
from converter.cli.voice import is_verbose
from converter.errors import ConverterError

EQUAL, DIFFERENT, NOT_CHECKED = 0, 1, 3
EXPORTED = "export.json"  # as converter.exporting.manifest calls it
_COLOURS = {EQUAL: "green", DIFFERENT: "red", NOT_CHECKED: "yellow"}
_STATUSES = {"passed": EQUAL, "failed": DIFFERENT, "not checked": NOT_CHECKED}


class Verifying(Command):
    """Exit status 1 means a verdict, so an end without one needs another status."""

    refused = NOT_CHECKED


@click.command(
    cls=Verifying,
    short_help="Compare files, weights and every layer output with the source.",
    epilog="Example: convert verify clip-italian-tf/ --atol 1e-4 --report parity.html",
)
@click.argument("out", metavar="[OUT]", default=".", type=click.Path(readable=False))
@click.option(
    "--reference",
    metavar="SRC|FILE",
    type=click.Path(readable=False),
    help="Source checkpoint, or a file that `convert reference` wrote.",
)
@click.option("--atol", default=1e-4, show_default=True, help="Absolute tolerance of every layer output.")
@click.option("--rtol", default=0.0, show_default=True, help="Relative tolerance of every layer output.")
@click.option("--weights-only", is_flag=True, help="Compare files and weights only; start no framework.")
@run_options
@click.option(
    "--backend",
    type=click.Choice(["tensorflow", "jax"]),
    default="tensorflow",
    show_default=True,
    help="Backend of Keras.",
)
@click.option(
    "--report", "reports", metavar="FILE", multiple=True, type=click.Path(path_type=Path),
    help="Write a report to FILE (.json .md .html .xml .txt); repeatable.",
)  # fmt: skip
@click.option(
    "--record/--no-record", default=True, show_default=True, help="Keep the result in OUT as parity.json, for push."
)
def verify(
    out: str,
    reference: str | None,
    weights_only: bool,
    record: bool,
    reports: tuple[Path, ...],
    **options: Any,
) -> None:
    """Verify that OUT (default: this folder) matches its source: files, weights bit for bit, and every layer's output.

    In a folder that `convert export` made, every file is run in its own runtime and compared with its golden file.

    Exit status: 0 equal, 1 different, 2 wrong usage, 3 not checked.
    """
    from converter.parity.options import VerifyOptions
    from converter.parity.reports.files import add_to_job_summary, check_report_path, write_report
    from converter.parity.reports.terminal import verification_text
    from converter.parity.verify import verify as check

    if _is_export(out):
        _verify_export(out, reference, weights_only, reports, options)
    for path in reports:
        check_report_path(path, Path(out))
    with stages("files") as progress:
        found = check(
            out,
            reference=reference,
            weights_only=weights_only,
            options=VerifyOptions(**options),
            record=record,
            progress=progress,
        )
    status = _STATUSES[found.status]
    try:
        show(found, verification_text(found, is_verbose()).splitlines(), _COLOURS[status])
        for path in reports:
            write_report(found, path)
        add_to_job_summary(found)
    except ConverterError as error:
        if status != DIFFERENT:  # which is the worse news of the two
            raise
        print_refusal(type(error).__name__, str(error), error.next_step, status, as_json=False)
    sys.exit(status)


def _is_export(out: str) -> bool:
    """Whether a folder says that it is an export; one that cannot be read says nothing."""
    from converter.folder.addresses import Address
    from converter.folder.files import expanded

    try:
        if isinstance(place := expanded(out), Address):
            from converter.buckets.stores import Store

            return Store(place).info(EXPORTED) is not None
        return Path(place, EXPORTED).is_file()
    except (OSError, ConverterError):  # the next reader reports what is wrong
        return False


def _verify_export(
    out: str, reference: str | None, weights_only: bool, reports: tuple[Path, ...], options: dict[str, Any]
) -> NoReturn:
    """The same for an export, with its export.json and golden file."""
    from converter.errors import OptionError
    from converter.exporting.reports import verification_lines
    from converter.exporting.verifying import verify_export

    if reference is not None or weights_only or reports:
        raise OptionError(
            f"{out}: an export is verified by its own golden file; leave --reference, --weights-only and --report out"
        )
    with stages("files") as progress:
        found = verify_export(out, seconds=options["seconds"], progress=progress)
    status = _STATUSES[found.status]
    show(found, verification_lines(found), _COLOURS[status])
    sys.exit(status)


@click.command(
    cls=Command,
    short_help="Run PyTorch once and record it, to verify elsewhere.",
    epilog="Example: convert reference clip-italian/ -o golden.safetensors --device cuda",
)
@click.argument("source", metavar="SRC", type=click.Path(readable=False))
@click.option("-o", "--out", metavar="FILE", required=True, type=click.Path(), help="Golden reference file to write.")
@revision_option
@run_options
def reference(source: str, out: str, revision: str | None, **options: Any) -> None:
    """Run PyTorch on the checkpoint SRC and keep inputs and outputs, to verify with on another machine."""
    from converter.parity.options import VerifyOptions
    from converter.parity.verify import record_reference

    recording = record_reference(source, out, VerifyOptions(**options), revision=revision)
    show(recording, recording_lines(out, recording), source=source, out=out)

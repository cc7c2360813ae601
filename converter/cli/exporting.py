"""The command that makes files for other runtimes: export."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from converter.cli.group import Command
from converter.cli.options import revision_option
from converter.cli.printing import show
from converter.cli.voice import is_quiet, is_verbose, wants_json
from converter.errors import printable

# As converter.exporting.targets has them, which --help need not import.
FORMATS = ("savedmodel", "litert", "onnx")


@click.command(
    cls=Command,
    short_help="Export to SavedModel, LiteRT or ONNX, verified in its own runtime.",
    epilog="Example: convert export clip-italian/ app/ --to savedmodel --pixels uint8",
)
@click.argument("source", metavar="SRC", type=click.Path(readable=False))
@click.argument("folder", metavar="DIR", type=click.Path(readable=False))
@click.option(
    "--to", multiple=True, default=("savedmodel",), show_default=True, type=click.Choice(FORMATS),
    help="Format to write; repeatable.",
)  # fmt: skip
@click.option(
    "--precision",
    type=click.Choice(["float32", "float16", "int8", "static-int8"]),
    default="float32",
    show_default=True,
    help="Precision of the weights. static-int8 is refused, with the figures that say why.",
)
@click.option(
    "--pixels",
    type=click.Choice(["float", "uint8"]),
    default="float",
    show_default=True,
    help="uint8: take bytes, channels last, and normalise them inside as the image processor does.",
)
@click.option("--batch", type=click.IntRange(1), help="Fixed number of images and texts per call. Default: any number.")
@click.option("--length", type=click.IntRange(1), help="Fixed number of tokens per text. Default: any number.")
@click.option(
    "--samples",
    metavar="DIR|FILE",
    type=click.Path(readable=False),
    help="Pictures and a texts.txt to judge float16 and int8 by, or a golden reference file that holds some.",
)
@click.option(
    "--reference",
    metavar="FILE",
    type=click.Path(readable=False),
    help="Compare with this golden reference file of SRC; PyTorch is not needed then.",
)
@click.option(
    "--min-cosine", type=float, help="Least cosine of any embedding. Default: 0.9999 for float16, 0.985 for int8."
)
@revision_option
@click.option("--seconds", default=3600.0, show_default=True, help="Time limit for each step, in seconds.")
@click.option(
    "--reference-python",
    metavar="PATH",
    type=click.Path(path_type=Path),
    help="Python interpreter of another environment, to run PyTorch in.",
)
@click.option(
    "--report", "reports", metavar="FILE", multiple=True, type=click.Path(path_type=Path),
    help="Write a report to FILE (.json .html .txt); repeatable.",
)  # fmt: skip
def export(source: str, folder: str, to: tuple[str, ...], reports: tuple[Path, ...], **options: Any) -> None:
    """Export the checkpoint SRC to files that run elsewhere, into the new folder DIR.

    Every file is run in its own runtime and compared with PyTorch; one that differs is not written. DIR appears whole or
    not at all. `convert verify DIR` verifies it again, on any machine.
    """
    from converter.exporting.export import export as make
    from converter.exporting.reports import check_report, export_lines, write_report

    for path in reports:
        check_report(path)
    with _steps() as progress:
        found = make(source, folder, to=to, progress=progress, **options)
    show(found, export_lines(found, is_verbose()))
    for path in reports:
        write_report(found, path)


@contextmanager
def _steps() -> Iterator[Callable[[str, int, int], None] | None]:
    """Each step on stderr, before it begins: an export takes minutes, and much memory."""
    if is_quiet() or wants_json():
        yield None
        return
    yield lambda step, done, total: click.echo(f"convert: [{done + 1}/{total}] {printable(step)}", err=True)

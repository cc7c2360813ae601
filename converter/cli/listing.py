"""The command that says what is supported: towers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from converter.cli.group import Command
from converter.cli.printing import show

if TYPE_CHECKING:
    from converter.names.listing import Supported


@click.command(
    cls=Command,
    short_help="List the models, towers and formats that are supported.",
    epilog="Example: convert towers --markdown",
)
@click.option("--markdown", is_flag=True, help="Print models, towers and formats as Markdown tables.")
@click.option("--refused", is_flag=True, help="Print the model types that are refused as towers, and why.")
def towers(markdown: bool, refused: bool) -> None:
    """List the models, the towers with their TensorFlow class in transformers 4.57, and the formats that are supported."""
    from converter.names.listing import towers as supported

    found = supported()
    lines = refused_lines(found) if refused else tower_lines(found)
    show(found, found.to_markdown().splitlines() if markdown else lines)


def tower_lines(found: Supported) -> Iterator[str]:
    """What is supported, a line each."""
    from converter.names.layout_files import OWN  # with it come the rules, which `--help` needs not

    sides = [tower.side for tower in found.towers]
    pairs = sides.count("vision") * sides.count("text")
    yield f"{sides.count('vision')} vision and {sides.count('text')} text towers, in any of {pairs:,} pairs"
    width = max(len(tower.model_type) for tower in found.towers)
    for tower in found.towers:
        line = (
            f"  {tower.side:<6}  {tower.model_type:<{width}}  {', '.join(tower.frameworks)}  {tower.tensorflow_4 or ''}"
        )
        yield line.rstrip()
    yield "models, with their class in PyTorch and other layouts than transformers'"
    width = max(len(model.model_type) for model in found.models)
    for model in found.models:
        named = f"{found.families[model.model_type]}  {', '.join(model.layouts[1:])}"
        yield f"  {model.model_type:<{width}}  {named}".rstrip()
    yield "formats"
    width = max(len(format.format) for format in found.formats)
    for format in found.formats:
        what = "" if format.written else "read only"
        layout = "" if format.layout == OWN else f"--layout {format.layout}"
        yield f"  {format.framework:<4}  {format.format:<{width}}  {format.file}  {what or layout}".rstrip()
    yield "next: convert towers --refused lists the model types that are refused, and why"


def refused_lines(found: Supported) -> Iterator[str]:
    """What is refused, by reason."""
    yield f"{sum(map(len, found.refused.values()))} model types are refused as towers; others are not known"
    for side, reasons in found.refused.items():
        for reason in dict.fromkeys(reasons.values()):
            names = ", ".join(name for name, why in reasons.items() if why == reason)
            yield f"{side}: {reason}"
            yield f"  {names}"

"""Commands that make a checkpoint, and the one that looks at it first: pt2tf, tf2pt, combine, inspect."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click

from converter.cli.group import Command
from converter.cli.options import (
    config_option,
    conversion_options,
    json_option,
    overwrite_option,
    quiet_option,
    revision_option,
)
from converter.cli.printing import checkpoint_lines, echo, print_conversion, print_json
from converter.cli.progress import progress_bar, warnings_shown

if TYPE_CHECKING:
    from converter.conversion.engine import Conversion
    from converter.specs import Framework


@click.command(
    cls=Command,
    short_help="Convert PyTorch to TensorFlow.",
    epilog="Example: convert pt2tf clip-italian/ clip-italian-tf/ --format safetensors",
)
@click.option(
    "--format",
    type=click.Choice(["h5", "safetensors"]),
    default="h5",
    show_default=True,
    help="tf_model.h5, or TensorFlow's own model.safetensors.",
)
@conversion_options
def pt2tf(source: str, out: str, no_check: bool, as_json: bool, quiet: bool, **options: Any) -> None:
    """Convert a PyTorch checkpoint SRC to TensorFlow, into the folder OUT."""
    from converter.conversion.engine import pt2tf as convert

    _run_conversion(convert, source, out, no_check, as_json, quiet, options)


@click.command(
    cls=Command,
    short_help="Convert TensorFlow to PyTorch.",
    epilog="Example: convert tf2pt clip-italian-tf/ clip-italian-pt/",
)
@click.option(
    "--format",
    type=click.Choice(["safetensors", "bin"]),
    default="safetensors",
    show_default=True,
    help="model.safetensors, or the pytorch_model.bin of torch 1.6 and later.",
)
@click.option(
    "--names",
    type=click.Choice(["v4", "v5"]),
    default="v4",
    show_default=True,
    help="Names that every version of transformers reads, or those that a fresh 5.x model saves.",
)
@conversion_options
def tf2pt(source: str, out: str, no_check: bool, as_json: bool, quiet: bool, **options: Any) -> None:
    """Convert a TensorFlow checkpoint SRC to PyTorch, into the folder OUT."""
    from converter.conversion.engine import tf2pt as convert

    _run_conversion(convert, source, out, no_check, as_json, quiet, options)


@click.command(
    cls=Command,
    short_help="Make a dual encoder from two tower checkpoints.",
    epilog="Example: convert combine clip-vit-base/ bert-italian/ clip-italian/",
)
@click.argument("vision", metavar="VISION", type=click.Path(readable=False))
@click.argument("text", metavar="TEXT", type=click.Path(readable=False))
@click.argument("out", metavar="OUT", type=click.Path(readable=False))
@click.option(
    "--to",
    "target",
    type=click.Choice(["pt", "tf"]),
    default="pt",
    show_default=True,
    help="PyTorch or TensorFlow.",
)
@click.option(
    "--projection-dim",
    type=click.IntRange(1),
    help="Width of the common space; by default that of the model that both towers are of, else 512.",
)
@click.option("--seed", default=0, show_default=True, help="Of the new projections.")
@overwrite_option
@json_option
@quiet_option
def combine(vision: str, text: str, out: str, as_json: bool, quiet: bool, target: Framework, **options: Any) -> None:
    """Make a dual encoder from the tower checkpoints VISION and TEXT; its projections are new, to be trained.

    Where VISION and TEXT are the same model, a full CLIP say, its trained projections and scale are kept.
    """
    from converter.conversion.combining import combine as join

    print_conversion(join(vision, text, out, target=target, **options), as_json, quiet, joined=True)


@click.command(
    cls=Command,
    short_help="Show what a checkpoint is, and what would be left out.",
    epilog="Example: convert inspect clip-italian/",
)
@click.argument("source", metavar="SRC", type=click.Path(readable=False))
@revision_option
@config_option
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def inspect(source: str, revision: str | None, config: str | None, as_json: bool) -> None:
    """Show what the checkpoint SRC is, and what a conversion would drop."""
    from converter.conversion.inspection import inspect as look

    info = look(source, revision=revision, config=config)
    if as_json:
        print_json(info)
    else:
        echo(checkpoint_lines(info))


def _run_conversion(
    convert: Callable[..., Conversion],
    source: str,
    out: str,
    no_check: bool,
    as_json: bool,
    quiet: bool,
    options: Mapping[str, Any],
) -> None:
    with progress_bar(quiet or as_json) as progress, warnings_shown(not quiet):
        result = convert(source, out, check=not no_check, progress=progress, **options)
    print_conversion(result, as_json, quiet)

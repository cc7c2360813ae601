"""Commands that make a checkpoint, and the one that looks at it first: pt2tf, tf2pt, to, combine, inspect."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click

from converter.cli.group import Command
from converter.cli.options import (
    config_option,
    conversion_options,
    overwrite_option,
    positions_option,
    revision_option,
)
from converter.cli.printing import checkpoint_lines, conversion_colour, conversion_lines, show
from converter.cli.progress import progress_bar

if TYPE_CHECKING:
    from converter.conversion.result import Conversion
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
@positions_option
@conversion_options
def pt2tf(source: str, out: str, no_check: bool, **options: Any) -> None:
    """Convert a PyTorch (or Flax) checkpoint SRC to TensorFlow, into the folder OUT."""
    from converter.conversion.engine import pt2tf as convert

    _run_conversion(convert, source, out, no_check, options)


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
    help="v4: names that every version of transformers reads; v5: names that a new 5.x model saves. Transformers 4 "
    "cannot read v5 names of AltCLIP and CLIP-like towers.",
)
@conversion_options
def tf2pt(source: str, out: str, no_check: bool, **options: Any) -> None:
    """Convert a TensorFlow checkpoint SRC to PyTorch, into the folder OUT."""
    from converter.conversion.engine import tf2pt as convert

    _run_conversion(convert, source, out, no_check, options)


@click.command(
    cls=Command,
    short_help="Convert any checkpoint to PyTorch, TensorFlow or Flax.",
    epilog="Example: convert to flax clip-italian/ clip-italian-flax/",
)
@click.argument("target", metavar="pt|tf|flax", type=click.Choice(["pt", "tf", "flax"]))
@click.option(
    "--format",
    type=click.Choice(["safetensors", "bin", "h5", "msgpack"]),
    help="Container; by default safetensors for pt, h5 for tf, msgpack for flax. All support safetensors.",
)
@click.option(
    "--names",
    type=click.Choice(["v4", "v5"]),
    default="v4",
    show_default=True,
    help="For pt: names that every version of transformers reads (v4), or those that a new 5.x model saves (v5). "
    "Transformers 4 cannot read v5 names of AltCLIP and CLIP-like towers.",
)
@positions_option
@click.option(
    "--layout",
    type=click.Choice(["transformers", "open_clip"]),
    default="transformers",
    show_default=True,
    help="For pt: transformers' folder, or one that OpenCLIP loads (CLIP, MetaCLIP 2, SigLIP).",
)
@conversion_options
def to(target: Framework, source: str, out: str, no_check: bool, **options: Any) -> None:
    """Convert a checkpoint SRC of any framework to another one or to its own, into the folder OUT."""
    from converter.conversion.anywhere import convert

    _run_conversion(functools.partial(convert, to=target), source, out, no_check, options)


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
    type=click.Choice(["pt", "tf", "flax"]),
    default="pt",
    show_default=True,
    help="PyTorch, TensorFlow or Flax.",
)
@click.option(
    "--projection-dim",
    type=click.IntRange(1),
    help="Width of the shared embedding space. Default: that of the source model if both towers come from one, else 512.",
)
@positions_option
@click.option("--seed", default=0, show_default=True, help="Seed of the new projections.")
@overwrite_option
def combine(vision: str, text: str, out: str, target: Framework, **options: Any) -> None:
    """Make a dual encoder from the tower checkpoints VISION and TEXT. Its projections are new; train them before use.

    If VISION and TEXT are the same model, such as a full CLIP, its trained projections and scale are kept.
    """
    from converter.conversion.combining import combine as join

    with progress_bar() as progress:
        result = join(vision, text, out, target=target, progress=progress, **options)
    show(result, conversion_lines(result, joined=True), conversion_colour(result))


@click.command(
    cls=Command,
    short_help="Show what a checkpoint is and what would be left out.",
    epilog="Example: convert inspect clip-italian/",
)
@click.argument("source", metavar="SRC", type=click.Path(readable=False))
@revision_option
@config_option
def inspect(source: str, revision: str | None, config: str | None) -> None:
    """Show what the checkpoint SRC is, and what a conversion would drop."""
    from converter.conversion.inspection import inspect as look

    info = look(source, revision=revision, config=config)
    colour = "green" if info.problem is None else "red"
    show(info, checkpoint_lines(info, revision=revision, config=config), colour)


def _run_conversion(
    convert: Callable[..., Conversion],
    source: str,
    out: str,
    no_check: bool,
    options: Mapping[str, Any],
) -> None:
    with progress_bar() as progress:
        result = convert(source, out, check=not no_check, progress=progress, **options)
    show(result, conversion_lines(result), conversion_colour(result))

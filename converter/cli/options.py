"""Arguments and options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from converter.errors import ConverterError

_Command = Callable[..., None]
_Decorator = Callable[[_Command], _Command]

revision_option = click.option(
    "--revision", metavar="REV", help="Branch, tag or commit of a Hub id; ID@REV works, too."
)
overwrite_option = click.option(
    "--overwrite", is_flag=True, help="Replace the checkpoint in OUT; other files in it stay."
)
positions_option = click.option(
    "--positions",
    type=click.Choice(["keep", "flax"]),
    default="keep",
    show_default=True,
    help="For RoBERTa-like towers, to or from Flax: keep the same bits, or move the table for the same outputs.",
)
config_option = click.option(
    "--config",
    type=click.Path(readable=False),
    metavar="FILE",
    help="Use this config.json instead of the one beside SRC.",
)


def _all_of(*decorators: _Decorator) -> _Decorator:
    """One decorator of several; the help shows them in this order."""

    def decorate(command: _Command) -> _Command:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return decorate


def _check_size(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    """An invalid size is wrong usage, and is reported before a model is downloaded."""
    if value is not None:
        from converter.checkpoints.shards import parse_size

        try:
            parse_size(value)
        except ConverterError as error:
            raise click.BadParameter(str(error)) from None
    return value


# Source, target and the options that both directions share.
conversion_options = _all_of(
    click.argument("source", metavar="SRC", type=click.Path(readable=False)),
    click.argument("out", metavar="OUT", type=click.Path(readable=False)),
    revision_option,
    click.option(
        "--dtype",
        type=click.Choice(["keep", "float32", "float16", "bfloat16"]),
        default="keep",
        show_default=True,
        help="Dtype of the float tensors in OUT.",
    ),
    click.option(
        "--max-shard-size",
        metavar="SIZE",
        callback=_check_size,
        help="Split the weights into files of at most SIZE, e.g. 5GB.",
    ),
    config_option,
    overwrite_option,
    click.option("--dry-run", is_flag=True, help="Print the plan and write nothing."),
    click.option("--no-check", is_flag=True, help="Do not re-open OUT and compare it bit for bit."),
    click.option("--sha256", is_flag=True, help="Record the sha256 of every file, beside its BLAKE3 sum."),
)


# How models run, and on what.
run_options = _all_of(
    click.option(
        "--device",
        default="auto",
        show_default=True,
        help="Device to compute on: auto, cpu, cuda or cuda:N.",
    ),
    click.option("--float64", is_flag=True, help="Compute in float64; any difference left is real."),
    click.option("--seed", default=0, show_default=True, help="Seed of the inputs."),
    click.option("--seconds", default=600.0, show_default=True, help="Time limit for each side, in seconds."),
    click.option(
        "--reference-python",
        metavar="PATH",
        type=click.Path(path_type=Path),
        help="Python interpreter of another environment, to run PyTorch in, or Flax for a Flax source.",
    ),
    click.option(
        "--texts",
        metavar="FILE",
        type=click.Path(path_type=Path),
        help="Also run these texts, one per line, through the tokenizer.",
    ),
    click.option(
        "--images",
        metavar="PATH",
        multiple=True,
        type=click.Path(path_type=Path),
        help="Also run this picture, or folder of pictures, through the image processor; repeatable.",
    ),
)

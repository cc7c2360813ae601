"""The command line: parses, calls one function of the library, prints. Results on stdout, everything else on stderr."""

from __future__ import annotations

from typing import NoReturn

import click

from converter.cli import conversions, exporting, fleets, listing, publishing, verifying
from converter.cli.group import Group
from converter.cli.signals import run


@click.group(
    cls=Group,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Example: convert pt2tf clip-italian/ clip-italian-tf/",
)
def cli() -> None:
    """Convert vision-text dual encoder checkpoints between PyTorch, TensorFlow and Flax, bit for bit.

    SRC is a folder that save_pretrained wrote, a weights file in one, or the id of a model on the Hugging Face Hub (ID or
    ID@REVISION). OUT is a new folder; it appears whole or not at all. Both may be in a bucket, such as
    s3://BUCKET/FOLDER (pip install 'dual-encoder-converter[cloud]').
    """


# In the order in which they are used, which is that of the help.
for _command in (
    conversions.pt2tf,
    conversions.tf2pt,
    conversions.to,
    conversions.combine,
    fleets.fleet,
    conversions.inspect,
    listing.towers,
    verifying.verify,
    verifying.reference,
    exporting.export,
    publishing.push,
):
    cli.add_command(_command)


def main() -> NoReturn:
    """Runs the command line and exits with its status: 0 done, 1 refused, 2 wrong usage."""
    run(cli)

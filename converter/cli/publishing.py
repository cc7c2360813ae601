"""The command that puts a checkpoint where others find it: push."""

from __future__ import annotations

from typing import Any

import click

from converter.cli.group import Command
from converter.cli.printing import publication_lines, show


@click.command(
    cls=Command,
    short_help="Publish what was verified on the Hugging Face Hub.",
    epilog="Example: convert push clip-italian-tf/ me/clip-italian-tf",
)
@click.argument("out", metavar="OUT", type=click.Path(readable=False))
@click.argument("repository", metavar="REPO")
@click.option(
    "--create-pr/--no-create-pr", default=None, help="A pull request, which is the default where REPO is there already."
)
@click.option("--revision", metavar="BRANCH", help="The branch to commit to, or to open the pull request against.")
@click.option("--private", is_flag=True, help="If REPO is made, make it private.")
@click.option("--message", metavar="TEXT", help="Title of the pull request or commit.")
@click.option("--allow-unverified", is_flag=True, help="Publish what does not match its manifest or was not verified.")
@click.option("--dry-run", is_flag=True, help="Show what would change, and change nothing.")
def push(out: str, repository: str, **options: Any) -> None:
    """Publish the converted and verified checkpoint OUT on the Hugging Face Hub, in the model REPO."""
    from converter.publishing.pushing import push as publish

    result = publish(out, repository, **options)
    show(result, publication_lines(result))

"""The command that puts a checkpoint where others find it: push."""

from __future__ import annotations

from typing import Any

import click

from converter.cli.group import Command
from converter.cli.printing import publication_lines, show


@click.command(
    cls=Command,
    short_help="Publish a verified checkpoint on the Hugging Face Hub.",
    epilog="Example: convert push clip-italian-tf/ me/clip-italian-tf",
)
@click.argument("out", metavar="OUT", type=click.Path(readable=False))
@click.argument("repository", metavar="REPO")
@click.option("--create-pr/--no-create-pr", default=None, help="Open a pull request; the default if REPO exists.")
@click.option("--revision", metavar="BRANCH", help="Branch to commit to, or to open the pull request against.")
@click.option("--private", is_flag=True, help="Make REPO private when creating it.")
@click.option("--message", metavar="TEXT", help="Title of the pull request or commit.")
@click.option(
    "--allow-unverified", is_flag=True, help="Publish even if OUT was not verified or does not match its manifest."
)
@click.option("--dry-run", is_flag=True, help="Show what would change; change nothing.")
def push(out: str, repository: str, **options: Any) -> None:
    """Publish the converted and verified checkpoint OUT on the Hugging Face Hub, in the model REPO."""
    from converter.publishing.pushing import push as publish

    result = publish(out, repository, **options)
    show(result, publication_lines(result))

"""Decides which words of a printed line stand out on a terminal. Without its colours, a line stays the same text."""

from __future__ import annotations

import re
from typing import Any

import click

# Each alternative is one kind of word, and the name of its group is its style. Statuses count where `verify` prints them.
_WORDS = re.compile(
    r"(?P<step>^(?:next|back):)"
    r"|(?P<tower>(?<=^  )(?:vision|text)(?= ))"
    r"|(?P<good>(?<=^  (?:files   |weights |outputs |samples ) )passed)"
    r"|(?P<bad>(?<=^  (?:files   |weights |outputs |samples ) )failed|over tolerance$|✗+)"
    r"|(?P<open>(?<=^  (?:files   |weights |outputs |samples ) )not checked)"
    r"|(?P<bar>[▁▂▃▄▅▆▇█]+)"
    r"|(?P<rest>░+|^ +one sign per layer.*)"
)
_STYLES: dict[str, dict[str, Any]] = {
    "step": {"fg": "cyan", "bold": True},
    "tower": {"bold": True},
    "good": {"fg": "green"},
    "bad": {"fg": "red"},
    "open": {"fg": "yellow"},
    "bar": {"fg": "cyan"},
    "rest": {"dim": True},
}


def coloured(line: str) -> str:
    """A line of output for a terminal, with its statuses, bars and next steps in colours."""
    return _WORDS.sub(lambda found: click.style(found[0], **_STYLES[found.lastgroup or "rest"]), line)

"""Text from anywhere as part of an HTML page: it never acts as markup, and nothing in it acts on a terminal."""

from __future__ import annotations

import html
import re

from converter.errors import printable

_OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")


def escaped(text: str) -> str:
    """Text made safe, as content and as the value of an attribute in quotes."""
    return html.escape(printable(text, 4000))


def shown(text: str) -> str:
    """The same as content, where an option such as ``--reference`` is never broken after its hyphens."""
    return _OPTION.sub(r'<span class="option">\g<0></span>', escaped(text))

"""The pages of README and docs, taken apart: fenced blocks, inline code, links and headings."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    *(ROOT / name for name in ("README.md", "SECURITY.md", "CHANGELOG.md", "CONTRIBUTING.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *(ROOT / name / "README.md" for name in ("rename_rules", "fixtures", "fixtures/names", "tests/controls")),
]
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, and the line of the page it starts in."""

    language: str
    text: str
    line: int


def name_of(page: Path) -> str:
    """A page as the tests call it."""
    return str(page.relative_to(ROOT))


def blocks(page: Path) -> list[Block]:
    """Fenced blocks, in order."""
    text = page.read_text("utf-8")
    return [Block(m[1], m[2], text[: m.start()].count("\n") + 2) for m in _FENCE.finditer(text)]


def prose(page: Path) -> str:
    """The page without its fenced blocks."""
    return _FENCE.sub("", page.read_text("utf-8"))


def inline_code(page: Path) -> list[str]:
    """What stands in backquotes; a table's escaped bar is a bar."""
    return [code.replace("\\|", "|") for code in re.findall(r"`([^`\n]+)`", prose(page))]


def command_lines(page: Path) -> list[str]:
    """Lines for a shell: those of console, sh, yaml and makefile blocks, continued ones joined, and inline code."""
    lines: list[str] = []
    for block in blocks(page):
        text = block.text.replace("\\\n", " ")
        if block.language == "console":
            lines += [line[2:] for line in text.splitlines() if line.startswith("$ ")]
            lines += [line for line in text.splitlines() if re.match(r"(convert|make|python|pip) ", line)]
        elif block.language in ("sh", "bash", "yaml"):
            lines += text.splitlines()
        elif block.language == "text":
            lines += [line for line in text.splitlines() if line.startswith("next: convert ")]
    return [re.sub(r"\s#.*", "", line) for line in lines] + inline_code(page)


def slug(heading: str) -> str:
    """The anchor of a heading, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")

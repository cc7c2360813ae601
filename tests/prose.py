"""What people read, checked for plain English: `python -m tests.prose` runs in `make lint`.

A sentence has at most 30 words, and no phrase of ``phrases.toml`` comes back. Prose is Markdown without its tables and
fenced blocks, docstrings, comments, and what ``converter`` prints. Lines of Markdown end at column 100.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.passages import MAX_COLUMNS, long_lines, passages

ROOT = Path(__file__).resolve().parents[1]
MAX_WORDS = 30
MARKDOWN = ("*.md", "docs/**/*.md", "rename_rules/*.md", "fixtures/**/*.md", "tests/**/*.md")
ROOMS = ("converter", "examples", "benchmarks", "docs", "fixtures", "rename_rules", "tests")
PYTHON = ("setup.py", *(f"{room}/**/*.py" for room in ROOMS))
COMMENTED = (
    "Makefile",
    "pyproject.toml",
    "rename_rules/**/*.toml",
    "tests/**/*.toml",
    "fixtures/*.toml",
    "constraints/*.txt",
    "examples/**/*.sh",
)
GENERATED = ("docs/api.md",)  # from the docstrings, which are checked


@dataclass(frozen=True)
class Phrases:
    """What ``phrases.toml`` holds: a pattern -> what to say instead."""

    printed: dict[str, str]
    prose: dict[str, str]

    @classmethod
    def read(cls) -> Phrases:
        """Reads the file beside this module."""
        found = tomllib.loads((ROOT / "tests" / "phrases.toml").read_text("utf-8"))
        return cls(found["printed"], found["prose"])


def words(sentence: str) -> int:
    """How many words a sentence has; a code span counts as one, a placeholder or a link's address as none."""
    plain = re.sub(r"(`+).+?\1", "code", sentence)
    plain = re.sub(r"\]\([^)]*\)", "]", plain)
    return sum(1 for word in plain.split() if re.search(r"\w", word))


def mistakes(path: Path, phrases: Phrases, printed: bool = False) -> Iterator[tuple[int, str]]:
    """Line and fault of everything in one file that is not plain."""
    for passage in passages(path, printed):
        for line, sentence in passage.sentences():
            if (count := words(sentence)) > MAX_WORDS:
                yield line, f"{count} words in a sentence, {MAX_WORDS} at most: {sentence[:60]}..."
            for phrase, instead in (phrases.prose | phrases.printed if passage.printed else phrases.prose).items():
                if found := re.search(phrase, sentence):
                    yield line, f"{found[0]!r}: say {instead!r}"
    if path.suffix == ".md":
        for line in long_lines(path.read_text("utf-8")):
            yield line, f"line beyond column {MAX_COLUMNS}"


def files() -> list[Path]:
    """Everything that is checked."""
    found = {path for pattern in (*MARKDOWN, *PYTHON, *COMMENTED) for path in ROOT.glob(pattern)}
    return sorted(path for path in found if name_of(path) not in GENERATED)


def name_of(path: Path) -> str:
    """A file as it is reported: its path from the root."""
    return path.relative_to(ROOT).as_posix()


def report() -> list[str]:
    """All mistakes as `file:line: what`."""
    phrases = Phrases.read()
    return [
        f"{name_of(path)}:{line}: {fault}"
        for path in files()
        for line, fault in sorted(mistakes(path, phrases, name_of(path).startswith("converter/")))
    ]


if __name__ == "__main__":
    found = report()
    sys.stdout.writelines(f"{line}\n" for line in found)
    sys.exit(1 if found else 0)

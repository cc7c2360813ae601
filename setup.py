"""Gives the package index README.md with links that lead somewhere from there; everything else is in pyproject.toml."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from setuptools import setup

HERE = Path(__file__).resolve().parent
_PICTURES = (".svg", ".png")


def long_description() -> str:
    """README.md, with links to files of the repository, and to its own headings, as addresses."""
    source = tomllib.loads((HERE / "pyproject.toml").read_text("utf-8"))["project"]["urls"]["Source"]

    def absolute(found: re.Match[str]) -> str:
        target = found[1]
        if re.match(r"[a-z]+:", target) or target.startswith("#"):
            return found[0]
        kind = "raw" if target.endswith(_PICTURES) else "blob"
        return f"]({source}/{kind}/main/{target})"

    return re.sub(r"\]\(([^)\s]+)\)", absolute, (HERE / "README.md").read_text("utf-8"))


if __name__ == "__main__":
    setup(long_description=long_description(), long_description_content_type="text/markdown")

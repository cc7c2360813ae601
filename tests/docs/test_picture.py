"""docs/terminal.svg shows what the commands print today, but for seconds; the figures of verify are as they were drawn."""

from __future__ import annotations

import html
import re
import runpy
import shutil
from pathlib import Path
from xml.etree import ElementTree

from tests.docs.pages import ROOT

CHARACTER = 12.2  # its width, as rich draws it
SVG = (ROOT / "docs" / "terminal.svg").read_text("utf-8")


def lines_of(svg: str) -> list[str]:
    """The lines of a picture, from its pieces of text by their height; rich draws no piece that is nothing but spaces."""
    rows: dict[float, str] = {}
    for piece in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text"):
        if piece.get("clip-path"):
            y, column = float(piece.get("y", 0)), round(float(piece.get("x", 0)) / CHARACTER)
            rows[y] = rows.get(y, "").ljust(column) + html.unescape(piece.text or "")
    return [rows[y].replace("\xa0", " ").rstrip() for y in sorted(rows)]


def without_seconds(lines: list[str]) -> list[str]:
    return [re.sub(r"in \d+\.\d\d s", "in 0.00 s", line) for line in lines]


def test_pt2tf_prints_what_is_drawn(tmp_path: Path) -> None:
    maker = runpy.run_path(str(ROOT / "docs" / "make_picture.py"))
    shutil.copytree(ROOT / "fixtures" / maker["MODEL"], tmp_path / maker["MODEL"])
    command = maker["COMMANDS"][0]
    printed = [f"$ {command}", *maker["said"](command, tmp_path).splitlines()]
    assert without_seconds(lines_of(SVG))[: len(printed)] == without_seconds(printed)


def test_verify_is_drawn_with_its_verdict() -> None:
    lines = lines_of(SVG)
    assert "$ convert verify forme-italiane-tf" in lines
    assert "forme-italiane-tf: matches its source" in lines
    assert [line.split()[:2] for line in lines if line.startswith(("  files", "  weights", "  outputs"))] == [
        ["files", "passed"], ["weights", "passed"], ["outputs", "passed"],
    ]  # fmt: skip


def test_the_picture_asks_no_server_for_anything() -> None:
    assert not re.search(r"@font-face|@import|url\((?!#)|href=", SVG)

"""Draws docs/rooms.svg from the layers of import-linter in pyproject.toml: `python docs/make_rooms.py`.

docs/architecture.md says what each room is for; the words come from its table.
"""

from __future__ import annotations

import re
import sys
import tomllib
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs" / "rooms.svg"
WIDTH, ROW, GAP, LEFT, TOP = 760, 34, 8, 56, 46
# The text beside the rooms that have no row in the table.
SINGLE = {
    "specs": "what a tensor and a framework are",
    "arguments": "what callers may say",
    "errors": "the tree of errors",
}
STYLE = """
  text { font: 14px system-ui, sans-serif; fill: #1f2328 }
  .name { font-family: ui-monospace, monospace; font-weight: 600 }
  .note { font-size: 13px; fill: #57606a }
  .room { fill: #eef4fb; stroke: #7a9cc0 }
  .models { fill: #fdf3e1; stroke: #c9a25b }
  .arrow { stroke: #57606a; stroke-width: 2; fill: none }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 } .note { fill: #9da7b1 } .arrow { stroke: #9da7b1 }
    .room { fill: #17273a; stroke: #4d7199 } .models { fill: #382c14; stroke: #9a7a3d }
  }
"""
# Rooms that may import a framework.
WITH_FRAMEWORKS = ("exporting", "parity", "models")


def layers() -> list[list[str]]:
    """The rooms from the top down, those of one height together."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]
    (contract,) = (one for one in contracts if one["type"] == "layers")
    return [[room.strip(" ()") for room in re.split(r"[:|]", layer)] for layer in contract["layers"]]


def purposes() -> dict[str, str]:
    """The purpose of each room by its name, up to the first colon or semicolon if the text is long."""
    page = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    said = dict(re.findall(r"^\| `converter/(\w+)/` \| (.*) \|$", page, re.MULTILINE))
    return {name: text.replace("`", "") for name, text in (SINGLE | said).items()}


def picture() -> str:
    """The whole drawing: one box a room, and an arrow that says which way imports go."""
    rows, said = layers(), purposes()
    height = TOP + len(rows) * (ROW + GAP) + 12
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" aria-labelledby="title">',
        '<title id="title">The rooms of the package, from the top down; imports point down only</title>',
        f"<style>{STYLE}</style>",
        f'<text class="note" x="{LEFT}" y="26">Imports point down only. Yellow rooms may import a framework.</text>',
        f'<path class="arrow" d="M28 {TOP + 4} V{height - 22} m-7 -10 l7 10 l7 -10"/>',
    ]
    for number, rooms in enumerate(rows):
        y = TOP + number * (ROW + GAP)
        width = (WIDTH - LEFT - 20 - GAP * (len(rooms) - 1)) / len(rooms)
        for place, room in enumerate(rooms):
            x = LEFT + place * (width + GAP)
            kind = "room models" if room in WITH_FRAMEWORKS else "room"
            lines.append(f'<rect class="{kind}" x="{x:g}" y="{y}" width="{width:g}" height="{ROW}" rx="6"/>')
            lines.append(f'<text class="name" x="{x + 12:g}" y="{y + 22}">{escape(room)}</text>')
            if note := said.get(room):
                lines.append(f'<text class="note" x="{x + 130:g}" y="{y + 22}">{escape(note)}</text>')
    return "\n".join([*lines, "</svg>"]) + "\n"


if __name__ == "__main__":
    PICTURE.write_text(picture(), "utf-8")
    sys.stdout.write(f"{PICTURE}\n")

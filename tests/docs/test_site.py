"""The documentation site: every page is in its menu, links lead where they should, and nothing is asked of a server."""

from __future__ import annotations

import re
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.docs.pages import ROOT, prose, slug

SITE = yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))
HOOKS = runpy.run_path(str(ROOT / "docs" / "site_hooks.py"))
SOURCE = SITE["extra"]["source"]


def listed(menu: Any) -> Iterator[str]:
    for entry in menu:
        for held in entry.values() if isinstance(entry, dict) else [entry]:
            yield from listed(held) if isinstance(held, list) else [held]


def test_every_page_is_in_the_menu_once() -> None:
    pages = [path.name for path in (ROOT / "docs").glob("*.md")]
    assert sorted(listed(SITE["nav"])) == sorted([*pages, *HOOKS["FROM_ROOT"]])


def test_it_is_built_strictly_and_offline() -> None:
    assert SITE["strict"] is True
    assert set(SITE["validation"].values()) == {"warn"}, "which is an error where it is strict"
    assert SITE["theme"]["font"] is False
    assert {"search", "offline"} <= set(SITE["plugins"])
    assert "repo_url" not in SITE, "readers would ask GitHub for stars"
    assert all((ROOT / "docs" / path).is_file() for path in SITE["extra"]["polyfills"])
    assert not {"extra_css", "extra_javascript"} & set(SITE)
    said = (ROOT / "Makefile").read_text("utf-8")
    assert re.search(
        r"^site: .*\n\tNO_MKDOCS_2_WARNING=1 \.venv-site/bin/mkdocs build --quiet --strict$", said, re.MULTILINE
    )
    assert re.search(r"^lint: .*\bsite\b", said, re.MULTILINE)


def test_what_builds_it_is_pinned() -> None:
    lines = [line for line in (ROOT / "constraints" / "site.txt").read_text().splitlines() if line[:1] not in ("", "#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines), lines
    assert {"mkdocs", "mkdocs-material"} <= {line.partition("==")[0] for line in lines}


@pytest.mark.parametrize(
    ("target", "folder", "leads"),
    [
        ("formats.md#flax", "docs", "formats.md#flax"),
        ("#flax", "docs", "#flax"),
        ("../SECURITY.md#reporting", "docs", "SECURITY.md#reporting"),
        ("../tests/controls/README.md", "docs", f"{SOURCE}/blob/main/tests/controls/README.md"),
        ("../tests/controls", "docs", f"{SOURCE}/tree/main/tests/controls"),
        ("report.schema.json", "docs", "report.schema.json"),
        ("docs/ci.md", ".", "ci.md"),
        ("LICENSE", ".", f"{SOURCE}/blob/main/LICENSE"),
        ("https://keepachangelog.com", ".", "https://keepachangelog.com"),
    ],
)
def test_links_are_led(target: str, folder: str, leads: str) -> None:
    assert HOOKS["led"](target, folder, SOURCE) == leads


def test_anchors_are_those_of_github() -> None:
    for page in (ROOT / "docs").glob("*.md"):
        for heading in re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE):
            plain = re.sub(r"[`*]", "", heading)  # as the site hands it over
            assert HOOKS["slug"](plain) == slug(heading), heading


@pytest.mark.parametrize(
    ("html", "asked"),
    [
        ('<script src="https://unpkg.com/mermaid.js"></script>', ["https://unpkg.com/mermaid.js"]),
        ('<link rel="stylesheet" href="https://fonts.googleapis.com/css">', ["https://fonts.googleapis.com/css"]),
        ('<link href="//fonts.gstatic.com" rel="preconnect">', ["//fonts.gstatic.com"]),
        ("<style>@import url(https://a.b/c.css)</style>", ["https://a.b/c.css"]),
        ('<img src="http://a.b/c.png">', ["http://a.b/c.png"]),
        ('<link rel="canonical" href="https://a.b/"><a href="https://a.b/">x</a><img src="rooms.svg">', []),
    ],
)
def test_what_a_page_would_fetch_is_found(html: str, asked: list[str]) -> None:
    assert HOOKS["fetched"](html) == asked


def test_the_rooms_are_drawn_as_the_contract_has_them() -> None:
    maker = runpy.run_path(str(ROOT / "docs" / "make_rooms.py"))
    assert (ROOT / "docs" / "rooms.svg").read_text("utf-8") == maker["picture"](), "say `make docs`"
    drawn = [room for rooms in maker["layers"]() for room in rooms]
    held = {
        path.stem for path in (ROOT / "converter").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert set(drawn) == held - {"__init__", "__main__"}
    assert set(drawn) - set(maker["purposes"]()) <= {"folding"}


def test_pictures_are_there_and_described() -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for words, target in re.findall(r"!\[([^\]]*)\]\(([^)\s]+)\)", prose(page)):
            assert Path(page.parent, target).is_file(), target
            assert len(words) > 20, target

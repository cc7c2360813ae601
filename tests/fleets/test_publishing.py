"""fleet.html: everything that a stranger may have named is text there, failures stand first, and no other script runs."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path

from converter.fleets.publishing import to_page
from converter.fleets.results import Fleet, FleetTask, in_order

EVIL = '"><script>alert(1)</script>&\x1b[2J\u202e'


class Page(HTMLParser):
    """Tags, their attributes, and the texts of cells."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_the_page() -> None:
    tasks = in_order([
        FleetTask("b", "x", "done", report="fleet-reports/b.html", nbytes=7, verdict="passed"),
        FleetTask("z", EVIL, "failed", error=EVIL),
        FleetTask("a", "x", "not checked"),
    ])  # fmt: skip
    text = to_page(Fleet(Path("/secret/out"), "tf", "weights", tasks, stopped=EVIL))
    page = Page(text)
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert "secret" not in text
    assert "\x1b" not in text
    assert "\u202e" not in text
    rows = re.findall(r'<tr class="([\w-]+)">', text)
    assert rows == ["failed", "not-checked", "done"]
    assert [attributes["href"] for tag, attributes in page.tags if tag == "a"] == ["fleet-reports/b.html"]
    script = text.partition("<script>")[2].partition("</script>")[0]
    allowed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = next(attributes["content"] for tag, attributes in page.tags if "http-equiv" in attributes)
    assert policy == f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{allowed}'"
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)

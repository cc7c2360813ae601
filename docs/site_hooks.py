"""Hooks of mkdocs.yml for the build: pages from the repository's root, links out of docs, and GitHub's anchors.

The pages have to read well on GitHub, too. There a link may lead to any file of the repository. Here one to CHANGELOG.md,
CONTRIBUTING.md or SECURITY.md leads to the page made of it, and any other leads to the repository.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
# Of the repository's root, what is a page of the site.
FROM_ROOT = ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")
_ELSEWHERE = r"(?:https?:)?//[^\"'\s>)]+"
_LOADED = re.compile(rf"<(?:script|img|iframe|source|video|audio|object)\b[^>]*?\b(?:src|data)=[\"']?({_ELSEWHERE})")
_IMPORTED = re.compile(rf"url\([\"']?({_ELSEWHERE})")
_LINK = re.compile(r"(?<=\]\()([^)\s]+)(?=\))")
_FENCE = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)


def on_config(config: Any, **_: Any) -> Any:
    """Anchors follow GitHub's rules for headings."""
    config.mdx_configs["toc"] = {**config.mdx_configs.get("toc", {}), "slugify": slug}
    return config


def slug(heading: str, separator: str = "-") -> str:
    """The anchor of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", separator)


def on_files(files: Any, *, config: Any, **_: Any) -> Any:
    """Adds the pages of the repository's root."""
    from mkdocs.structure.files import File

    for name in FROM_ROOT:
        files.append(File.generated(config, name, content=(ROOT / name).read_text("utf-8")))
    return files


def on_page_markdown(markdown: str, *, page: Any, config: Any, **_: Any) -> str:
    """Corrects the links of a page, except in fenced blocks."""
    folder = "." if page.file.src_uri in FROM_ROOT else "docs"
    parts = _FENCE.split(markdown)
    parts[::2] = [_LINK.sub(lambda found: led(found[1], folder, config.extra["source"]), part) for part in parts[::2]]
    return "".join(parts)


def on_post_page(output: str, *, page: Any, **_: Any) -> str:
    """A page that would have a browser ask a server for something ends the build."""
    from mkdocs.exceptions import PluginError

    if asked := fetched(output):
        raise PluginError(f"{page.file.src_uri}: asks a server for {', '.join(asked)}")
    return output


def fetched(html: str) -> list[str]:
    """What a browser fetches from other servers to show a page; links that a reader follows do not count."""
    found = _LOADED.findall(html) + _IMPORTED.findall(html)
    for tag in re.findall(r"<link\b[^>]*>", html):
        if not re.search(r"rel=[\"']?(?:canonical|alternate|prev|next|edit)\b", tag):
            found += re.findall(rf"href=[\"']?({_ELSEWHERE})", tag)
    return found


def led(target: str, folder: str, repository: str) -> str:
    """The target of a link on the site: ``target`` as written in a page of ``folder``."""
    if re.match(r"[a-z]+:|#", target):
        return target
    path, mark, anchor = target.partition("#")
    whole = posixpath.normpath(posixpath.join(folder, path))
    if whole.startswith("docs/"):
        return whole.removeprefix("docs/") + mark + anchor
    if whole in FROM_ROOT:
        return whole + mark + anchor
    kind = "tree" if (ROOT / whole).is_dir() else "blob"
    return f"{repository.rstrip('/')}/{kind}/main/{whole}{mark}{anchor}"

"""The licence of a checkpoint, as the metadata of its model card names it, or the manifest of the conversion that made it.

It is a note for the card of what is made of the checkpoint. An unreadable one counts as none; no conversion fails
because of it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from converter.errors import ConverterError
from converter.folder.files import inside, read_json
from converter.folder.manifest import MAX_MANIFEST_BYTES, NAME

CARD = "README.md"
MAX_METADATA_BYTES = 64 * 2**10
_METADATA = re.compile(r"\A\ufeff?\s*---[ \t]*\r?\n(.*?)^---[ \t]*\r?$", re.DOTALL | re.MULTILINE)
# What the Hub takes; anything else is not a licence that a card could name.
_FIELDS = {
    "license": re.compile(r"[a-z0-9][a-z0-9.+-]{0,63}"),
    "license_name": re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._+-]{0,99}"),
    "license_link": re.compile(r"https://[!-;=?-_a-~]{1,500}"),
}


def licence_of(folder: Path) -> dict[str, str]:
    """The licence that a folder names; empty where it names none.

    Args:
        folder: of a checkpoint.

    Returns:
        ``license``, and of licences that the Hub has no name for also ``license_name`` and ``license_link``.
    """
    return _of_card(folder) or _of_manifest(folder)


def checked(fields: Any) -> dict[str, str]:
    """Of metadata from anywhere, the fields of a licence that a card may have; empty without a licence."""
    if not isinstance(fields, Mapping):
        return {}
    found = {}
    for name, pattern in _FIELDS.items():
        value = fields.get(name)
        value = value[0] if isinstance(value, list) and len(value) == 1 else value
        if isinstance(value, str) and pattern.fullmatch(value):
            found[name] = value
    return found if "license" in found else {}


def of_text(text: str) -> dict[str, str]:
    """The licence in the metadata of a card: fields that are one word or one line, or a list of one."""
    match = _METADATA.search(text)
    if not match:
        return {}
    fields = {}
    for name in _FIELDS:
        field = re.search(
            rf"^{name}:[ \t]*(?:\r?\n[ \t]*-[ \t]+(?![^\n]*\n[ \t]*-[ \t]))?([^\r\n]*)", match[1], re.MULTILINE
        )
        if field:
            value = re.sub(r"[ \t]+#.*", "", field[1]).strip()
            listed = re.fullmatch(r"\[([^,\]]*)\]", value)
            fields[name] = (listed[1] if listed else value).strip().strip("\"'")
    return checked(fields)


def _of_card(folder: Path) -> dict[str, str]:
    try:
        path = inside(folder / CARD, folder)
        if not path.is_file():  # opening a pipe would wait forever
            return {}
        with path.open("rb") as file:
            return of_text(file.read(MAX_METADATA_BYTES).decode("utf-8", "replace"))
    except (OSError, ConverterError):
        return {}


def _of_manifest(folder: Path) -> dict[str, str]:
    try:
        source = read_json(inside(folder / NAME, folder), MAX_MANIFEST_BYTES).get("source")
    except (OSError, ConverterError):
        return {}
    return checked(source.get("license")) if isinstance(source, Mapping) else {}

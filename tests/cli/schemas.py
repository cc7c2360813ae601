"""The JSON schemas of docs, and what a command printed held to one of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema

DOCS = Path(__file__).resolve().parents[2] / "docs"
# Of each command, the schema of its result; that of errors is all commands'.
RESULTS = {
    "pt2tf": "conversion",
    "tf2pt": "conversion",
    "to": "conversion",
    "combine": "conversion",
    "fleet": "fleet",
    "inspect": "inspection",
    "verify": "report",
    "reference": "recording",
    "push": "publication",
    "export": "export",
    "towers": "towers",
}


def schema(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((DOCS / f"{name}.schema.json").read_text("utf-8"))
    jsonschema.Draft202012Validator.check_schema(found)
    return found


def validated(text: str, name: str) -> dict[str, Any]:
    """One JSON object and nothing else, as its schema has it."""
    found: dict[str, Any] = json.loads(text)
    jsonschema.validate(found, schema(name), jsonschema.Draft202012Validator)
    return found

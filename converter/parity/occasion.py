"""When a checkpoint was verified, and what it is: what a page says of a run beside its findings."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from converter.errors import ConverterError
from converter.folder.manifest import VERSION, Manifest
from converter.names.configs import read_config
from converter.names.frameworks import CANONICAL
from converter.parity.sources import config_of_source

_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_OF_CI = ("GITHUB_SHA", "CI_COMMIT_SHA")
_LONGEST = 300  # bytes of .git/HEAD and of a branch


@dataclass(frozen=True)
class Occasion:
    """One verification.

    Attributes:
        date: in UTC, to the second, as ISO 8601.
        model: its class and both towers; empty where config.json does not say.
        source: what it was made from, with the commit of a source on the Hub; empty where that is not known.
        commit: of the repository that the checkpoint lies in, or that CI runs for; empty where there is none.
        version: of this program.
    """

    date: str
    model: str = ""
    source: str = ""
    commit: str = ""
    version: str = VERSION


def occasion_of(folder: Path, recorded: Manifest | None) -> Occasion:
    """What is known of this run.

    Args:
        folder: the checkpoint.
        recorded: its manifest.
    """
    source = ""
    if recorded is not None:
        source = f"{recorded.hub} at commit {recorded.commit}" if recorded.hub else Path(recorded.source).name
    return Occasion(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}", _model(folder), source, _commit(folder))


def _model(folder: Path) -> str:
    try:
        config = read_config(config_of_source(folder))
    except ConverterError:
        return ""
    return f"{config.family.classes[CANONICAL]}, {config.vision.model_type} + {config.text.model_type}"


def _commit(folder: Path) -> str:
    """The commit of the repository around a folder, read from its files: no program is run."""
    said = next((os.environ[name] for name in _OF_CI if _COMMIT.fullmatch(os.environ.get(name, ""))), "")
    if said:
        return said
    for place in (folder.absolute(), *folder.absolute().parents):
        head = _line(place / ".git" / "HEAD")
        if head:
            name = head.removeprefix("ref: ")
            found = head if name == head else _line(place / ".git" / name)
            return found if _COMMIT.fullmatch(found) else ""
    return ""


def _line(path: Path) -> str:
    try:
        if not path.is_file():
            return ""
        with path.open("rb") as file:
            return file.read(_LONGEST).decode("utf-8", "replace").strip()
    except (OSError, ValueError):  # ValueError: a NUL in a name from a file
        return ""

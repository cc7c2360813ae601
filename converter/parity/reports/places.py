"""Removes the folders of this machine from what is written to a file, because reports are uploaded, attached and mailed."""

from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from converter.parity.verify import Verification


def without_places(found: Verification) -> Verification:
    """The result, without paths of this machine.

    A checkpoint below the working folder appears by its path from there, any other by its name. A file in the home folder,
    or in Python's, appears by its path from there.
    """
    shorter = _shorter(found.places)
    changed: Verification = _replaced(found, sorted(shorter.items(), key=lambda item: -len(item[0])))
    return changed


_FOLDERS = re.compile(r"(?<![\w.:/~-])(?:[A-Za-z]:)?(?:[/\\][^\s/\\:;,'\"()]+)+(?=[/\\])[/\\]")


def without_folders(text: str, places: tuple[Path, ...]) -> str:
    """A message without paths of this machine: of a file elsewhere than in ``places`` only its name is left."""
    shorter = sorted(_shorter(places).items(), key=lambda item: -len(item[0]))
    return _FOLDERS.sub("", str(_replaced(text, shorter)))


def _shorter(places: tuple[Path, ...]) -> dict[str, str]:
    """What to write for which absolute path."""
    here, above = Path.cwd(), dict[str, str]()
    for folder, name in (
        (Path(sys.prefix), "python"),
        (Path(sys.base_prefix), "python"),
        (Path.home(), "~"),
        (here, ""),
    ):
        if folder != Path(folder.anchor):  # the start of every path
            above[f"{folder}/"] = f"{name}/" if name else ""
    for path in places:
        for full in {path, path.absolute(), path.resolve()}:
            if full.is_absolute() and full.name:
                inside = full.is_relative_to(here) and full != here
                above[str(full)] = str(full.relative_to(here)) if inside else full.name
    return above


def _replaced(value: Any, shorter: list[tuple[str, str]]) -> Any:
    if isinstance(value, str):
        for full, short in shorter:
            value = value.replace(full, short)
        return value
    if isinstance(value, Path):
        return type(value)(_replaced(str(value), shorter))
    if isinstance(value, tuple):
        return tuple(_replaced(item, shorter) for item in value)
    if isinstance(value, Mapping):
        return {name: _replaced(item, shorter) for name, item in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = (field.name for field in dataclasses.fields(value) if field.name not in ("places", "comparisons"))
        return dataclasses.replace(value, **{name: _replaced(getattr(value, name), shorter) for name in fields})
    return value

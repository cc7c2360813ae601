"""Reads ``rename_rules/``: one TOML per family, one per tower, and what is common to all."""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import rename_rules

Side = Literal["vision", "text"]
_FOLDER = Path(rename_rules.__path__[0])  # importlib.resources takes 8 ms to be imported
SIDES: tuple[Side, Side] = ("vision", "text")


@functools.cache
def rule_file(path: str) -> Mapping[str, Any]:
    """Reads one file of ``rename_rules/`` by its path without suffix, for example ``"towers/bert"``."""
    return tomllib.loads(_text(path))


@functools.cache
def tower_files(side: Side) -> Mapping[str, str]:
    """Which file serves which model type of a tower.

    Returns:
        Model type -> stem of its file in ``rename_rules/towers/``, sorted.
    """
    found: dict[str, str] = {}
    for stem, head in _tower_heads().items():
        if head["side"] == side:
            for model_type in head["model_types"]:
                if model_type in found:
                    raise ValueError(
                        f"{model_type} is served by towers/{found[model_type]}.toml and towers/{stem}.toml"
                    )
                found[model_type] = stem
    return dict(sorted(found.items()))


@functools.cache
def _tower_heads() -> Mapping[str, Mapping[str, Any]]:
    """The text above the first table of each tower's file: a file that is not needed is not parsed."""
    return {stem: tomllib.loads(_text(f"towers/{stem}").partition("\n[")[0]) for stem in _stems("towers")}


@functools.cache
def family_files() -> tuple[str, ...]:
    """Stems of the files in ``rename_rules/families/``, sorted."""
    return tuple(_stems("families"))


def supported(side: Side) -> tuple[str, ...]:
    """Model types of towers that a dual encoder can have and that have rules, sorted."""
    heads = _tower_heads()
    return tuple(
        model_type
        for model_type, stem in tower_files(side).items()
        if model_type not in heads[stem].get("family_only", ())
    )


def _stems(folder: str) -> Iterator[str]:
    names = (entry.name for entry in (_FOLDER / folder).iterdir())
    yield from sorted(name.removesuffix(".toml") for name in names if name.endswith(".toml"))


def _text(path: str) -> str:
    return (_FOLDER / f"{path}.toml").read_text("utf-8")

"""Other programs' layouts of two-tower models, as ``rename_rules/layouts/`` has them: which there are, and their files."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Any

from converter.names.rule_files import rule_file

# As ``--layout`` takes them; transformers' own has no file.
OWN = "transformers"
LAYOUTS_OF_OTHERS: tuple[str, ...] = ("open_clip",)


def layout_file(layout: str) -> Mapping[str, Any]:
    """The general rules of a layout: its files' names, and what is refused."""
    return rule_file(f"layouts/{layout}")


@functools.cache
def kinds_of(layout: str) -> Mapping[str, Mapping[str, Any]]:
    """The kinds of model that a layout has, by the stem of their files."""
    return {stem: rule_file(f"layouts/{stem}") for stem in layout_file(layout)["kinds"]}


def kind_of(layout: str, family: str) -> Mapping[str, Any] | None:
    """The file that describes how a layout keeps a family's models, or None."""
    return next((kind for kind in kinds_of(layout).values() if family in kind["families"]), None)


def families_of(layout: str) -> Iterator[str]:
    """Model types of the families whose models a layout has."""
    for kind in kinds_of(layout).values():
        yield from kind["families"]


def layout_of_weights(name: str) -> str | None:
    """The other program's layout that a weights file is named after; None for transformers' own."""
    return next((layout for layout in LAYOUTS_OF_OTHERS if name in layout_file(layout)["weights"].values()), None)

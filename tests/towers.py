"""Every tower as fixtures/towers.toml has it; all tables of towers that tests use are made from this."""

from __future__ import annotations

import datetime
import itertools
import os
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

FILE = Path(__file__).resolve().parents[1] / "fixtures" / "towers.toml"
Side = Literal["vision", "text"]
SIDES: tuple[Side, Side] = ("vision", "text")


@dataclass(frozen=True)
class Variant:
    """A tower's config with some fields changed.

    Attributes:
        changes: the fields.
        at: height and width of the images where they are not the config's.
        resizes: whether PyTorch resizes the positions for it, in float32 whatever the model is in.
    """

    changes: Mapping[str, Any]
    at: tuple[int, int] | None = None
    resizes: bool = False

    def __str__(self) -> str:
        """For the name of a test."""
        said = [f"{name}={value}" for name, value in self.changes.items()]
        return "-".join([*said, *([f"at {self.at[0]}x{self.at[1]}"] if self.at else [])]) or "plain"


@dataclass(frozen=True)
class Tower:
    """One entry of fixtures/towers.toml, which says what each of these is."""

    side: Side
    model_type: str
    main_layer: str
    config: Mapping[str, Any]
    variants: tuple[Variant, ...]
    like: str | None = None
    tensorflow: Mapping[str, Any] = field(default_factory=dict)
    since: str | None = None
    head: str | None = None
    flat_in_5: bool = False
    undeclared: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    leaves: Mapping[str, str] = field(default_factory=dict)
    other_size: tuple[int, int] | None = None
    gradients: Mapping[str, Any] = field(default_factory=dict)
    still: Mapping[str, Any] = field(default_factory=dict)
    turned: bool = False
    filled: tuple[str, ...] = ()
    idle: tuple[str, ...] = ()
    only_loads_in_4: bool = False
    fails_in: str | None = None
    new_in_oldest: tuple[str, ...] = ()


def read_towers(file: Path = FILE) -> dict[str, Tower]:
    """Every tower by its model type; an entry with a key that is not known is a mistake."""
    found: dict[str, Tower] = {}
    for side in SIDES:
        for model_type, entry in tomllib.loads(file.read_text("utf-8"))[side].items():
            variants = tuple(_variant(changes) for changes in entry.pop("variants", ()))
            keys = ("undeclared", "without", "other_size", "filled", "idle", "new_in_oldest")
            rest: dict[str, Any] = {key: tuple(entry.pop(key)) for key in keys if key in entry}
            found[model_type] = Tower(side, model_type, variants=variants, **rest, **entry)
    return found


def _variant(changes: dict[str, Any]) -> Variant:
    at = changes.pop("at", None)
    return Variant(changes, at and (at[0], at[1]), changes.pop("resizes", False))


TOWERS = read_towers()
VISION, TEXT = (tuple(t for t, tower in TOWERS.items() if tower.side == side) for side in SIDES)
# What transformers 4.57 can have in a dual encoder in TensorFlow.
IN_TENSORFLOW_4 = tuple(t for t, tower in TOWERS.items() if tower.tensorflow.get("in_dual_encoder"))


def config_of_tower(model_type: str) -> dict[str, Any]:
    """The tiny config of a tower, without its model type."""
    return dict(TOWERS[model_type].config)


def each_once(visions: Sequence[str], texts: Iterable[str]) -> list[tuple[str, str]]:
    """The fewest pairs in which every one of these towers stands; the shorter list begins again where it ends."""
    texts = list(texts)
    count = max(len(visions), len(texts))
    return list(zip(*(itertools.islice(itertools.cycle(names), count) for names in (visions, texts)), strict=True))


# Which of all pairs a run tries: another sample every day, all of them in as many days as the longer side has towers.
ROUND = int(os.environ.get("PAIRS_ROUND") or datetime.datetime.now(datetime.UTC).date().toordinal())


def sample_of_pairs(
    visions: Sequence[str] = VISION, texts: Sequence[str] = TEXT, turn: int = ROUND
) -> list[tuple[str, str]]:
    """Pairs in which every one of these towers stands once at least: others with each turn, in the end every pair."""
    shift = turn % len(texts)
    return each_once(visions, [*texts[shift:], *texts[:shift]])

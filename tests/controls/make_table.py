"""Makes the table of README.md here from faults.py: `python -m tests.controls.make_table`."""

from __future__ import annotations

from pathlib import Path

from tests.compat.towers import FAMILIES
from tests.controls.faults import SIDES, Fault, faults_of, model_config
from tests.towers import TEXT, VISION, each_once

PAGE = Path(__file__).with_name("README.md")
# Each tower in one pair at least, and every other family.
MODELS: tuple[tuple[str, ...], ...] = (*each_once(VISION, TEXT), *((family,) for family in FAMILIES))
_HEAD = """# Controls: faults that must be found

Made from `faults.py` by `python -m tests.controls.make_table`; edit that. Each fault is put into a
tiny pair of every tower and into every other family. The manifest of that checkpoint describes it
truthfully. So the three parts of a verification must behave like this:

- (a) The files never show a fault.
- (b) The weights show a fault in a weight, and name the tensor.
- (c) The outputs always show a fault, by themselves, and name where the difference begins.

If the source is gone, a truthful manifest cannot show a fault either. Then only (c) can, with a
golden reference file.

`make test` runs a sample. `make torture` runs everything, which takes a few minutes on two cores.
Both also run correct conversions, over 4 and over 50 seeds, which must show no fault. The whole
matrix has passed: every fault was found where this table says, and none in a correct conversion.

| fault | in | (a) files | (b) weights | (c) outputs | first difference |
|---|---|---|---|---|---|
"""


def page() -> str:
    """The whole page."""
    return _HEAD + "".join(f"| {' | '.join(row)} |\n" for row in _rows())


def _rows() -> list[tuple[str, ...]]:
    """A row per fault and side: with all places, and the towers of each, where they differ."""
    places: dict[tuple[str, str], dict[str, list[str]]] = {}
    kinds: dict[tuple[str, str], Fault] = {}
    for model in MODELS:
        config = model_config(*model)
        for side, tower in zip(SIDES, model if len(model) == 2 else model * 2, strict=True):
            for fault in faults_of(config, side):
                towers = places.setdefault((fault.title, side), {}).setdefault(_place(fault), [])
                if tower not in towers:
                    towers.append(tower)
                kinds[fault.title, side] = fault
    return [_row(kinds[key], key[1], places[key]) for key in sorted(places, key=lambda key: list(kinds).index(key))]


def _place(fault: Fault) -> str:
    return (
        fault.place if not fault.inside or fault.place.endswith(fault.inside) else f"{fault.place}, ... {fault.inside}"
    )


def _row(fault: Fault, side: str, places: dict[str, list[str]]) -> tuple[str, ...]:
    usual, *others = sorted(places, key=lambda place: -len(places[place]))
    where = "; ".join([usual, *(f"in {', '.join(places[place])}: {place}" for place in others)])
    weights = "must not find it" if fault.weights is None else "must find it"
    what = f"{side} config" if fault.weights is None else f"{side} weights"
    return fault.title, what, "must not find it", weights, "must find it", where


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")

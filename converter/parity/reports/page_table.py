"""The table of all layer outputs: each column sorts it, and a narrow page shows a card for each row."""

from __future__ import annotations

import math
from collections.abc import Sequence

from converter.parity.comparison import TapComparison
from converter.parity.reports.markup import shown
from converter.parity.reports.words import figure, figure_above, remark

_HEADER = (
    "layer output", "batch", "max abs diff", "at", "max rel diff", "over tolerance", "atol needed", "compared", "masked",
)  # fmt: skip


def table(taps: Sequence[TapComparison]) -> str:
    """A row for each layer output, in the order of the model until a reader sorts them."""
    head = "".join(f'<th scope="col"><button>{name}</button></th>' for name in _HEADER)
    rows = "".join(_row(tap, number) for number, tap in enumerate(taps))
    return f'<table class="taps"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'


def _row(tap: TapComparison, number: int) -> str:
    at = () if tap.index_absolute is None else tap.index_absolute
    cells = (
        (str(tap.batch), tap.batch),
        (figure(tap.greatest_absolute), tap.greatest_absolute),
        (str(list(at)) if at or tap.index_absolute is not None else "", at[0] if at else -1),
        (figure(tap.greatest_relative), tap.greatest_relative),
        (f"{tap.exceeding:,}", tap.exceeding),
        (figure_above(tap.passing_atol), tap.passing_atol),
        (f"{tap.compared:,}", tap.compared),
        (f"{tap.left_out:,}", tap.left_out),
    )
    kind = "" if tap.passed else ' class="failed"'
    said = remark(tap)  # below the name, where it needs no scrolling
    name = f"{shown(tap.where)}{f'<small>{shown(said)}</small>' if said else ''}"
    others = "".join(
        f'<td data-name="{column}" data-key="{_key(value)}">{shown(cell)}</td>'
        for column, (cell, value) in zip(_HEADER[1:], cells, strict=True)
    )
    return f'<tr{kind}><td data-key="{number}">{name}</td>{others}</tr>'


def _key(value: float | None) -> str:
    """What a script sorts by: nothing known comes last, like what is not finite."""
    return "Infinity" if value is None or not math.isfinite(value) else repr(value)

"""The plot of a tower's layers as SVG: it grows with the page, and its text does not shrink with it."""

from __future__ import annotations

import math
from collections.abc import Iterator

from converter.parity.comparison import ParityReport, TapComparison
from converter.parity.reports.markup import escaped, shown
from converter.parity.reports.words import figure, figure_above, remark
from converter.parity.taps import is_state, tower_of

# Across in percent of the width, down in pixels. Below the plot is room for the names of layers.
_HEIGHT = 240
_LOWEST, _HIGHEST = -10, 2
_LOWEST_FLOAT64 = -18
_NAMES_NARROW, _NAMES_WIDE = 14, 44  # so many names fit a telephone, and a page


def plot(report: ParityReport, tower: str) -> str:
    """The greatest difference of each state of a tower from its embeddings to its pooled output.

    A reader sees the figures of the nearest one under the mouse or the finger, and without scripts as a title.
    """
    taps = [tap for tap in report.worst if tower_of(tap.name) == tower and is_state(tap.name)]
    if not taps:
        return "<p>nothing compared</p>"
    lowest = _LOWEST_FLOAT64 if any(tap.dtype == "float64" for tap in taps) else _LOWEST
    caption = "max abs diff, all batches"
    if any(tap.greatest_absolute is None for tap in taps):
        caption += "; at the top: no value was compared"
    places = [100 * number / max(1, len(taps) - 1) for number in range(len(taps))]
    heights = [height_of(tap.greatest_absolute, lowest) for tap in taps]
    atol = report.tolerance.atol
    ground = (*_grid(lowest), _limit(atol, lowest))
    drawn = "".join((*ground, *_lines(places, heights), *_points(taps, places, heights)))
    if atol:
        caption += f'; <span class="atol">dashed: atol {atol:g}</span>'
    name = f"max abs diff of each layer output of the {tower} tower"
    return (
        f'<figure class="plot"><figcaption>{caption}</figcaption><div class="frame">'
        f'<svg role="img" aria-label="{name}">{drawn}</svg></div>'
        "<output>Point at a layer, or touch it, to read its figures.</output></figure>"
    )


def height_of(value: float | None, lowest: int) -> float:
    """Where a difference lies; one that is not known or not finite at the top, where it cannot be overlooked."""
    decade = _HIGHEST if value is None or math.isinf(value) else lowest if value == 0 else math.log10(value)
    return _HEIGHT * (1 - (min(max(decade, lowest), _HIGHEST) - lowest) / (_HIGHEST - lowest))


def _grid(lowest: int) -> Iterator[str]:
    for decade in range(lowest, _HIGHEST + 1, 2):
        y = height_of(10.0**decade, lowest)
        yield f'<line class="grid" x1="0" x2="100%" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield f'<text x="-8" y="{y + 4:.1f}" text-anchor="end">1e{decade}</text>'


def _limit(atol: float, lowest: int) -> str:
    if not atol:
        return ""
    y = height_of(atol, lowest)
    return f'<line class="limit" x1="0" x2="100%" y1="{y:.1f}" y2="{y:.1f}"/>'


def _lines(places: list[float], heights: list[float]) -> Iterator[str]:
    for number in range(1, len(places)):
        (x1, x2), (y1, y2) = places[number - 1 : number + 1], heights[number - 1 : number + 1]
        yield f'<line class="line" x1="{x1:.2f}%" x2="{x2:.2f}%" y1="{y1:.1f}" y2="{y2:.1f}"/>'


def _points(taps: list[TapComparison], places: list[float], heights: list[float]) -> Iterator[str]:
    for number, (tap, x, y) in enumerate(zip(taps, places, heights, strict=True)):
        kind, radius = ("dot", 4) if tap.passed else ("bad", 6)
        yield (
            f'<svg class="point" x="{x:.2f}%"><title>{escaped(_said(tap))}</title>'
            f'<circle class="{kind}" tabindex="0" cx="0" cy="{y:.1f}" r="{radius}"/>{_name(tap, number, len(taps))}</svg>'
        )


def _name(tap: TapComparison, number: int, count: int) -> str:
    """A point's name below the plot: of all points where they fit, else of every second, third and so on."""
    if number % math.ceil(count / _NAMES_WIDE):
        return ""
    roomy = ' class="roomy"' if number % math.ceil(count / _NAMES_NARROW) else ""
    text = shown(tap.where.partition(", ")[2])
    return f'<text{roomy} text-anchor="end" transform="translate(4,{_HEIGHT + 16}) rotate(-45)">{text}</text>'


def _said(tap: TapComparison) -> str:
    figures = f"{tap.where}: max abs diff {figure(tap.greatest_absolute)}, atol needed {figure_above(tap.passing_atol)}"
    counts = f"{tap.exceeding:,} of {tap.compared:,} values over tolerance"
    said = remark(tap)
    return f"{figures}, {counts}{'' if said in ('', 'over tolerance') else f'; {said}'}"

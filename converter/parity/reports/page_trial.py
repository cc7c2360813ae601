"""The pictures that were tried, each with the captions that either side finds most probable, and both sides' bars."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator

from converter.parity.reports.markup import escaped, shown
from converter.parity.trial import Trial

_CAPTIONS = 3  # of a picture
_SMALLEST = 0.001  # what a percentage with one digit shows


def tried(trial: Trial | None) -> str:
    """A card for each picture; nothing where none was tried."""
    if trial is None:
        return ""
    cards = "".join(_card(trial, number) for number in range(len(trial.names)))
    return f'<h2>Pictures and captions tried</h2>{_summary(trial)}<div class="cards">{cards}</div>'


def _summary(trial: Trial) -> str:
    pairs = zip(trial.reference, trial.candidate, strict=True)
    same = sum(_best(theirs) == _best(ours) is not None for theirs, ours in pairs)
    apart = [
        abs(a - b)
        for theirs, ours in zip(trial.reference, trial.candidate, strict=True)
        for a, b in zip(theirs, ours, strict=True)
    ]
    greatest = (
        "Their probabilities differ by {:.1e} at most."
        if all(map(math.isfinite, apart))
        else "Some probabilities are not finite."
    )
    return (
        f"<p>Both sides choose the same caption for {same} of {len(trial.names)} pictures. "
        f'{greatest.format(max(apart))}</p><p class="key faint">Probabilities:<i></i> reference<i class="two"></i> candidate</p>'
    )


def _best(row: tuple[float, ...]) -> int | None:
    """The most probable caption; None where a probability is not a number."""
    return row.index(max(row)) if row and all(map(math.isfinite, row)) else None


def _card(trial: Trial, number: int) -> str:
    theirs, ours = trial.reference[number], trial.candidate[number]
    order = sorted(range(len(trial.captions)), key=lambda k: -_rank(theirs[k], ours[k]))
    captions = "".join(_caption(trial.captions[k], theirs[k], ours[k]) for k in order[:_CAPTIONS])
    rest = order[_CAPTIONS:]
    if rest:
        least = max(_rank(theirs[k], ours[k]) for k in rest)
        captions += f'<p class="faint said">{len(rest)} more, {_bound(least)}</p>'
    image = base64.b64encode(trial.pictures[number]).decode()
    name = escaped(trial.names[number])
    return (
        f'<figure class="card"><img alt="{name}" src="data:image/png;base64,{image}"><div>'
        f"<figcaption>{shown(trial.names[number])}</figcaption>{captions}</div></figure>"
    )


def _rank(*sides: float) -> float:
    """By what captions are sorted: what is not a number comes first, where it cannot be overlooked."""
    return max(value if math.isfinite(value) else math.inf for value in sides)


def _caption(text: str, *sides: float) -> str:
    return f'<p class="said">{shown(text)}</p>{"".join(_bars(sides))}'


def _bars(sides: tuple[float, ...]) -> Iterator[str]:
    for value in sides:
        width = 100 * value if math.isfinite(value) else 0
        yield f'<div class="bar"><span><i style="width:{width:.2f}%"></i></span><em>{_percent(value)}</em></div>'


def _bound(value: float) -> str:
    return f"each at most {_percent(value)}" if value >= _SMALLEST or value == 0 else f"each below {_SMALLEST:.1%}"


def _percent(value: float) -> str:
    if not math.isfinite(value):
        return "NaN"
    return f"{value:.1%}" if value >= _SMALLEST or value == 0 else f"&lt;{_SMALLEST:.1%}"

"""Figures of an exported file beside its reference, and what they may be. Decides the tolerances and the gate.

float32: embeddings, which are unit vectors, within ``EMBEDDINGS_ATOL``. Logits are cosines times the trained scale, so
their rounding grows with it. They must be within ``LOGITS_ATOL``, times a tenth of the batch's greatest logit if that
is above 10. float16 and int8: each embedding's cosine with the reference's is at least the gate; logits must be finite.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from converter.exporting.options import Precision

EMBEDDINGS_ATOL = 1e-5
LOGITS_ATOL = 1e-4
_LOGITS_FROM = 10.0
LOGITS = ("logits_per_image", "logits_per_text")
SIDES: Mapping[str, str] = MappingProxyType({"image": "image_embeds", "text": "text_embeds"})
# Least cosine of any embedding with the reference's; see docs/exports.md for what was measured.
GATES: Mapping[Precision, float] = MappingProxyType({"float16": 0.9999, "int8": 0.985})
# float16 ends at 65504; some writers replace larger values by that.
_WHY: Mapping[Precision, str] = MappingProxyType(
    {
        "float16": "values overflow float16, or are too small for it; export as float32",
        "int8": "int8 loses too much of this model; choose float16, or a lower --min-cosine",
    }
)
Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Figure:
    """One output of one signature, over all its batches.

    Attributes:
        signature: its name.
        output: its name.
        compared: how many values.
        greatest: greatest absolute difference; None where a value is not finite or shapes differ.
        allowed: what it may be in the batch that is furthest off; None where cosines decide.
        cosine: least cosine of an embedding with the reference's; None of logits.
        problem: what is wrong, or empty.
    """

    signature: str
    output: str
    compared: int
    greatest: float | None
    allowed: float | None
    cosine: float | None
    problem: str = ""

    def to_json(self) -> dict[str, Any]:
        """The form in ``export.json``."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


def figure_of(
    signature: str, output: str, pairs: Sequence[tuple[Array, Array]], precision: Precision, gate: float
) -> Figure:
    """Compares one output over batches.

    Args:
        signature: whose output it is.
        output: its name.
        pairs: what the file gave and what the reference gives, batch by batch; at least one.
        precision: of the file.
        gate: least cosine, where the precision is not float32.
    """
    embeds = output in SIDES.values()
    for ours, theirs in pairs:
        if ours.shape != theirs.shape:
            return Figure(signature, output, 0, None, None, None, f"has shape {ours.shape}, expected {theirs.shape}")
        if wrong := int((~np.isfinite(ours)).sum()):
            why = ": float16 overflowed; export as float32" if precision == "float16" else ""
            return Figure(signature, output, ours.size, None, None, None, f"{wrong:,} values are not finite{why}")
    compared = sum(theirs.size for _, theirs in pairs)
    if not compared:
        return Figure(signature, output, 0, None, None, None, "nothing was compared")
    differences = [
        (float(np.abs(ours - theirs).max()), _allowed(theirs, embeds)) for ours, theirs in pairs if ours.size
    ]
    greatest, allowed = max(differences, key=lambda pair: pair[0] / pair[1])
    cosine = min(float(cosines(ours, theirs).min()) for ours, theirs in pairs if ours.size) if embeds else None
    problem = ""
    if precision == "float32" and not greatest <= allowed:
        problem = f"max abs diff {greatest:.2e}, allowed {allowed:.0e}"
    elif precision != "float32" and cosine is not None and not cosine >= gate:
        problem = f"least cosine {cosine:.5f}, expected {gate:g} or more: {_WHY[precision]}"
    return Figure(signature, output, compared, greatest, allowed if precision == "float32" else None, cosine, problem)


def _allowed(theirs: Array, embeds: bool) -> float:
    if embeds:
        return EMBEDDINGS_ATOL
    return LOGITS_ATOL * max(1.0, float(np.abs(theirs).max()) / _LOGITS_FROM)


def cosines(ours: Array, theirs: Array) -> Array:
    """The cosine of each row with the same row of the other; 0 if one of them is all zeros."""
    one, other = ours.astype(np.float64), theirs.astype(np.float64)
    lengths = np.linalg.norm(one, axis=-1) * np.linalg.norm(other, axis=-1)
    dots = np.sum(one * other, axis=-1)
    return np.asarray(np.divide(dots, lengths, out=np.zeros_like(dots), where=lengths > 0))


@dataclass(frozen=True, slots=True)
class Quality:
    """One side's results for real pictures or texts.

    Attributes:
        side: ``"image"`` or ``"text"``.
        count: how many pictures or texts.
        cosine_mean: of their embeddings with the reference's.
        cosine_min: the least of them.
        top1: share of those whose nearest other item is still the same.
        top10: share of their ten nearest others (or all there are) that are still among the ten nearest.
    """

    side: str
    count: int
    cosine_mean: float
    cosine_min: float
    top1: float | None
    top10: float | None

    def to_json(self) -> dict[str, Any]:
        """The form in ``export.json``."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


def quality_of(side: str, ours: Array, theirs: Array) -> Quality:
    """Compares embeddings of real items; neighbours are looked up in the reference's index, as a search does with old vectors."""
    near = cosines(ours, theirs)
    count = len(theirs)
    mean, least = float(near.mean()), float(near.min())
    if count < 3:
        return Quality(side, count, mean, least, None, None)
    some = min(10, count - 2)  # of all others any order has all
    asked, right = (_nearest(rows, theirs) for rows in (ours, theirs))
    top1 = float(np.mean(asked[:, 0] == right[:, 0]))
    kept = [len(set(one[:some]) & set(other[:some])) / some for one, other in zip(asked, right, strict=True)]
    return Quality(side, count, mean, least, top1, float(np.mean(kept)))


def _nearest(rows: Array, index: Array) -> Array:
    """For each row the numbers of all others in the index, the nearest first."""
    scores = rows.astype(np.float64) @ index.astype(np.float64).T
    np.fill_diagonal(scores, -np.inf)
    return np.argsort(-scores, axis=1, kind="stable")[:, :-1]

"""What both sides said of real texts and pictures: a caption's probability for each picture. Only reports show it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from converter.parity.batches import Batch
from converter.parity.runners.golden import Recording
from converter.parity.samples import Samples, is_of_samples
from converter.parity.taps import Array
from converter.parity.thumbnails import thumbnails

Probabilities = tuple[tuple[float, ...], ...]
_LOGITS = "logits_per_image"


@dataclass(frozen=True)
class Trial:
    """Pictures and captions that both sides were given, and what each made of them.

    Attributes:
        captions: one for each text; "text 1" and so on where only its tokens are known.
        names: one for each picture, likewise.
        reference: probabilities ``(pictures, captions)``; NaN where a logit is not finite.
        candidate: the same of the other side.
        pictures: a PNG of each, as the models were given it.
    """

    captions: tuple[str, ...]
    names: tuple[str, ...]
    reference: Probabilities
    candidate: Probabilities
    pictures: tuple[bytes, ...] = field(repr=False)


def trial_of(
    candidate: Recording, reference: Recording, folder: Path, config: Mapping[str, Any], samples: Samples | None
) -> Trial | None:
    """The texts and pictures of two runs; None where none went through a processor.

    Args:
        candidate: the run in question.
        reference: the run that is right by definition.
        folder: with the processor's config.
        config: of the model, which says how logits become probabilities.
        samples: what was put through the processor; None where that was done elsewhere.
    """
    for ours, theirs in zip(candidate.batches, reference.batches, strict=False):
        if is_of_samples(theirs.title) and _has_logits(theirs, theirs) and _has_logits(ours, theirs):
            pairs = config.get("model_type") in ("siglip", "siglip2")
            said, answered = (_probabilities(batch.taps[_LOGITS], pairs) for batch in (theirs, ours))
            captions, names = _named(theirs, samples)
            return Trial(captions, names, said, answered, thumbnails(theirs.inputs, folder))
    return None


def _has_logits(batch: Batch, of: Batch) -> bool:
    """Whether a side has a logit for each picture and text."""
    found = batch.taps.get(_LOGITS)
    return found is not None and found.shape == (len(of.inputs["pixel_values"]), len(of.inputs["input_ids"]))


def _named(batch: Batch, samples: Samples | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    texts, pictures = len(batch.inputs["input_ids"]), len(batch.inputs["pixel_values"])
    if samples is not None and (len(samples.texts), len(samples.pictures)) == (texts, pictures):
        return samples.texts, tuple(path.name for path in samples.pictures)
    return tuple(f"text {k + 1}" for k in range(texts)), tuple(f"picture {k + 1}" for k in range(pictures))


def _probabilities(logits: Array, pairs: bool) -> Probabilities:
    """Of each picture: a sigmoid for each caption (SigLIP), or a softmax over all of them."""
    values = logits.astype(np.float64)
    with np.errstate(all="ignore"):  # what is not finite becomes NaN, and is shown as such
        if pairs:
            found = np.where(np.isfinite(values), 1 / (1 + np.exp(-values)), np.nan)
        else:
            powers = np.exp(values - values.max(axis=-1, keepdims=True))
            found = powers / powers.sum(axis=-1, keepdims=True)
    return tuple(tuple(float(value) for value in row) for row in found)

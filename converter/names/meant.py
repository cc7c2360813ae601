"""Which of some words a person means that wrote it in another way: a class' name, capitals, other signs between its parts."""

from __future__ import annotations

import re
from collections.abc import Iterable


def meant(said: object, choices: Iterable[str], ending: str = "") -> str | None:
    """The choice with the same spelling, ignoring case, signs and a meaningless last word.

    Args:
        said: for example ``"BertModel"`` or ``"hybrid_clip"``.
        choices: what it can be.
        ending: what may have been left out at the end, for example ``"text"`` of ``"clip_text_model"``.
    """
    if not isinstance(said, str):
        return None
    word = _letters(said)
    return next((choice for choice in choices if _letters(choice) in (word, word + ending)), None)


def _letters(word: str) -> str:
    plain = re.sub(r"[^a-z0-9]", "", word.lower())
    return re.sub(r"(model|config)$", "", plain)

"""Gives a text tower more or fewer words: its table, its embedding's shape and its config change together."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import keras
from keras import ops

from converter.errors import ModelError
from converter.models.parts import Embedding


def resize_words(tower: Any, count: int) -> Any:
    """Resizes the word table of a text tower.

    Rows that exist are kept. New ones are drawn as in a new model. Functions that Keras compiled or traced before still
    use the old table: resize before ``compile`` and ``fit``.

    Args:
        tower: of texts.
        count: how many words there are to be.

    Returns:
        The variable of the table ``(count, width)``, the same object as before.

    Raises:
        ModelError: the tower has no table of words, or ``count`` is not a positive number.
    """
    words = getattr(tower.embeddings, "words", None)
    if not isinstance(words, Embedding):
        raise ModelError(f"{tower.name} has no word embeddings. Call this on a text tower, or on the whole model.")
    if count < 1:
        raise ModelError(f"new_num_tokens is {count!r}; expected a positive number, for example len(tokenizer).")
    tower.build()
    table = words.table
    if count != words.rows:
        kept = min(count, words.rows)
        rows = ops.cast(ops.convert_to_tensor(table)[:kept], table.dtype)
        new = keras.initializers.RandomNormal(stddev=words.std)((count - kept, words.width), dtype=table.dtype)
        table._shape = (count, words.width)
        table._initialize(ops.concatenate([rows, new]) if count > kept else rows)
        words.rows = count
        tower.embeddings.spec = replace(tower.embeddings.spec, vocabulary=count)
    tower.config.vocab_size = count
    return table

"""A runtime's reaction to inputs out of bounds: an error, or meaningless numbers. Measured, not assumed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from converter.errors import ExportError
from converter.exporting.checking.files import Checking
from converter.exporting.checking.inputs import expressed
from converter.exporting.running import Runtime

REFUSED, ANSWERED, EMPTY, CRASHED = "refused", "answered, and means nothing", "answered with nothing", "crashes"
Array = np.ndarray[Any, Any]


def wrong_inputs(runtime: Runtime, checking: Checking, limits: Mapping[str, Any]) -> dict[str, str]:
    """Gives ``encode_text`` what it must not be given.

    Args:
        runtime: with the file, which has passed.
        checking: how it was checked.
        limits: of the export.

    Returns:
        For an id past the vocabulary, a negative id, an empty batch and a text that is too long, where the shapes allow
        them: one of ``REFUSED``, ``ANSWERED``, ``EMPTY`` and ``CRASHED``.
    """
    signature = next(one for one in checking.signatures if one.name == "encode_text")
    found = runtime.signatures[signature.name]
    for batch in checking.batches:
        inputs, _ = expressed(batch, signature, found, checking.config, checking.normalisation)
        if inputs is not None:
            return {kind: _answer(runtime, given) for kind, given in _cases(inputs, signature.inputs, limits).items()}
    return {}


def _cases(inputs: Mapping[str, Array], shapes: Mapping[str, Any], limits: Mapping[str, Any]) -> dict[str, Any]:
    ids = inputs["input_ids"]
    past, negative = ids.copy(), ids.copy()
    past[0, 0], negative[0, 0] = limits["vocabulary"], -1
    made: dict[str, Any] = {
        "id past the vocabulary": {**inputs, "input_ids": past},
        "negative id": {**inputs, "input_ids": negative},
    }
    (count, length), _ = shapes["input_ids"]
    if count is None:
        made["empty batch"] = {name: value[:0] for name, value in inputs.items()}
    if length is None:
        more = limits["longest_text"] + 1
        longer = {name: np.ones((1, more), value.dtype) for name, value in inputs.items()}
        made["text too long"] = {**longer, "input_ids": np.resize(ids[0], (1, more))}
    return made


def _answer(runtime: Runtime, inputs: Mapping[str, Array]) -> str:
    try:
        made = runtime.run("encode_text", inputs)["text_embeds"]
    except ExportError as error:
        return CRASHED if "crashed with" in str(error) else REFUSED
    return ANSWERED if made.size else EMPTY

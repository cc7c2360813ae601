"""Taps: the named intermediates of a dual encoder, their order in the model, their names for people, their masks."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from converter.errors import ParityError, printable

Array = np.ndarray[Any, Any]

TOWERS = ("vision", "text")
# What follows the towers, in the order in which forward() computes it.
HEAD = (
    "image_features",
    "text_features",
    "image_embeds",
    "text_embeds",
    "logits_per_image",
    "logits_per_text",
    "loss",
)
_IN_TOWER = re.compile(
    r"(vision|text)\.(?:(embeddings|last_hidden_state|pooled)|(attentions|layers)\.(0|[1-9]\d{0,3}))"
)
_PLACE = {"embeddings": 0, "attentions": 1, "layers": 1, "last_hidden_state": 2, "pooled": 3}
_IN_WORDS = {
    "embeddings": "embeddings",
    "last_hidden_state": "last hidden state",
    "pooled": "pooled output",
    "image_features": "projected image features",
    "text_features": "projected text features",
    "image_embeds": "image embeddings",
    "text_embeds": "text embeddings",
    "logits_per_image": "logits per image",
    "logits_per_text": "logits per text",
    "loss": "contrastive loss",
}


def is_tap(name: str) -> bool:
    """Whether a name is one of the taps of a dual encoder."""
    return name in HEAD or _IN_TOWER.fullmatch(name) is not None


def tower_of(name: str) -> str | None:
    """The tower a tap lies in, ``"vision"`` or ``"text"``; None for what follows the towers."""
    match = _IN_TOWER.fullmatch(name)
    return match[1] if match else None


def model_order(name: str) -> tuple[int, int, int, int]:
    """Sorts taps as data flows: vision tower, text tower, projections, logits, loss; attention before its layer.

    Raises:
        ParityError: the name is not a tap.
    """
    match = _IN_TOWER.fullmatch(name)
    if match:
        kind = match[2] or match[3]
        return (TOWERS.index(match[1]), _PLACE[kind], int(match[4] or 0), int(kind == "layers"))
    if name not in HEAD:
        raise ParityError(f"{printable(name)} is not a tap; expected vision.*, text.* or one of {', '.join(HEAD)}")
    return (len(TOWERS), HEAD.index(name), 0, 0)


def in_words(name: str) -> str:
    """A tap's name for people; layers count from 0, as they do in checkpoint names.

    Returns:
        For example ``"text tower, layer 3"``, ``"vision tower, attention map of layer 0"`` or ``"logits per image"``.
    """
    match = _IN_TOWER.fullmatch(name)
    if match is None:
        return _IN_WORDS.get(name, printable(name))
    tower, whole, series, number = match.groups()
    if whole:
        return f"{tower} tower, {_IN_WORDS[whole]}"
    return f"{tower} tower, {'layer' if series == 'layers' else 'attention map of layer'} {number}"


def masked_axes(name: str) -> tuple[int, ...]:
    """The axes of a tap that run over text positions.

    Returns:
        ``(1,)`` for hidden states ``(batch, sequence, width)`` of the text tower, ``(2, 3)`` for its attention maps
        ``(batch, heads, query, key)``, nothing for every other tap.
    """
    match = _IN_TOWER.fullmatch(name)
    if match is None or match[1] != "text" or match[2] == "pooled":
        return ()
    return (2, 3) if match[3] == "attentions" else (1,)


def collect_taps(
    output: Any, image_features: Any, text_features: Any, attentions: bool, to_numpy: Callable[[Any], Array]
) -> dict[str, Array]:
    """Names every intermediate in a dual encoder's output object, ours or PyTorch's.

    Args:
        output: has ``vision_model_output`` and ``text_model_output`` with ``hidden_states``, ``attentions``,
            ``last_hidden_state`` and ``pooler_output``, and the fields of a CLIP output.
        image_features: ``(images, projection)``, projected and not yet normalised.
        text_features: ``(texts, projection)``, likewise.
        attentions: whether attention maps were asked for.
        to_numpy: turns one tensor of the framework into an array.

    Returns:
        Taps by name, in model order.

    Raises:
        ParityError: the model returned no hidden states, attention maps or pooled output where they were asked for.
    """
    taps: dict[str, Any] = {"image_features": image_features, "text_features": text_features}
    for tower in TOWERS:
        taps.update(_tower_taps(tower, getattr(output, f"{tower}_model_output"), attentions))
    for name in HEAD[2:]:
        if name != "loss" or getattr(output, "loss", None) is not None:
            taps[name] = getattr(output, name)
    return {name: to_numpy(taps[name]) for name in sorted(taps, key=model_order)}


def _tower_taps(tower: str, output: Any, attentions: bool) -> dict[str, Any]:
    hidden = _present(output, "hidden_states", tower)
    taps = {f"{tower}.embeddings": hidden[0]}
    taps.update(_numbered(f"{tower}.layers", hidden[1:]))
    taps[f"{tower}.last_hidden_state"] = _present(output, "last_hidden_state", tower)
    taps[f"{tower}.pooled"] = _present(output, "pooler_output", tower)
    if attentions:
        taps.update(_numbered(f"{tower}.attentions", _present(output, "attentions", tower)))
    return taps


def _numbered(series: str, tensors: Iterable[Any]) -> dict[str, Any]:
    found = list(tensors)
    if any(tensor is None for tensor in found):
        raise ParityError(f"{series}: the model returned None; ask for attention maps with eager attention only")
    return {f"{series}.{number}": tensor for number, tensor in enumerate(found)}


def _present(output: Any, field: str, tower: str) -> Any:
    value = getattr(output, field, None)
    if value is None or (field == "hidden_states" and len(value) < 2) or (field == "attentions" and not len(value)):
        raise ParityError(f"{tower} tower: the model returned no {field}, so that there is nothing to compare")
    return value

"""Taps: the named intermediates of a dual encoder, their order in the model, their names for people, their masks."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from converter.errors import ParityError, printable
from converter.names.configs import check_config
from converter.names.expressions import integer
from converter.names.rule_files import SIDES
from converter.names.towers import tower_rules

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
# Values inside a layer, in the order in which they are computed: the output of the dense layer at the end of each
# branch.
INNER = ("attention_output", "mlp_output")
_NUMBER = r"(?:0|[1-9]\d{0,3})"
_IN_TOWER = re.compile(
    rf"(?P<tower>vision|text)\.(?:(?P<whole>embeddings|last_hidden_state|pooled)|attentions\.(?P<map>{_NUMBER})"
    rf"|layers\.(?P<layer>{_NUMBER})(?:(?:\.(?P<block>{_NUMBER}))?\.(?P<inner>{'|'.join(INNER)}))?)"
)
_PLACE = {"embeddings": 0, "last_hidden_state": 2, "pooled": 3}
_AFTER_ALL_BLOCKS = 10_000
_IN_WORDS = {
    "attention_output": "attention output",
    "mlp_output": "MLP output",
    "embeddings": "embeddings",
    "last_hidden_state": "last hidden state",
    "pooled": "pooled output",
    "image_features": "projected image features",
    "text_features": "projected text features",
    "image_embeds": "image embeddings",
    "text_embeds": "text embeddings",
    "logits_per_image": "logits per image",
    "logits_per_text": "logits per text",
    "loss": "loss",
}


def is_tap(name: str) -> bool:
    """Whether a name is one of the taps of a dual encoder."""
    return name in HEAD or _IN_TOWER.fullmatch(name) is not None


def tower_of(name: str) -> str | None:
    """The tower of a tap, ``"vision"`` or ``"text"``; None for what follows the towers."""
    match = _IN_TOWER.fullmatch(name)
    return match["tower"] if match else None


def is_inner(name: str) -> bool:
    """Whether a tap is inside a layer."""
    match = _IN_TOWER.fullmatch(name)
    return match is not None and match["inner"] is not None


def is_state(name: str) -> bool:
    """Whether a tap is one of the states that follow each other through a tower, from embeddings to pooled output."""
    match = _IN_TOWER.fullmatch(name)
    return match is not None and match["inner"] is None and match["map"] is None


def model_order(name: str) -> tuple[int, int, int, int, int]:
    """Sorts taps as data flows: vision tower, text tower, projections, logits, loss; what is inside a layer before it.

    Raises:
        ParityError: the name is not a tap.
    """
    match = _IN_TOWER.fullmatch(name)
    if match is None:
        if name not in HEAD:
            raise ParityError(
                f"{printable(name)} is not a layer output; expected vision.*, text.* or one of {', '.join(HEAD)}"
            )
        return (len(TOWERS), HEAD.index(name), 0, 0, 0)
    tower = TOWERS.index(match["tower"])
    if match["whole"]:
        return (tower, _PLACE[match["whole"]], 0, 0, 0)
    if match["map"]:
        return (tower, 1, int(match["map"]), 0, 0)
    if match["inner"]:
        return (tower, 1, int(match["layer"]), int(match["block"] or 0), 1 + INNER.index(match["inner"]))
    return (tower, 1, int(match["layer"]), _AFTER_ALL_BLOCKS, 0)


def in_words(name: str) -> str:
    """A tap's name for people; layers count from 0, as they do in checkpoint names.

    Returns:
        For example ``"text tower, layer 3"``, ``"text tower, layer 3, attention output"``, ``"vision tower, layer 1,
        block 0, MLP output"`` (of Swin, whose layers are stages), ``"vision tower, attention map of layer 0"`` or
        ``"logits per image"``.
    """
    match = _IN_TOWER.fullmatch(name)
    if match is None:
        return _IN_WORDS.get(name, printable(name))
    tower = f"{match['tower']} tower"
    if match["whole"]:
        return f"{tower}, {_IN_WORDS[match['whole']]}"
    if match["map"]:
        return f"{tower}, attention map of layer {match['map']}"
    block = f", block {match['block']}" if match["block"] else ""
    return f"{tower}, layer {match['layer']}{block}" + (f", {_IN_WORDS[match['inner']]}" if match["inner"] else "")


def masked_axes(name: str) -> tuple[int, ...]:
    """The axes of a tap that run over text positions.

    Returns:
        ``(1,)`` for hidden states ``(batch, sequence, width)`` of the text tower and what adds up to them, ``(2, 3)``
        for its attention maps
        ``(batch, heads, query, key)``, nothing for every other tap.
    """
    match = _IN_TOWER.fullmatch(name)
    if match is None or match["tower"] != "text" or match["whole"] == "pooled":
        return ()
    return (2, 3) if match["map"] else (1,)


def required_taps(config: Mapping[str, Any], inner: bool) -> tuple[str, ...]:
    """Every tap that a run of a dual encoder has to have, from its config: what neither side has is found missing, too.

    Args:
        config: a dual encoder's config.json.
        inner: whether to record what is inside the layers.

    Returns:
        Names, in model order; without attention maps and loss, which are recorded on request.

    Raises:
        ConfigError: the config does not describe a dual encoder.
    """
    checked = check_config(config)
    found = [name for name in HEAD if name != "loss"]
    for side in (checked.vision, checked.text):
        tower, fields = side.side, side.fields
        depths = _depths(side.rules, fields.get("depths"), fields.get("num_hidden_layers"))
        given = integer(side.rules.get("layers_given", "num_hidden_layers"), fields) if depths is None else len(depths)
        layers = [str(number) for number in range(given)]
        found += [f"{tower}.{place}" for place in _PLACE] + [f"{tower}.layers.{layer}" for layer in layers]
        if inner:
            stages = [] if depths is None else list(enumerate(depths))
            blocks = [f"{stage}.{block}" for stage, depth in stages for block in range(depth)]
            found += [f"{tower}.layers.{place}.{kind}" for place in blocks or layers for kind in side.rules["taps"]]
    return tuple(sorted(found, key=model_order))


def attending(config: Any, wanted: bool) -> tuple[str, ...]:
    """The towers of a config object whose attention maps can be compared, if they are ``wanted``.

    Convolutions have none. Windows have separate keys for each query, which no mask of texts fits. PyTorch may give
    something else in their place.
    """
    found = ((tower, getattr(config, f"{tower}_config", None)) for tower in SIDES)
    rules = [(tower, tower_rules(tower, getattr(own, "model_type", None)) or {}) for tower, own in found]
    return tuple(
        tower
        for tower, said in rules
        if wanted
        and "attention_output" in said.get("taps", INNER)
        and not any(said.get("inputs", {}).get(key) for key in ("padded_inside", "no_maps"))
    )


class InnerTaps:
    """Collects values inside the layers of a running model, in the order in which they are computed.

    Modules that several layers share (ALBERT's) are distinguished by that order.
    """

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str], list[Any]] = {}

    def keep(self, tower: str, kind: str, tensor: Any) -> None:
        """Keeps the next tensor of one of ``INNER`` of a tower."""
        self._kept.setdefault((tower, kind), []).append(tensor)

    def named(self, depths: Mapping[str, Sequence[int]]) -> dict[str, Any]:
        """Everything kept since the start, by the name of its tap.

        Args:
            depths: of towers whose layers are stages of several blocks, how many there are in each.
        """
        found = {}
        for (tower, kind), tensors in self._kept.items():
            places = [f"{i}.{j}" for i, depth in enumerate(depths.get(tower, ())) for j in range(depth)]
            for number, tensor in enumerate(tensors):
                place = places[number] if number < len(places) else str(number)
                found[f"{tower}.layers.{place}.{kind}"] = tensor
        return found


def stage_depths(config: Any) -> dict[str, list[int]]:
    """Blocks per stage of the towers of a config object that have stages, for ``InnerTaps.named``."""
    found = {}
    for side in SIDES:
        own = getattr(config, f"{side}_config", None)
        rules = tower_rules(side, getattr(own, "model_type", None)) or {}
        found[side] = _depths(rules, getattr(own, "depths", None), getattr(own, "num_hidden_layers", None))
    return {tower: list(stages) for tower, stages in found.items() if stages is not None}


def _depths(rules: Mapping[str, Any], depths: Any, layers: Any) -> Sequence[int] | None:
    """How many blocks end in each hidden state, of towers whose layers are stages or have blocks of another kind around them."""
    around = rules.get("around")
    if around is None or not isinstance(layers, int):
        return depths  # type: ignore[no-any-return]
    return [*around["before"], *[1] * layers, *around["behind"]]


def collect_taps(
    output: Any,
    pooled: Mapping[str, Any],
    projected: Mapping[str, Any],
    attentions: Collection[str],
    to_numpy: Callable[[Any], Array],
    inner: Mapping[str, Any] = MappingProxyType({}),
) -> dict[str, Array]:
    """Names every intermediate in a dual encoder's output object, ours or PyTorch's.

    Args:
        output: has ``vision_model_output`` and ``text_model_output`` with ``hidden_states``, ``attentions``,
            and ``last_hidden_state``, and the fields of a CLIP output.
        pooled: by tower ``(batch, width)``, what is projected.
        projected: by tower ``(batch, projection)``, not yet normalised.
        attentions: the towers whose attention maps are requested.
        to_numpy: turns one tensor of the framework into an array.
        inner: values inside the layers, by name, as in ``InnerTaps``.

    Returns:
        Taps by name, in model order.

    Raises:
        ParityError: the model returned no requested hidden states, attention maps or pooled output.
    """
    taps: dict[str, Any] = {"image_features": projected["vision"], "text_features": projected["text"], **inner}
    for tower in TOWERS:
        taps.update(_tower_taps(tower, getattr(output, f"{tower}_model_output"), tower in attentions))
        taps[f"{tower}.pooled"] = _there(pooled.get(tower), "pooled output", tower)
    for name in HEAD[2:]:
        if name != "loss" or getattr(output, "loss", None) is not None:
            taps[name] = getattr(output, name)
    return {name: to_numpy(taps[name]) for name in sorted(taps, key=model_order)}


def _tower_taps(tower: str, output: Any, attentions: bool) -> dict[str, Any]:
    hidden = _present(output, "hidden_states", tower)
    taps = {f"{tower}.embeddings": hidden[0]}
    taps.update(_numbered(f"{tower}.layers", map(_at_its_end, hidden[1:])))
    taps[f"{tower}.last_hidden_state"] = _present(output, "last_hidden_state", tower)
    if attentions:
        taps.update(_numbered(f"{tower}.attentions", _present(output, "attentions", tower)))
    return taps


def _at_its_end(state: Any) -> Any:
    """A layer's hidden state; of a stage that gives out those of all its blocks, the last."""
    return state[-1] if isinstance(state, tuple) and state else state


def _numbered(series: str, tensors: Iterable[Any]) -> dict[str, Any]:
    found = list(tensors)
    if any(tensor is None for tensor in found):
        raise ParityError(f"{series}: the model returned None; ask for attention maps with eager attention only")
    return {f"{series}.{number}": tensor for number, tensor in enumerate(found)}


def _present(output: Any, field: str, tower: str) -> Any:
    value = getattr(output, field, None)
    empty = (field == "hidden_states" and len(value or ()) < 2) or (field == "attentions" and not len(value or ()))
    return _there(None if empty else value, field, tower)


def _there(value: Any, what: str, tower: str) -> Any:
    if value is None:
        raise ParityError(f"{tower} tower: the model returned no {what}, so there is nothing to compare")
    return value

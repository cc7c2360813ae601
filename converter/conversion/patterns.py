"""Reads the next step off names that are missing or unexpected: layers, a tower, a head, a pooler, biases."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

from converter.names.rule_files import SIDES

COMPARE = "compare config.json with the one saved with the weights"
# The first number in a name is its layer's, if it is the only one; towers with stages or groups count otherwise.
_LAYER = re.compile(r"(?P<list>.*?)[._/]+(?P<layer>\d+)[./](?!(.*[._/])?\d+[./]).*")
_POOLER = re.compile(r"[./]pooler[./]")


def way_of_missing(missing: Collection[str], surplus: Collection[str], expected: Collection[str]) -> str | None:
    """What the names have in common, and what to do about it.

    Args:
        missing: names of the model that the checkpoint lacks, as its framework spells them.
        surplus: names in the checkpoint that are none of the model's.
        expected: all names of the model.

    Returns:
        The end of a message; None where the names have nothing in common.
    """
    if (way := way_of_layers(missing, surplus, expected)) is not None:
        return way
    lacking = [side for side in SIDES if (own := _of(side, expected)) and len(_of(side, missing)) == len(own)]
    if len(lacking) == 1:
        return _tower(lacking[0], bool(_of(lacking[0], surplus)))
    if surplus or not missing:
        return None
    if list(missing) == ["logit_scale"]:
        return (
            "it is one number; put in the one that was trained (the state_dict by PyTorch's names): "
            "pt2tf({**state_dict, 'logit_scale': numpy.float32(NUMBER)}, OUT, config=...)"
        )
    if not any(_of(side, missing) for side in SIDES):
        return (
            "the towers are whole and what joins them is not; save the whole model with save_pretrained. "
            "`convert combine` draws new projections, which need training"
        )
    if all(_POOLER.search(name) for name in missing):
        return (
            "the tower was saved without its pooler (add_pooling_layer=False), whose output this model takes; put "
            "in the pooler of the checkpoint that the tower began with"
        )
    if all(re.split(r"[./]", name)[-1] == "bias" for name in missing):
        return f"the weights have no such biases; {COMPARE}, above all the fields named *bias"
    return None


def way_of_layers(missing: Collection[str], surplus: Collection[str], expected: Collection[str]) -> str | None:
    """Of a checkpoint with fewer layers than config.json says, or with more."""
    said, held = _counted(expected), _counted([*(set(expected) - set(missing)), *surplus])
    ways = []
    for key, count in said.items():
        found = held.get(key, 0)
        if found and found != count:
            ways.append(f"config.json says {count} layers of {key}, the weights have {found}; {_set(key)}")
    for at in map(_layer, (*missing, *surplus)):  # nothing else may be wrong than whole layers
        if at is None or at[0] not in said or at[1] < min(said[at[0]], held.get(at[0], 0)):
            return None
    return ". ".join(ways) or None


def _set(key: str) -> str:
    side = next((side for side in SIDES if f"{side}_model" in key), None)
    return f"correct num_hidden_layers{f' of {side}_config' if side else ''} if the weights are whole"


def _counted(names: Iterable[str]) -> dict[str, int]:
    """How many layers there are, by what stands before their number."""
    found: dict[str, int] = {}
    for at in map(_layer, names):
        if at is not None:
            found[at[0]] = max(found.get(at[0], 0), at[1] + 1)
    return found


def _layer(name: str) -> tuple[str, int] | None:
    match = _LAYER.fullmatch(name)
    return None if match is None else (match["list"], int(match["layer"]))


def _of(side: str, names: Iterable[str]) -> list[str]:
    return [name for name in names if f"{side}_model" in re.split(r"[./]", name)]


def _tower(side: str, has_others: bool) -> str:
    if has_others:
        return (
            f"the {side} tower in the file is of another kind than {side}_config; take the config.json saved with the "
            "weights, with --config FILE (in Python config=)"
        )
    return (
        f"the {side} tower is not in the file; save the whole model with save_pretrained, or join the towers: "
        "convert combine VISION TEXT OUT"
    )

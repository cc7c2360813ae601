"""Reads the next step off names that are missing or unexpected: layers, a tower, a head, a pooler, biases."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

from converter.errors import listed
from converter.names.rule_files import SIDES

COMPARE = "compare config.json with the one saved with the weights"
# Every number that is a part of a name counts: layers, or stages and the blocks in each.
_NUMBER = re.compile(r"[._/]+(\d+)(?=[./])")
_FEW_PREFIXES = 3
_POOLER = re.compile(r"[./]pooler[./]")


def way_of_missing(missing: Collection[str], surplus: Collection[str], expected: Collection[str]) -> str | None:
    """What the names have in common, and what to do about it.

    Args:
        missing: names of the model that the checkpoint lacks, as its framework spells them.
        surplus: names in the checkpoint that the model does not have.
        expected: all names of the model.

    Returns:
        The end of a message; None where the names have nothing in common.
    """
    if (way := way_of_layers(missing, surplus, expected)) is not None:
        return way
    if (prefixes := _prefixes(missing, surplus)) is not None:
        return _strip(prefixes)
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


def way_of_layers(
    missing: Collection[str], surplus: Collection[str], expected: Collection[str], alone: bool = False
) -> str | None:
    """Of a checkpoint with fewer layers than config.json says, with more, or with a gap between them.

    Args:
        missing: as in ``way_of_missing``, like what follows.
        surplus: names that the model does not have.
        expected: all names of the model.
        alone: whether it is a single tower, whose config.json has no sections.
    """
    kept = set(expected) - set(missing)
    said, held = _counted(expected), _counted([*kept, *surplus])
    ways = []
    for key, count in said.items():
        found = held.get(key, 0)
        if found and found != count:
            ways.append(f"config.json says {count} layers of {key}, the weights have {found}; {_set(key, said, alone)}")
    if not ways:
        return _way_of_gap(missing, kept) if missing and not surplus else None
    for name in (*missing, *surplus):  # nothing else may be wrong than whole layers
        if not any(key in said and layer >= _first_other(key, said, held) for key, layer in _layers(name)):
            return None
    return ". ".join(ways)


def layers_beyond(taken: Collection[str], left: Collection[str]) -> tuple[list[str], str]:
    """Names of layers of one tower that follow the last one taken, which config.json does not count; and what to do."""
    said = _counted(taken)
    beyond = [name for name in left if any(layer >= said.get(key, layer + 1) for key, layer in _layers(name))]
    return beyond, way_of_layers((), beyond, taken, alone=True) or COMPARE


def _way_of_gap(missing: Collection[str], kept: Collection[str]) -> str | None:
    """Of a checkpoint that lacks a whole layer before others that it holds."""
    there, held = {at for name in kept for at in _layers(name)}, _counted(kept)
    gone: dict[str, set[int]] = {}
    for name in missing:
        at = next((at for at in _layers(name) if at not in there and at[1] < held.get(at[0], 0)), None)
        if at is None:
            return None
        gone.setdefault(at[0], set()).add(at[1])
    lists = [f"{', '.join(map(str, sorted(layers)))} of {key}" for key, layers in gone.items()]
    return (
        f"the file lacks layers before others that it holds ({listed(lists, 3)}); it is incomplete: save the whole model again, "
        "or copy or download all of it"
    )


def _prefixes(missing: Collection[str], surplus: Collection[str]) -> list[str] | None:
    """The common prefix of the names, if every name that the model lacks exists below it, or None."""
    left, found = set(missing), set()
    for name in surplus:
        starts = [at.end() for at in re.finditer(r"[./]", name) if name[at.end() :] in left]
        if starts:
            left.discard(name[starts[0] :])
            found.add(name[: starts[0]])
    return sorted(found) if missing and not left and len(found) <= _FEW_PREFIXES else None


def _strip(prefixes: list[str]) -> str:
    stripped = "".join(f".removeprefix({prefix!r})" for prefix in prefixes)
    return (
        f"{'they stand' if len(prefixes) == 1 else 'parts of the model stand'} below {listed(prefixes)}; take that off: "
        f"pt2tf({{name{stripped}: tensor for name, tensor in state_dict.items()}}, OUT, config=...)"
    )


def _first_other(key: str, said: dict[str, int], held: dict[str, int]) -> int:
    """The first layer that can differ where the count does; the last of several stages lacks what leads to the next."""
    return min(said[key], held.get(key, 0)) - _has_lists(key, said)


def _has_lists(key: str, said: Collection[str]) -> bool:
    return any(at == key for inner in said for at, _ in _layers(f"{inner}."))


def _set(key: str, said: Collection[str], alone: bool) -> str:
    side = None if alone else next((side for side in SIDES if f"{side}_model" in key), None)
    field = "num_hidden_layers"
    if _has_lists(key, said) or _NUMBER.search(key):
        field = "the numbers of groups and of layers in each" if "group" in key else "depths"
    return f"correct {field}{f' of {side}_config' if side else ''} if the weights are whole"


def _counted(names: Iterable[str]) -> dict[str, int]:
    """The number of layers, by the prefix of their number."""
    found: dict[str, int] = {}
    for key, layer in (at for name in names for at in _layers(name)):
        found[key] = max(found.get(key, 0), layer + 1)
    return found


def _layers(name: str) -> list[tuple[str, int]]:
    """The prefix of each number in a name, outer ones first, and the number."""
    return [(name[: match.start()], int(match[1])) for match in _NUMBER.finditer(name)]


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

"""The files of fixtures/names, and the configs that their pairs were made with."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

from converter.names.wrappers import respell
from tests.towers import TOWERS, config_of_tower

NAMES = Path(__file__).parents[2] / "fixtures" / "names"

# What the pairs without a config of their own were made with, where it is not transformers' default.
_VISION = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
_VISION |= {"image_size": 32, "patch_size": 16}
_TEXT = {"vocab_size": 99, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
_SWIN = {"image_size": 32, "embed_dim": 16, "depths": [1, 1], "num_heads": [2, 2], "window_size": 4, "patch_size": 4}


@functools.cache
def table(name: str) -> Any:
    """One file of fixtures/names."""
    return json.loads((NAMES / f"{name}.json").read_text("utf-8"))


def canonical_names(said: dict[str, Any]) -> dict[str, list[int]]:
    """The names that transformers 4.57 gives tensors; those that 5.x saves where 4.57 does not know the tower."""
    found: dict[str, list[int]] = said["pt_v4"] if isinstance(said["pt_v4"], dict) else said["pt_v5"]
    return found


def parts_joined(rules: Any, said: dict[str, list[int]]) -> tuple[dict[str, list[int]], set[str]]:
    """What a writer calls tensors; those that it keeps in parts, or once for several, by canonical names, which are given too."""
    joined, wholes = {respell(name)[0]: shape for name, shape in said.items()}, set()
    for split in rules.splits:
        if split.parts[0] in joined:
            first, *others = (joined.pop(part) for part in split.parts)
            assert others == [first] * len(others)
            joined[split.whole] = [first[0] * len(split.parts), *first[1:]]
            wholes.add(split.whole)
    for once, several in rules.kept_once.items():
        if once in joined:
            joined |= dict.fromkeys(several, joined.pop(once))
            wholes |= set(several)
    return joined, wholes


def pair_fields(pair: str) -> dict[str, Any]:
    """The config.json of one pair of pairs.json."""
    if "config" in table("pairs")[pair]:
        return dict(table("pairs")[pair]["config"])
    vision, text = pair.split("+")
    return {
        "model_type": "vision-text-dual-encoder",
        "projection_dim": 16,
        "vision_config": {"model_type": vision, **(_SWIN if vision == "swin" else _VISION)},
        "text_config": {"model_type": text, **_TEXT, **({"embedding_size": 16} if text == "albert" else {})},
    }


def new_pair_fields(vision: str, text: str) -> dict[str, Any]:
    """The config.json of a pair that is to be added to pairs.json."""
    towers = {TOWERS[t].side: {"model_type": t, **config_of_tower(t)} for t in (vision, text)}
    return {
        "model_type": "vision-text-dual-encoder",
        "projection_dim": 16,
        **{f"{side}_config": fields for side, fields in towers.items()},
    }

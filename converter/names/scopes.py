"""The scope rules of ``tf_to_pt_weight_rename`` and their inverses, as the dual encoder's family file states them.

Names here are dotted and without the root scope: ``vision_model.clip.vision_model.embeddings.class_embedding``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from converter.arguments import checked
from converter.errors import ArgumentError
from converter.names.configs import TwoTowerConfig
from converter.names.families import joined


@checked()
def tf_to_pt_weight_rename(tf_weight: str) -> tuple[str]:
    """Removes the main layer from a TensorFlow weight name, exactly as transformers 4.x did.

    It replaces every match, so on a CLIP text tower it removes one level too many. It is not
    idempotent either. Conversions use ``erase_main_layer``.

    Args:
        tf_weight: dotted name without root scope.

    Returns:
        The name in a 1-tuple.

    Raises:
        ArgumentError: the name holds ``vision_model`` more than twice.

    Source: TFVisionTextDualEncoderModel.tf_to_pt_weight_rename, transformers 4.57.
    """
    return (_erase(tf_weight, limit=0),)


def erase_main_layer(tf_weight: str) -> str:
    """Erases the main layer from a TensorFlow weight name: the rule above on the first match only."""
    return _erase(tf_weight, limit=1)


def restore_main_layer(pt_weight: str, config: TwoTowerConfig) -> str:
    """Puts the main layer back into a nested (4.x) PyTorch weight name: the inverse of ``erase_main_layer``.

    Args:
        pt_weight: for example ``vision_model.vision_model.embeddings.class_embedding``.
        config: says which main layers the towers have.

    Returns:
        For example ``vision_model.clip.vision_model.embeddings.class_embedding``.
    """
    side = "vision" if pt_weight.startswith("vision_model.") else "text"
    if not pt_weight.startswith(f"{side}_model."):
        return pt_weight
    main_layer = config.tower("vision" if side == "vision" else "text").rules["main_layer"]
    clause = _clause(pt_weight)
    if clause is None:
        return pt_weight
    pattern, replacement = clause["to_tf"]
    return re.sub(pattern, replacement.format(main_layer=main_layer), pt_weight, count=1)


def _erase(tf_weight: str, limit: int) -> str:
    clause = _clause(tf_weight)
    if clause is None:
        return tf_weight
    pattern, replacement = clause["to_pt"]
    return re.sub(pattern, replacement, tf_weight, count=limit)


def _clause(name: str) -> Mapping[str, Any] | None:
    """The first clause that applies; a name that holds a scope more often than any clause says is an error."""
    for clause in joined().rules["scope"]:
        if clause["contains"] in name:
            same = [c for c in joined().rules["scope"] if c["contains"] == clause["contains"]]
            for candidate in same:
                if "count" not in candidate or name.count(candidate["contains"]) == candidate["count"]:
                    found: Mapping[str, Any] = candidate
                    return found
            raise ArgumentError(
                f"Unexpected weight name {name}: it holds {clause['contains']} {name.count(clause['contains'])} times"
            )
    return None

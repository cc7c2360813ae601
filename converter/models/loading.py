"""Weights in and out of models; all reading and writing of files is the engine's."""

from __future__ import annotations

from typing import Any

from converter.models.registry import SIDES, tower_class, tower_config


def build_tower(config: Any, side: str | None = None, **kwargs: Any) -> Any:
    """Makes a tower with fresh weights from a config of transformers.

    Args:
        config: a tower's config, or a full CLIP config when ``side`` says which half is meant.
        side: ``"vision"`` or ``"text"``; None: what the model type says.
        **kwargs: ``add_pooling_layer``, ``initial``, ``name``, ``dtype`` of the tower.

    Returns:
        The tower, not built yet.

    Raises:
        UnsupportedTower: there is no tower for the model type.
        UnsupportedOption: a config field has a value that is not supported.
    """
    if side is None:
        model_type = getattr(config, "model_type", None)
        side = next((name for name, table in SIDES.items() if model_type in table), "vision")
    config = tower_config(config, side)
    return tower_class(config, side)(config, **kwargs)

"""Models with two towers on Keras 3; everything is imported at its first use."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_PLACES = {
    "TFAltCLIPModel": "families.altclip",
    "TFCLIPModel": "families.clip",
    "TFChineseCLIPModel": "families.chinese_clip",
    "TFMetaClip2Model": "families.metaclip_2",
    "TFSiglip2Model": "families.siglip2",
    "TFSiglipModel": "families.siglip",
    "TFVisionTextDualEncoderModel": "families.vision_text_dual_encoder",
    "AutoTwoTower": "auto",
    "DualEncoderOutput": "outputs",
    "TowerOutput": "outputs",
    "LoadingReport": "loading",
    "build_tower": "loading",
    "load_tower": "loading",
    "clip_loss": "losses",
    "contrastive_loss": "losses",
    "named_variables": "names",
    "sigmoid_loss": "losses",
}

__all__ = sorted(_PLACES)


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_PLACES])

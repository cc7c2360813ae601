"""Which tower serves which model type. A further tower is its file under ``towers`` and a line here."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from converter.errors import ConfigError, UnsupportedTower, listed, printable

VISION = {
    "beit": "beit:BeitTower",
    "clip_vision_model": "clip_vision:CLIPVisionTower",
    "deit": "deit:DeiTTower",
    "dinov2": "dinov2:Dinov2Tower",
    "dinov2_with_registers": "dinov2_with_registers:Dinov2WithRegistersTower",
    "siglip_vision_model": "siglip_vision:SiglipVisionTower",
    "swin": "swin:SwinTower",
    "vit": "vit:ViTTower",
}
TEXT = {
    "albert": "albert:AlbertTower",
    "bert": "bert:BertTower",
    "camembert": "roberta:RobertaTower",
    "clip_text_model": "clip_text:CLIPTextTower",
    "ernie": "ernie:ErnieTower",
    "mpnet": "mpnet:MPNetTower",
    "roberta": "roberta:RobertaTower",
    "xlm-roberta": "roberta:RobertaTower",
    "xlm-roberta-xl": "xlm_roberta_xl:XLMRobertaXLTower",
}
SIDES = {"vision": VISION, "text": TEXT}


def tower_config(config: Any, side: str) -> Any:
    """The tower's own config: of a config that has two towers (CLIP's, SigLIP's) the part for this side.

    Args:
        config: a config of transformers.
        side: ``"vision"`` or ``"text"``.

    Returns:
        The config itself, or its ``vision_config`` / ``text_config``.
    """
    whole = getattr(config, "model_type", None) in ("clip", "siglip")
    return getattr(config, f"{side}_config") if whole else config


def tower_class(config: Any, side: str) -> type[Any]:
    """Finds the tower for a config.

    Args:
        config: a tower's config of transformers.
        side: ``"vision"`` or ``"text"``.

    Returns:
        The class, to be called with the config.

    Raises:
        ConfigError: it is no config.
        UnsupportedTower: there is no tower for this model type on this side.
    """
    model_type = getattr(config, "model_type", None)
    if not isinstance(model_type, str):
        raise ConfigError(
            f"{side}_config is a {type(config).__name__}; expected a config of transformers with a model_type. "
            "Load one with transformers.AutoConfig.from_pretrained."
        )
    if model_type not in SIDES[side]:
        raise UnsupportedTower(
            f"{side}_config.model_type is {printable(model_type)!r}; supported {side} towers: "
            f"{listed(sorted(SIDES[side]), 20)}. Use one of these, or keep this model in PyTorch."
        )
    module, name = SIDES[side][model_type].split(":")
    found: type[Any] = getattr(import_module(f"converter.models.towers.{module}"), name)
    return found

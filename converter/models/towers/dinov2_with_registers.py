"""DINOv2 with registers (https://arxiv.org/abs/2309.16588): learned tokens that belong to no patch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from converter.models.embeddings import ImageSpec
from converter.models.towers.dinov2 import Dinov2Tower
from converter.models.towers.vit import PLACES


class Dinov2WithRegistersTower(Dinov2Tower):
    """``dinov2_with_registers``; positions are resized with antialiasing, and the mask token is always there."""

    main_layer = "dinov2_with_registers"

    def images(self, config: Any) -> ImageSpec:
        """DINOv2's, with registers behind the mask token."""
        names = {
            "token": "cls_token",
            "mask_token": "mask_token",
            "registers": "register_tokens",
            **PLACES,
        }
        spec = super().images(config)
        return replace(spec, names=names, registers=config.num_register_tokens, resizing="antialiased bicubic")

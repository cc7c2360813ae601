"""DeiT (https://arxiv.org/abs/2012.12877): ViT with a distillation token behind the class token."""

from __future__ import annotations

from converter.models.towers.vit import ViTTower


class DeiTTower(ViTTower):
    """``deit``."""

    main_layer = "deit"
    tokens = {"token": "cls_token", "second_token": "distillation_token"}  # noqa: RUF012 - never written to

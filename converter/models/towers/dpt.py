"""DPT's encoder (https://arxiv.org/abs/2103.13413): ViT whose positions are resized to the image, bilinearly."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from converter.models.embeddings import ImageSpec, ResizedImageEmbeddings
from converter.models.towers.vit import ViTTower
from converter.models.vision_tower import AnySizeTower


class DPTTower(AnySizeTower, ViTTower):
    """``dpt``; pooled as ViT is."""

    main_layer = "dpt"
    embedding = ResizedImageEmbeddings

    def images(self, config: Any) -> ImageSpec:
        """The embeddings' shape."""
        return replace(super().images(config), resizing="bilinear")

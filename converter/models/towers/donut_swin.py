"""Donut's vision tower (https://arxiv.org/abs/2111.15664): Swin without the norm at its end."""

from __future__ import annotations

from converter.models.towers.swin import SwinTower


class DonutSwinTower(SwinTower):
    """``donut-swin``; the mean of the last stage's patches, as they are, pools."""

    main_layer = "donut"
    norm_at_end = False

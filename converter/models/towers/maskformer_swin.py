"""MaskFormer's Swin (https://arxiv.org/abs/2107.06278): windows shift in every grid; hidden states are those of every block."""

from __future__ import annotations

from typing import Any

from converter.models.stages import StagedTower
from converter.models.towers.swin import SwinBlock, SwinTower
from converter.models.vision_tower import Size

Tensor = Any


class AlwaysShiftedBlock(SwinBlock):
    """Shifted in a grid of one window, too."""

    def shift_of(self, size: Size) -> int:
        """The same for grids of all sizes."""
        del size
        return self.shift


class MaskFormerSwinTower(SwinTower):
    """``maskformer-swin``; of each stage the hidden states are what every block was given and what it gave.

    Attention maps are Swin's. PyTorch gives hidden states in their place.
    """

    main_layer = "maskformer_swin"
    kind = AlwaysShiftedBlock

    def state(self, inside: tuple[Tensor, ...], merged: Tensor) -> Any:
        """All states inside the stage, before its merging."""
        del merged
        return inside

    def check_size(self, size: Size) -> None:
        """Any size: a grid smaller than a window is padded, too."""
        StagedTower.check_size(self, size)

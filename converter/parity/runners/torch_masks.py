"""Masks that transformers makes of the wrong dtype, so that PyTorch's outputs would not be numbers."""

from __future__ import annotations

from typing import Any

import torch


def hook_masks(model: Any) -> list[Any]:
    """Hooks that give CANINE's attention its mask in the dtype of the model, as what is added to the scores.

    transformers multiplies a float32 mask by the lowest number of the model's dtype. In float64 that is infinite, and times 0
    not a number. What has four axes it adds as it is.

    Returns:
        The hooks, to be removed after the run; they leave models that are not in float64 alone.
    """

    def added(_module: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
        queries, keys, mask, *others = inputs
        if mask is None or mask.ndim != 3 or queries.dtype != torch.float64:
            return None
        scores = (1.0 - mask.double()).unsqueeze(1) * torch.finfo(torch.float64).min
        return (queries, keys, scores, *others)

    return [
        module.register_forward_pre_hook(added)
        for module in model.modules()
        if type(module).__name__ == "CanineSelfAttention"
    ]

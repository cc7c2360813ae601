"""Tiny PyTorch dual encoders with random weights, written by transformers itself."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")


def tiny_model(seed: int = 3, **text: Any) -> Any:
    """A CLIP and BERT dual encoder with new random weights; its sizes differ pairwise."""
    import torch
    from transformers import BertConfig, CLIPVisionConfig, VisionTextDualEncoderConfig, VisionTextDualEncoderModel

    vision = CLIPVisionConfig(
        hidden_size=24, intermediate_size=28, num_hidden_layers=2, num_attention_heads=4, image_size=15, patch_size=5
    )
    fields = {"hidden_size": 30, "intermediate_size": 34, "num_hidden_layers": 3, "num_attention_heads": 5}
    bert = BertConfig(**{**fields, "vocab_size": 67, "max_position_embeddings": 19, "type_vocab_size": 3, **text})
    config = VisionTextDualEncoderConfig.from_vision_text_configs(vision, bert, projection_dim=22)
    model = VisionTextDualEncoderModel(config).eval()
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = 0.2 * torch.randn(weight.shape, generator=draw)
            weight.copy_(noise if weight.ndim > 1 else torch.tensor(1.6) if name == "logit_scale" else weight + noise)
    return model


@pytest.fixture(scope="session")
def tiny() -> Any:
    """The model; do not change it."""
    return tiny_model()


@pytest.fixture(scope="session")
def tiny_folder(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as save_pretrained writes it; do not change it."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    tiny.save_pretrained(folder)
    return folder


@pytest.fixture
def altered(tiny_folder: Path, tmp_path: Path) -> Callable[[Callable[[dict[str, Any]], object]], Path]:
    """Writes the tiny model's folder again after a change to its tensors."""
    import shutil

    from safetensors.numpy import load_file, save_file

    def write(change: Callable[[dict[str, Any]], object]) -> Path:
        folder = tmp_path / "altered"
        shutil.copytree(tiny_folder, folder)
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return folder

    return write

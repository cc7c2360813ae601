"""The examples that need PyTorch; `examples/zero_shot.py` is tested with the models."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from converter import pt2tf, verify

pytestmark = pytest.mark.torch

ROOT = Path(__file__).resolve().parents[2]


def test_from_memory(tiny: Path, tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "examples/from_memory.py", tiny, tmp_path / "live"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout == f"{tmp_path / 'live'}: 97 tensors, 0.5 MB, compared bit for bit: True\n"
    pt2tf(tiny, tmp_path / "file")
    assert (tmp_path / "live" / "tf_model.h5").read_bytes() == (tmp_path / "file" / "tf_model.h5").read_bytes()
    for name in ("tokenizer.json", "tokenizer_config.json", "preprocessor_config.json"):
        assert (tmp_path / "live" / name).is_file(), "a complete checkpoint"
    assert verify(tmp_path / "live", reference=tiny, weights_only=True).passed

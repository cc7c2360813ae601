"""The Python in README and docs, run from the first block of a page to the last, with the shipped checkpoint and pictures.

A page may count on what a reader has: `clip-italian`, a dual encoder; a picture; a running PyTorch `model`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, blocks

pytestmark = [pytest.mark.torch, pytest.mark.tf]

GIVEN = """
import os
from transformers import VisionTextDualEncoderModel
model = VisionTextDualEncoderModel.from_pretrained("clip-italian")
"""


def run_page(name: str, folder: Path, tiny: Path) -> subprocess.CompletedProcess[str]:
    """Runs a page's blocks as one program, in a folder that has what a reader has."""
    shutil.copytree(tiny, folder / "clip-italian")
    for picture in ("gatto.jpg", "foto.png"):
        shutil.copy(ROOT / "fixtures" / "pictures" / "croce.png", folder / picture)
    texts = [block.text for block in blocks(ROOT / name) if block.language == "python"]
    assert texts
    program = "\n".join([GIVEN, *texts])
    return subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("page", ["README.md", "docs/models.md"])
def test_page_runs(page: str, tiny: Path, tmp_path: Path) -> None:
    run = run_page(page, tmp_path, tiny)
    assert run.returncode == 0, run.stderr[-3000:]
    assert run.stdout
    assert (tmp_path / "clip-italian-tf" / "tf_model.h5").is_file()

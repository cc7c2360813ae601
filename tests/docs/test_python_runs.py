"""The Python in README and docs, run from the first block of a page to the last, with the shipped checkpoint and pictures.

A page may count on what a reader has: `clip-italian`, a dual encoder; a picture; a running PyTorch `model`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, blocks

pytestmark = [pytest.mark.torch, pytest.mark.tf]

RUN = ["README.md", "docs/models.md", "docs/quickstart.md"]
# One process for all pages, since frameworks take seconds to import; a folder and a namespace for each.
PROGRAM = """
import json, os, sys
from transformers import VisionTextDualEncoderModel
for page, (folder, texts) in json.loads(sys.argv[1]).items():
    os.chdir(folder)
    given = {"__name__": "__main__", "model": VisionTextDualEncoderModel.from_pretrained("clip-italian")}
    for line, text in texts:
        exec(compile("\\n" * (line - 1) + text, page, "exec"), given)
    print("ran", page)
"""


def test_pages_run(tiny: Path, tmp_path: Path) -> None:
    pages = {}
    for page in RUN:
        folder = tmp_path / page.replace("/", "-")
        shutil.copytree(tiny, folder / "clip-italian")
        for picture in ("gatto.jpg", "foto.png"):
            shutil.copy(ROOT / "fixtures" / "pictures" / "croce.png", folder / picture)
        texts = [(block.line, block.text) for block in blocks(ROOT / page) if block.language == "python"]
        assert texts
        pages[page] = (str(folder), texts)
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(pages)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    assert [line for line in run.stdout.splitlines() if line.startswith("ran ")] == [f"ran {page}" for page in RUN]
    assert all(Path(folder, "clip-italian-tf", "tf_model.h5").is_file() for folder, _ in pages.values())

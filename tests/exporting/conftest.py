"""One export of the tiny checkpoint, in every format, and transformers.js, for all tests of exported files."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import pytest

from converter.exporting.export import export
from converter.exporting.results import Export
from converter.exporting.targets import TARGETS

FIXTURE = Path(__file__).parents[2] / "fixtures" / "clip-bert-tiny"
# transformers.js and the onnxruntime-node that it needs, as npm has them; their scripts would fetch a build for GPUs.
_INSTALL = ("npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "@huggingface/transformers@4.3.2")
_SECONDS = 120.0


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Export:
    """Of float32, in every format, into a folder that is named from here."""
    folder = tmp_path_factory.mktemp("exports") / "app"
    steps: list[tuple[str, int, int]] = []
    found = export(
        FIXTURE,
        os.path.relpath(folder),
        to=tuple(TARGETS),
        progress=lambda *step: steps.append(step),
    )
    assert steps[0][0].startswith("needs about 1.0 GB of memory and 0.0 GB of disk")
    assert [done for _, done, _ in steps] == list(range(len(steps)))
    assert {total for *_, total in steps} == {len(steps)}
    return replace(found, folder=folder)


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with transformers.js: that of TRANSFORMERS_JS, or one that npm fills."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("node or npm is not installed")
    if "TRANSFORMERS_JS" in os.environ:
        return Path(os.environ["TRANSFORMERS_JS"])
    folder = tmp_path_factory.mktemp("node")
    made = subprocess.run(_INSTALL, cwd=folder, capture_output=True, text=True, timeout=_SECONDS, check=False)
    if made.returncode:
        pytest.skip(f"npm cannot install transformers.js: {made.stderr[-200:]}")
    return folder


def edited(folder: Path, change: Any) -> None:
    """Changes what an export.json says."""
    raw = json.loads((folder / "export.json").read_text("utf-8"))
    change(raw)
    (folder / "export.json").write_text(json.dumps(raw), "utf-8")

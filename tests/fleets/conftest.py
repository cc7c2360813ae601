"""A folder of small checkpoints, and the fleet of it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.cli.conftest import convert  # noqa: F401 - a fixture


@pytest.fixture
def models(tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three checkpoints below the current folder, one of them a level deeper; and what is none."""
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b", "org/c"):
        shutil.copytree(tiny, tmp_path / "models" / name)
    (tmp_path / "models" / "notes").mkdir()
    (tmp_path / "models" / "notes" / "README.md").write_text("nothing\n")
    return tmp_path / "models"

"""All cases in one folder, whose path needs quotes in a shell."""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path

import pytest

from tests.tiny import FIXTURES

CASES = FIXTURES / "cases"


@pytest.fixture(scope="session")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folders of fixtures/cases, and those of more.tar.xz, below a folder with spaces, quotes and an umlaut."""
    root = tmp_path_factory.mktemp("people") / "was sie's Müller 名 bringen"
    with tarfile.open(CASES / "more.tar.xz") as archive:
        archive.extractall(root, filter="data")
    for folder in CASES.iterdir():
        if folder.is_dir():
            shutil.copytree(folder, root / folder.name, dirs_exist_ok=True)
    return root

"""One export of the tiny checkpoint, in every format, for all tests of exported files."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import pytest

from converter.exporting.export import export
from converter.exporting.results import Export
from converter.exporting.targets import TARGETS

FIXTURE = Path(__file__).parents[2] / "fixtures" / "clip-bert-tiny"


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


def edited(folder: Path, change: Any) -> None:
    """Changes what an export.json says."""
    raw = json.loads((folder / "export.json").read_text("utf-8"))
    change(raw)
    (folder / "export.json").write_text(json.dumps(raw), "utf-8")

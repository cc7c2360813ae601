"""What an export says that it needs before it begins."""

from __future__ import annotations

import pytest

from converter.exporting import export
from converter.exporting.options import ExportOptions, Precision
from converter.exporting.targets import TARGETS


@pytest.mark.parametrize(
    ("names", "precision", "disk"),
    [
        (["savedmodel"], "float32", 1020),
        (["litert"], "float32", 2020),  # and the SavedModel that LiteRT's converter reads
        (["savedmodel", "litert"], "float32", 3040),
        (["litert"], "float16", 2510),  # and one in float32 beside it, whose time is told
    ],
)
def test_disk(names: list[str], precision: Precision, disk: int) -> None:
    targets = [TARGETS[name] for name in names]
    assert export._needs(targets, 1000, ExportOptions(precision=precision)).disk == disk

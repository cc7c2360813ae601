"""Names folded for people."""

from __future__ import annotations

import pytest

from converter.folding import fold


@pytest.mark.parametrize(
    ("names", "folded"),
    [
        ([], []),
        (["a"], [("a", 1)]),
        (["layer.0.x", "layer.1.x", "layer.2.x", "b"], [("layer.{0...2}.x", 3), ("b", 1)]),
        (["layer.0.x", "layer.0.y"], [("layer.0.x", 1), ("layer.0.y", 1)]),
        (["layer.0.x", "layer.2.x"], [("layer.{0,2}.x", 2)]),
        (["a.0.b.0", "a.0.b.1", "a.1.b.0", "a.1.b.1"], [("a.{0...1}.b.{0...1}", 4)]),
        (["7"], [("7", 1)]),
    ],
)
def test_fold(names: list[str], folded: list[tuple[str, int]]) -> None:
    assert fold(names) == folded


def test_names_that_hold_what_nobody_expects() -> None:
    """Names come from files: a NUL in one is a character like others."""
    assert fold(["a\0b.1", "a\0b.2", "\0"]) == [("a\0b.{1...2}", 2), ("\0", 1)]

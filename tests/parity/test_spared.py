"""What the reference's process does without."""

from __future__ import annotations

import pytest

from converter.parity.runners import reference


@pytest.mark.parametrize("installed", [(), *((name,) for name in reference._ON_SCIPY)])
def test_scipy_is_hidden_only_where_nothing_else_that_transformers_imports_needs_it(monkeypatch, installed) -> None:
    monkeypatch.setattr(reference, "find_spec", lambda name: name if name in installed else None)
    assert reference._spared() == (() if installed else ("scipy",))

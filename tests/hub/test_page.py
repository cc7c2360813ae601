"""The commands of docs/to-tensorflow.md, against a Hub that has the model it names; what needs a framework is left out."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.docs.pages import ROOT, blocks
from tests.hub.conftest import files_of
from tests.hub.loopback import Hub
from tests.tiny import FIXTURE

PAGE = ROOT / "docs" / "to-tensorflow.md"
LINES = [
    line.removeprefix("$ convert ")
    for block in blocks(PAGE)
    if block.language == "console"
    for line in block.text.splitlines()
    if line.startswith(("$ convert inspect", "$ convert pt2tf"))
]


def test_the_page_does_what_it_says(
    hub: Hub, convert: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add("clip-italian/clip-italian", files_of(FIXTURE))
    monkeypatch.chdir(tmp_path)
    assert len(LINES) == 2
    for line in LINES:
        assert convert(*shlex.split(line)).status == 0, line
    assert (tmp_path / "clip-italian-tf" / "tf_model.h5").is_file()

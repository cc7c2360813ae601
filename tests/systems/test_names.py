"""Names that Windows takes for something else than a file, and second names where links are forbidden."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from converter.specs import is_file_name
from converter.system.names import name_twice

PLAIN = ["model.safetensors", "model-00001-of-00002.h5", "console.bin", "common", "com", ".hidden", "perch\u00e9.bin"]
STRANGE = ["C:model.bin", "model.bin:stream", "CON", "con.bin", "nul.tar.gz", "COM1", "lpt\u00b2.bin", "model.bin.", "model.bin ",
           "a?b", "a*b", "a|b", "a<b", 'a"b', "a\nb"]  # fmt: skip


@pytest.mark.parametrize("name", [*PLAIN, *STRANGE])
@pytest.mark.parametrize("platform", ["linux", "darwin", "win32"])
def test_file_names(monkeypatch: pytest.MonkeyPatch, name: str, platform: str) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    assert is_file_name(name) is (name in PLAIN or platform != "win32")


@pytest.mark.parametrize("forbidden", [(), ("symlink",), ("symlink", "link")])
def test_a_second_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forbidden: tuple[str, ...]) -> None:
    def refuse(*_: object) -> None:
        raise OSError("a required privilege is not held by the client")

    for call in forbidden:
        monkeypatch.setattr(os, call, refuse)
    (tmp_path / "a").write_text("bytes")
    name_twice(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_text() == "bytes"
    assert (tmp_path / "b").is_symlink() is (not forbidden)
    assert (tmp_path / "b").stat().st_nlink == (2 if forbidden == ("symlink",) else 1)

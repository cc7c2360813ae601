"""The licence that a folder names: of the model card's metadata, else of the manifest; nothing that no card could hold."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from converter.folder.licence import MAX_METADATA_BYTES, checked, licence_of, of_text

MIT = {"license": "mit"}
OTHER = {"license": "other", "license_name": "my-licence", "license_link": "https://a.b/LICENSE"}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("---\nlicense: mit\n---\nText", MIT),
        ("\ufeff\n---\r\ntags:\r\n- x\r\nlicense: mit\r\n---\r\n", MIT),
        ('---\nlicense: "mit"  # free\n---\n', MIT),
        ("---\nlicense: [mit]\n---\n", MIT),
        ("---\nlicense:\n- mit\ntags:\n- a\n- b\n---\n", MIT),
        ("---\nlicense:\n  - mit\n---\n", MIT),
        ("---\n" + "".join(f"{name}: {value}\n" for name, value in OTHER.items()) + "---\n", OTHER),
        ("---\nlicense: other\nlicense_name: my-licence\nlicense_link: LICENSE\n---\n", dict(list(OTHER.items())[:2])),
        ("---\nlicense:\n- mit\n- apache-2.0\n---\n", {}),
        ("---\nlicense: [mit, apache-2.0]\n---\n", {}),
        ("---\nmodel:\n  license: mit\n---\n", {}),
        ("---\nlicense: <script>\n---\n", {}),
        ("---\nlicense: |\n  mit\n---\n", {}),
        ("---\nlicense_name: my-licence\n---\n", {}),
        ("Text\n---\nlicense: mit\n---\n", {}),
        ("---\nlicense: mit\n", {}),
        ("", {}),
    ],
)
def test_of_a_card(tmp_path: Path, text: str, found: dict[str, str]) -> None:
    (tmp_path / "README.md").write_bytes(text.encode())
    assert of_text(text) == found
    assert licence_of(tmp_path) == found


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        (MIT | {"tags": ["x"]}, MIT),
        ({"license": ["mit"]}, MIT),
        ({"license": ["mit", "gpl"]}, {}),
        ({"license": "mit\nevil: 1"}, {}),
        ({"license": "m" * 65}, {}),
        ({"license": {"a": 1}}, {}),
        (OTHER | {"license_link": "javascript:alert(1)"}, {"license": "other", "license_name": "my-licence"}),
        (OTHER | {"license_link": "https://a.b/ \u202e"}, {"license": "other", "license_name": "my-licence"}),
        (OTHER | {"license_name": "x: [}"}, {"license": "other", "license_link": "https://a.b/LICENSE"}),
        (None, {}),
        ([1], {}),
    ],
)
def test_what_a_card_cannot_hold_is_left_out(fields: Any, found: dict[str, str]) -> None:
    assert checked(fields) == found


def test_of_a_manifest(tmp_path: Path) -> None:
    """A checkpoint that was converted before has no card, but its manifest says."""
    (tmp_path / "conversion.json").write_text(json.dumps({"source": {"license": MIT}}))
    assert licence_of(tmp_path) == MIT
    (tmp_path / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    assert licence_of(tmp_path) == {"license": "apache-2.0"}


def test_no_card_fails_a_conversion(tmp_path: Path) -> None:
    assert licence_of(tmp_path) == {}
    (tmp_path / "README.md").mkdir()
    (tmp_path / "conversion.json").write_text("[")
    assert licence_of(tmp_path) == {}
    (tmp_path / "README.md").rmdir()
    (tmp_path / "README.md").write_bytes(b"---\n\xff\nlicense: mit\n---\n")
    assert licence_of(tmp_path) == MIT
    (tmp_path / "README.md").write_text("---\n" + "#" * MAX_METADATA_BYTES + "\nlicense: mit\n---\n")
    assert licence_of(tmp_path) == {}
    (tmp_path / "README.md").unlink()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n")
    (tmp_path / "elsewhere" / "README.md").symlink_to(tmp_path / "README.md")
    assert licence_of(tmp_path / "elsewhere") == {}, "a link out of the folder"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="has no pipes")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "README.md")
    assert licence_of(tmp_path) == {}

"""Tokenizers and image processors of checkpoints from anywhere."""

from __future__ import annotations

import builtins
import json
import shutil
from pathlib import Path

import pytest

from converter.errors import ParityError
from converter.parity.runners import processing

pytestmark = pytest.mark.torch


@pytest.mark.parametrize(
    ("kind", "file"), [("AutoTokenizer", "tokenizer_config.json"), ("AutoImageProcessor", "preprocessor_config.json")]
)
def test_code_of_a_processor_does_not_run(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, file: str
) -> None:
    """Nor is anybody asked whether it may, which would wait for an answer."""
    transformers = pytest.importorskip("transformers")
    asked: list[object] = []
    monkeypatch.setattr(builtins, "input", asked.append)
    folder = tmp_path / "hostile"
    shutil.copytree(tiny_folder, folder)
    for name in ("processor_config.json", "preprocessor_config.json"):
        (folder / name).unlink(missing_ok=True)
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\nclass Evil: pass\n")
    code = "evil.Evil" if kind == "AutoImageProcessor" else ["evil.Evil", "evil.Evil"]
    types = {"tokenizer_class": "Evil", "image_processor_type": "Evil", "auto_map": {kind: code}}
    (folder / file).write_text(json.dumps(types))
    with pytest.raises(ParityError) as caught:
        processing._load(getattr(transformers, kind), "processor", folder)
    assert str(caught.value).startswith(f"the processor of {folder} cannot be loaded: ValueError: ")
    assert str(caught.value).isprintable()
    assert not (tmp_path / "ran").exists()
    assert asked == []

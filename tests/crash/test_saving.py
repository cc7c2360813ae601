"""A model is saved into one folder after every epoch, as ``save_pretrained`` does, and the disk fills at any stage.

``save_pretrained`` hands its variables to ``write_tensors``; here they come without a framework.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from converter.checkpoints.memory import read_state_dict
from converter.conversion.of_tensors import write_tensors
from converter.errors import TargetError
from converter.folder.manifest import read_manifest
from converter.names.frameworks import KERAS
from tests.crash.conftest import Mounted
from tests.crash.sources import foreign, put_foreign
from tests.crash.test_disk_full import CALLS, CODES, DISK, PAGE
from tests.hdf5_files import read_all
from tests.torture import FULL, rounds

TOKENIZER = {"tokenizer.json": "{}", "vocab.txt": "a\nb", "qwen.tiktoken": "YQ== 0", "notes.txt": "mine"}
KINDS = {"h5": ("tf", "h5", "tf_model.h5"), "safetensors": ("tf", "safetensors", "model.safetensors")}
KINDS["PyTorch"] = ("pt", "safetensors", "model.safetensors")
RENAME: tuple[Any, str] = (Path, "rename")


class Training:
    """A model whose every weight says how many epochs it was trained."""

    def __init__(self, small: Path, out: Path, kind: str) -> None:
        self.out, self.epoch = out, 0
        self._framework, self._container, self._name = KINDS[kind]
        self._config = json.loads((small / "tf" / "config.json").read_text())
        self._weights = read_all(small / "tf" / "tf_model.h5")

    def save(self) -> None:
        """The next epoch ends: as ``save_two_towers`` does it."""
        self.epoch += 1
        held = {name: np.full_like(array, self.epoch) for name, array in self._weights.items()}
        tensors = read_state_dict(held).tensors.values()
        write_tensors(
            self._config, tensors, self.out, framework=KERAS, target=self._framework, format=self._container,
            overwrite=True,
        )  # fmt: skip

    def saved(self) -> int:
        """Of which epoch the checkpoint is: all of its weights, and the manifest beside them knows the files."""
        path = self.out / self._name
        held = read_all(path) if path.suffix == ".h5" else load_file(path)
        (epoch,) = {float(value) for array in held.values() for value in (array.min(), array.max()) if array.size}
        recorded = read_manifest(self.out)
        assert recorded is not None
        assert {name: record.size for name, record in recorded.files.items()} == {
            name: (self.out / name).stat().st_size for name in (self._name, "config.json")
        }
        return int(epoch)


@pytest.fixture(params=KINDS)
def training(request: pytest.FixtureRequest, small: Path, tmp_path: Path) -> Training:
    """After its first epoch; beside the checkpoint lie a tokenizer and files of others."""
    return begun(small, tmp_path / "place" / "out", request.param)


def begun(small: Path, out: Path, kind: str) -> Training:
    made = Training(small, out, kind)
    made.save()
    put_foreign(out)
    for name, text in TOKENIZER.items():
        (out / name).write_text(text)
    return made


def others(out: Path) -> object:
    """What is not the model's: to the inode and the times of change."""
    beside = [((out / name).stat().st_ino, (out / name).stat().st_ctime_ns) for name in TOKENIZER]
    return foreign(out), beside, {name: (out / name).read_text() for name in TOKENIZER}


def failing(
    save: Callable[[], None], call: tuple[Any, str], number: int, code: int, monkeypatch: pytest.MonkeyPatch
) -> bool:
    """Lets one call, counted from 1, fail as on a full disk; whether there were as many."""
    owner, attribute = call
    real, seen = getattr(owner, attribute), 0

    def fails(*arguments: Any, **options: Any) -> Any:
        nonlocal seen
        mode = options.get("mode", arguments[1] if len(arguments) > 1 else "r")
        if attribute not in ("open", "File") or set(mode) & set("wxa+"):
            seen += 1
            if seen == number:
                raise OSError(code, os.strerror(code))
        return real(*arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(owner, attribute, fails)
        try:
            save()
        except TargetError as error:
            assert "cannot be " in str(error)
            return True
    return seen >= number


@pytest.mark.parametrize("code", CODES if FULL else ["ENOSPC"])
def test_every_call_that_writes_may_fail(training: Training, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """The old checkpoint is there, or the new one, whole; what is not ours was never touched."""
    out = training.out
    before, names = others(out), sorted(path.name for path in out.iterdir())
    tried, kept = 0, 0
    for call in (*CALLS, RENAME):
        number, most = 1, 100 if FULL or call == RENAME else 3
        while number <= most:
            old = training.saved()
            happened = failing(training.save, call, number, CODES[code], monkeypatch)
            assert training.saved() in (old, training.epoch), (call, number)
            assert others(out) == before
            assert sorted(path.name for path in out.iterdir()) == names
            assert [path.name for path in out.parent.iterdir()] == ["out"]
            if not happened:
                break
            tried, kept, number = tried + 1, kept + (training.saved() == old), number + 1
    assert tried >= 12
    assert kept >= 10
    training.save()
    assert training.saved() == training.epoch


@pytest.mark.parametrize("kind", KINDS if FULL else ["h5"])
def test_a_disk_that_is_full(small: Path, mounted: Mounted, kind: str) -> None:
    """A tmpfs with room for more and more pages, until an epoch fits."""
    disk = mounted("tmpfs", f"size={DISK}")
    training = begun(small, disk / "out", kind)
    before, ballast = others(training.out), disk / "ballast"
    pages = sum(path.stat().st_size for path in training.out.iterdir() if path.is_file()) // PAGE + 16
    turns, refused = rounds(sample=4, full=60), 0
    for free in [pages * turn // turns for turn in range(turns)] + [pages]:
        ballast.unlink(missing_ok=True)
        ballast.write_bytes(b"\0" * (shutil.disk_usage(disk).free - free * PAGE))
        old = training.saved()
        try:
            training.save()
        except TargetError as error:
            assert "cannot be " in str(error)
            refused += 1
            assert training.saved() == old
        else:
            assert training.saved() == training.epoch
        assert others(training.out) == before
        assert sorted(path.name for path in disk.iterdir()) == ["ballast", "out"]
    assert refused >= turns - 1
    ballast.unlink()
    training.save()
    assert training.saved() == training.epoch

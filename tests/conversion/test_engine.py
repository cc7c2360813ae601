"""Whole conversions that go wrong midway leave nothing; what is dropped, restored and refused is said."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converter import pt2tf, tf2pt
from converter.conversion import writing
from converter.errors import ConverterError, CorruptCheckpoint, PlanError, TargetError
from converter.folder import sidecars
from tests.hdf5_files import read_all, write_h5
from tests.tiny import FIXTURE, Arrays, assert_same, config_of, load, tensors_of, write_checkpoint, write_tiny

POSITIONS = "text_model.embeddings.position_ids"


def with_position_ids(folder: Path, ids: Any) -> Arrays:
    tensors = tensors_of(config_of())
    write_checkpoint(folder, config_of(), tensors | {POSITIONS: np.array([ids])})
    return tensors


def refusal(source: Path, out: Path, **options: Any) -> ConverterError:
    before = sorted(out.parent.iterdir())
    with pytest.raises(ConverterError) as caught:
        pt2tf(source, out, **options)
    assert sorted(out.parent.iterdir()) == before
    return caught.value


@pytest.mark.parametrize("dtype", [np.int64, np.int32])
def test_position_ids_are_dropped_and_said_so(tmp_path: Path, dtype: Any) -> None:
    tensors = with_position_ids(tmp_path / "pt", np.arange(41).astype(dtype))
    there = pt2tf(tmp_path / "pt", tmp_path / "tf")
    assert [item.name for item in there.dropped] == [POSITIONS]
    tf2pt(tmp_path / "tf", tmp_path / "back")
    assert_same(load(tmp_path / "back" / "model.safetensors"), tensors)


@pytest.mark.parametrize("place", [0, 20, 40])
def test_other_position_ids_are_refused(tmp_path: Path, place: int) -> None:
    ids = np.arange(41)
    ids[place] += 1
    with_position_ids(tmp_path / "pt", ids)
    error = refusal(tmp_path / "pt", tmp_path / "tf")
    assert type(error) is PlanError
    assert str(error) == (
        f"{POSITIONS}: holds other values than transformers computes. Leaving it out would change the model; keep it in PyTorch"
    )


def test_swins_index_comes_and_goes(tmp_path: Path) -> None:
    tensors = write_tiny(tmp_path / "pt", "swin")
    assert len(pt2tf(tmp_path / "pt", tmp_path / "tf").restored) == 4
    back = tf2pt(tmp_path / "tf", tmp_path / "v4")
    assert (len(back.restored), len(back.dropped)) == (4, 0)
    found = load(tmp_path / "v4" / "model.safetensors")
    index = found.pop("vision_model.encoder.layers.0.blocks.0.attention.self.relative_position_index")
    assert (index.dtype, index.shape, index[0, 0], index[0, 8]) == (np.int64, (9, 9), 12, 0)
    assert len(found) == len(tensors) + 3
    back = tf2pt(tmp_path / "tf", tmp_path / "v5", names="v5")
    assert (len(back.restored), len(back.dropped)) == (0, 4)
    assert_same(load(tmp_path / "v5" / "model.safetensors"), tensors)


def test_biases_that_are_not_zero_are_refused(tmp_path: Path) -> None:
    config = config_of("vit", vision_fields={"qkv_bias": False})
    tensors = tensors_of(config)
    write_checkpoint(tmp_path / "pt", config, tensors)
    assert len(pt2tf(tmp_path / "pt", tmp_path / "tf").restored) == 9
    tf2pt(tmp_path / "tf", tmp_path / "back")
    assert_same(load(tmp_path / "back" / "model.safetensors"), tensors)
    held = read_all(tmp_path / "tf" / "tf_model.h5")
    name = "vision_model/vit/encoder/layer_._0/attention/attention/query/bias"
    held[name][3] = 1e-30
    (tmp_path / "tf" / "tf_model.h5").unlink()
    write_h5(tmp_path / "tf" / "tf_model.h5", held)
    with pytest.raises(PlanError, match=f"^{name}: holds other values than transformers computes"):
        tf2pt(tmp_path / "tf", tmp_path / "again")


def test_source_that_is_replaced_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tiny(tmp_path / "pt")
    real = sidecars.copy_sidecars

    def replace(*arguments: Any, **options: Any) -> Any:
        weights = tmp_path / "pt" / "model.safetensors"
        weights.write_bytes(weights.read_bytes())
        os.utime(weights, ns=(1, 1))
        return real(*arguments, **options)

    monkeypatch.setattr(writing, "copy_sidecars", replace)
    error = refusal(tmp_path / "pt", tmp_path / "tf")
    assert type(error) is CorruptCheckpoint
    assert str(error) == f"{tmp_path / 'pt'}: changed while it was being read; convert it again"


def test_source_that_shrinks_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tiny(tmp_path / "pt")
    weights = tmp_path / "pt" / "model.safetensors"
    real = writing._allocate

    def shrink(*arguments: Any) -> Any:
        os.truncate(weights, weights.stat().st_size // 2)
        return real(*arguments)

    monkeypatch.setattr(writing, "_allocate", shrink)
    error = refusal(tmp_path / "pt", tmp_path / "tf")
    assert type(error) is CorruptCheckpoint
    assert str(error) == f"{weights.parent}: changed while it was being read; convert it again"


def test_a_disk_that_is_known_to_be_too_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tiny(tmp_path / "pt")
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9, 1000))
    error = refusal(tmp_path / "pt", tmp_path / "tf")
    assert type(error) is TargetError
    assert str(error) == (
        f"{tmp_path / 'tf'}: cannot be written: it needs 0 MB, the disk has 0 MB free; free some space"
    )


@pytest.mark.parametrize("call", ["pwrite", "copy_file_range"])
def test_a_disk_that_fills_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    write_tiny(tmp_path / "pt")

    def fail(*_: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, call, fail, raising=False)
    monkeypatch.setattr("converter.tensors.batches.GATHERED_BYTES", 1)  # as if the tensors were large
    error = refusal(tmp_path / "pt", tmp_path / "tf", check=call == "pwrite")
    assert type(error) is TargetError
    assert str(error) == (
        f"{tmp_path / 'tf'}: cannot be written, nothing was left behind: the disk is full; free some space"
    )


@pytest.mark.parametrize("limit", [10, 1_000, 100_000, 460_000])
@pytest.mark.parametrize("container", ["h5", "safetensors"])
def test_files_that_may_not_grow(tmp_path: Path, limit: int, container: str) -> None:
    """The real thing, by a limit that every system has: writing fails at some stage, h5py's own included."""

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    out = tmp_path / "out"
    command = [sys.executable, "-m", "converter", "pt2tf", str(FIXTURE), str(out), "--format", container]
    run = subprocess.run(command, capture_output=True, text=True, check=False, preexec_fn=limited)
    assert run.returncode == 1
    assert run.stderr == (
        f"convert: {out}: cannot be written, nothing was left behind: the file system does not support files of this "
        "size; choose another\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_overwrite_leaves_the_old_one_until_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tiny(tmp_path / "pt")
    pt2tf(tmp_path / "pt", tmp_path / "tf")
    old = (tmp_path / "tf" / "tf_model.h5").read_bytes()
    monkeypatch.setattr(os, "pwrite", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
    refusal(tmp_path / "pt", tmp_path / "tf", overwrite=True, dtype="float16")
    assert (tmp_path / "tf" / "tf_model.h5").read_bytes() == old
    monkeypatch.undo()
    pt2tf(tmp_path / "pt", tmp_path / "tf", overwrite=True, format="safetensors")
    assert not (tmp_path / "tf" / "tf_model.h5").exists()


def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    write_tiny(tmp_path / "pt")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    result = pt2tf(tmp_path / "pt", tmp_path / "tf", dry_run=True)
    assert (result.dry_run, result.checked, result.files, result.nbytes) == (True, False, (), 0)
    assert result.tensors == 98
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_the_source_is_left_as_it_is(tmp_path: Path) -> None:
    shutil.copytree(FIXTURE, tmp_path / "pt")
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in (tmp_path / "pt").iterdir()}
    pt2tf(tmp_path / "pt", tmp_path / "tf")
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in (tmp_path / "pt").iterdir()} == before


@pytest.mark.parametrize("check", [True, False])
def test_progress_reaches_the_end(tmp_path: Path, check: bool) -> None:
    write_tiny(tmp_path / "pt")
    told: list[tuple[str, int, int]] = []
    pt2tf(tmp_path / "pt", tmp_path / "tf", check=check, progress=lambda *step: told.append(step))
    assert list(dict.fromkeys(stage for stage, _, _ in told)) == ["convert", "check"][: 1 + check]
    for stage in {stage for stage, _, _ in told}:
        steps = [(done, total) for name, done, total in told if name == stage]
        assert len({total for _, total in steps}) == 1
        assert max(done for done, _ in steps) <= steps[0][1]


def test_config_of_the_output(tmp_path: Path) -> None:
    pt2tf(FIXTURE, tmp_path / "tf")
    given = json.loads((FIXTURE / "config.json").read_text())
    found = json.loads((tmp_path / "tf" / "config.json").read_text())
    assert found == given | {"logit_scale_init_value": 3.309999942779541}
    assert list(found) == list(given)
    assert np.float32(found["logit_scale_init_value"]) == np.float32(3.31)


def test_a_config_that_utf8_cannot_say(tmp_path: Path) -> None:
    config = config_of(fields={"note": "half \ud800 pair"})
    write_checkpoint(tmp_path / "pt", config, tensors_of(config_of()))
    pt2tf(tmp_path / "pt", tmp_path / "tf")
    assert json.loads((tmp_path / "tf" / "config.json").read_text())["note"] == "half \ud800 pair"


def test_a_folder_whose_name_is_not_text(tmp_path: Path) -> None:
    folder = Path(os.fsdecode(bytes(tmp_path) + b"/p\xfft"))
    write_tiny(folder)
    pt2tf(folder, tmp_path / "tf")
    assert json.loads((tmp_path / "tf" / "conversion.json").read_text())["source"]["path"] == "../p\udcfft"

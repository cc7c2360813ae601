"""What this process wrote is read back as any reader finds it, in fewer steps."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from converter import pt2tf
from converter.checkpoints import hdf5
from converter.checkpoints.hdf5_written import read_written
from converter.errors import CorruptCheckpoint
from tests.tiny import FIXTURE


@pytest.mark.parametrize("shard", [None, "40KB"])
def test_it_finds_what_the_reader_of_strangers_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shard: str | None
) -> None:
    with monkeypatch.context() as patched:  # the search for links and filters takes most of the time
        patched.setattr(hdf5, "_walk", lambda *_: pytest.fail("nobody else writes there"))
        assert pt2tf(FIXTURE, tmp_path / "out", max_shard_size=shard).checked
    files = sorted((tmp_path / "out").glob("*.h5"))
    assert len(files) > 1 or shard is None
    for file in files:
        assert read_written(file).tensors == hdf5.read_here(file).tensors


@pytest.mark.parametrize("chunks", [True, None])
def test_what_is_not_one_run_of_bytes_is_refused(tmp_path: Path, chunks: bool | None) -> None:
    pt2tf(FIXTURE, tmp_path / "out")
    path = tmp_path / "out" / "tf_model.h5"
    with h5py.File(path, "r+") as file:
        layer = file["text_projection/tf_vision_text_dual_encoder_model/text_projection"]
        data = layer["kernel:0"][()]
        del layer["kernel:0"]
        layer.create_dataset("kernel:0", data=data.astype(np.float32 if chunks else ">f4"), chunks=chunks)
    with pytest.raises(CorruptCheckpoint, match="text_projection/kernel:0 is not stored as it was written"):
        read_written(path)

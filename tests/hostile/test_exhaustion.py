"""Files that would exhaust memory: measured in processes of their own."""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from converter.checkpoints.safetensors import MAX_HEADER_BYTES
from converter.errors import ParityError
from converter.parity import processing
from converter.parity.samples import MAX_TEXT_BYTES, find_samples
from tests.hdf5_files import read_all, sound_file, write_h5
from tests.tiny import EXPECTED, FIXTURE

MEGABYTES = 300


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a good config.json."""
    made = tmp_path / "src"
    made.mkdir()
    shutil.copyfile(FIXTURE / "config.json", made / "config.json")
    return made


def peak_of(program: str, *arguments: Path) -> tuple[int, str, float]:
    """Status, stderr and peak memory in MB of a process; its address space is bounded, in case the test is right."""

    def bounded() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (6 * 2**30, 6 * 2**30))

    # Not ru_maxrss, which begins with the memory of the process that started this one.
    program += "\nprint(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))"
    command = [sys.executable, "-c", program, *map(str, arguments)]
    run = subprocess.run(command, capture_output=True, text=True, check=False, preexec_fn=bounded, timeout=60)
    return run.returncode, run.stderr, float(run.stdout.splitlines()[-1]) / 1024


CONVERT = """
import sys
from converter import tf2pt, pt2tf, ConverterError
try:
    (tf2pt if sys.argv[3:] else pt2tf)(*sys.argv[1:3])
except ConverterError as error:
    sys.stderr.write(str(error))
"""


def test_a_sparse_terabyte(folder: Path, tmp_path: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["vocab_size"] = 2**31 - 1
    (folder / "config.json").write_text(json.dumps(config))
    tensors = read_all(EXPECTED / "tf_model.h5")
    name = "text_model/bert/embeddings/word_embeddings/weight"
    write_h5(folder / "tf_model.h5", {n: array for n, array in tensors.items() if n != name})
    with h5py.File(folder / "tf_model.h5", "r+") as file:
        layer = file["text_model"]
        full = f"tf_vision_text_dual_encoder_model/{name}:0"
        layer.create_dataset(full, (2**31 - 1, 40), "f4", chunks=(10_000, 40))
        names = [name.decode() if isinstance(name, bytes) else name for name in layer.attrs["weight_names"]]
        layer.attrs["weight_names"] = np.array([name.encode() for name in [*names, full]])
    status, said, peak = peak_of(CONVERT, folder, tmp_path / "out", folder)
    assert status == 0
    assert "cannot be written: it needs 687,195 MB" in said
    assert peak < MEGABYTES


def test_a_compressed_bomb(folder: Path, tmp_path: Path) -> None:
    """A dataset of 100 MB in 100 KB: its rows pass through bounded memory, and its shape is not the config's."""
    with sound_file(folder / "tf_model.h5") as (_, layer):
        layer.create_dataset("r/x:0", data=np.zeros((1000, 25_000), "f4"), chunks=(100, 25_000), compression="gzip")
    assert (folder / "tf_model.h5").stat().st_size < 200_000
    status, said, peak = peak_of(CONVERT, folder, tmp_path / "out", folder)
    assert status == 0
    assert said.endswith("x; compare config.json with the one the weights were saved with")
    assert peak < MEGABYTES


def test_texts_without_end(tmp_path: Path) -> None:
    """A file of more than any texts for a comparison."""
    with (tmp_path / "texts.txt").open("wb") as file:
        file.truncate(MAX_TEXT_BYTES + 1)
    for path, size in ((tmp_path / "texts.txt", MAX_TEXT_BYTES + 1), (Path("/dev/zero"), 0)):
        with pytest.raises(ParityError) as caught:
            find_samples(path)
        assert str(caught.value) == (
            f"{path}: {size:,} bytes, expected a file of at most {MAX_TEXT_BYTES:,}; name another file"
        )


def test_a_picture_that_unpacks_to_gigabytes(tmp_path: Path) -> None:
    """Ten thousand by ten thousand points of one colour take 32 KB."""
    image = pytest.importorskip("PIL.Image")
    path = tmp_path / "white.png"
    image.new("1", (10_000, 10_000), 1).save(path)
    assert path.stat().st_size < 50_000
    with pytest.raises(ParityError, match=f"{path}: not a picture that can be read: DecompressionBombWarning: "):
        processing._processed(None, [path])


def test_brackets_do_not_exhaust_memory(folder: Path, tmp_path: Path) -> None:
    """The largest header that is read, of nothing but empty lists."""
    body = b'{"a":[' + b"[]," * ((MAX_HEADER_BYTES - 100) // 3) + b"[]]}"
    (folder / "model.safetensors").write_bytes(len(body).to_bytes(8, "little") + body)
    status, said, peak = peak_of(CONVERT, folder, tmp_path / "out")
    assert (status, "is not described by dtype, shape and data_offsets" in said) == (0, True)
    assert peak < MEGABYTES

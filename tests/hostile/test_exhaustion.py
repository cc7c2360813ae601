"""Files that would exhaust memory: measured in processes of their own."""

from __future__ import annotations

import json
import math
import re
import resource
import shutil
import subprocess
import sys
import tracemalloc
from pathlib import Path

import h5py
import numpy as np
import pytest

from converter.checkpoints.safetensors import MAX_HEADER_BYTES
from converter.errors import ConfigError, ParityError
from converter.names.configs import check_config
from converter.names.rules import compile_rules
from converter.parity.making import make_batches
from converter.parity.runners import processing
from converter.parity.samples import MAX_TEXT_BYTES, find_samples
from tests.hdf5_files import read_all, sound_file, write_h5
from tests.hostile.refusing import run_alone
from tests.tiny import EXPECTED, FIXTURE, config_of, safetensors_bytes

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


def sparse(folder: Path, **fields: int) -> Path:
    """A checkpoint of holes: the safetensors file that its config describes, of any size, in a few kilobytes."""
    config = config_of("vit", "bert", text_fields=fields)
    header, end = {}, 0
    for rule in compile_rules(check_config(config)).tensors:
        begin, end = end, end + 4 * math.prod(rule.shape)
        header[rule.names["pt"]] = {"dtype": "F32", "shape": list(rule.shape), "data_offsets": [begin, end]}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes(safetensors_bytes(header))
    with (folder / "model.safetensors").open("ab") as file:
        file.truncate(file.tell() + end)
    return folder


VERIFY = """
import sys
from pathlib import Path
from converter import verify
sys.stderr.write(verify(Path(sys.argv[1]), weights_only=True).findings[1].problems[0])
"""


def test_a_tensor_that_no_memory_holds(folder: Path) -> None:
    status, said, peak = peak_of(VERIFY, sparse(folder, vocab_size=2**31 - 1))
    assert status == 0
    assert re.fullmatch(
        r"text_model.embeddings.word_embeddings.weight: needs [\d,]{6,} MB of memory, [\d,]+ MB are free; "
        "use a machine with more",
        said,
    )
    assert peak < MEGABYTES


def test_rows_that_no_memory_holds(folder: Path, tmp_path: Path) -> None:
    """Blocks of a weight are moved by whole rows, of which every core holds some."""
    with pytest.raises(ConfigError) as caught:
        sparse(folder, intermediate_size=2**30)
    assert str(caught.value) == (
        "config.json: text_model.encoder.layer.0.output.dense would have rows of 1,073,741,824 numbers, more "
        "than any model has; correct the config"
    )


def test_a_vocabulary_of_billions(folder: Path) -> None:
    """Inputs are drawn from it without a list of it."""
    tracemalloc.start()
    batches = make_batches(config_of("vit", "bert", text_fields={"vocab_size": 2**31 - 1}))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert max(int(batch.inputs["input_ids"].max()) for batch in batches) > 2**30
    assert peak < MEGABYTES * 10**6


def test_pictures_of_thousands_of_channels() -> None:
    config = config_of("swin", vision_fields={"image_size": 4096, "num_channels": 4096})
    with pytest.raises(ParityError, match="image_size 4096 and num_channels 4096 do not describe an image"):
        make_batches(config)


@pytest.mark.parametrize(
    "fields", [{"vocab_size": 2**31 - 1}, {"num_hidden_layers": 2**31 - 1}, {"hidden_size": 2**20}]
)
def test_no_model_is_made_of_what_a_config_says_alone(folder: Path, tmp_path: Path, fields: dict[str, int]) -> None:
    """The weights have to be there before a framework takes memory for them."""
    shutil.copyfile(FIXTURE / "model.safetensors", folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    config["text_config"] |= fields
    (folder / "config.json").write_text(json.dumps(config))
    status, said, complained = run_alone(["reference", str(folder), "-o", str(tmp_path / "golden.safetensors")])
    assert (status, said) == (1, "")
    assert complained.count("\n") == 1
    assert re.search("config.json|expected", complained)


def test_a_compressed_bomb(folder: Path, tmp_path: Path) -> None:
    """A dataset of 100 MB in 100 KB: its rows pass through bounded memory, and its shape is not the config's."""
    with sound_file(folder / "tf_model.h5") as (_, layer):
        layer.create_dataset("r/x:0", data=np.zeros((1000, 25_000), "f4"), chunks=(100, 25_000), compression="gzip")
    assert (folder / "tf_model.h5").stat().st_size < 200_000
    status, said, peak = peak_of(CONVERT, folder, tmp_path / "out", folder)
    assert status == 0
    assert said.endswith("(the file holds x); write the model with save_pretrained of its class")
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
    with pytest.raises(ParityError, match=f"{path}: not a readable picture: DecompressionBombWarning: "):
        processing._processed(None, [path])


def test_brackets_do_not_exhaust_memory(folder: Path, tmp_path: Path) -> None:
    """The largest header that is read, of nothing but empty lists."""
    body = b'{"a":[' + b"[]," * ((MAX_HEADER_BYTES - 100) // 3) + b"[]]}"
    (folder / "model.safetensors").write_bytes(len(body).to_bytes(8, "little") + body)
    status, said, peak = peak_of(CONVERT, folder, tmp_path / "out")
    assert (status, "is not described by dtype, shape and data_offsets" in said) == (0, True)
    assert peak < MEGABYTES

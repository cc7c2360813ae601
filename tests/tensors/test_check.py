"""The check pass finds every difference it is there for: each is made on purpose between writing and checking."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import blake3
import h5py
import numpy as np
import pytest

from converter import pt2tf, tf2pt
from converter.checkpoints import writers
from converter.conversion import writing
from converter.errors import CheckError
from converter.folder.records import FileRecord, differing_sum, file_record, hash_file
from converter.tensors.check import same_bits
from tests.tiny import load, write_tiny

# Of a million times "abc", as the program b3sum gives it.
BLAKE3_OF_ABC = "62c096dd4d880e7174619f69ea9cf098ba30598b2bb9d77d339c7f7466ca7c20"
LARGE = "text_model/bert/embeddings/word_embeddings/weight"


def spoil(monkeypatch: pytest.MonkeyPatch, damage: Callable[[Path], None]) -> None:
    """Damages the written weights before they are opened again."""
    real = writers.read_back

    def read(path: Path) -> Any:
        damage(path)
        return real(path)

    monkeypatch.setattr(writing, "read_back", read)


def offsets(path: Path) -> dict[str, tuple[int, int]]:
    """Where every dataset of a file lies, said by h5py."""
    found: dict[str, tuple[int, int]] = {}
    with h5py.File(path) as file:
        file.visititems(
            lambda name, held: found.__setitem__(name, (held.id.get_offset(), held.id.get_storage_size()))
            if isinstance(held, h5py.Dataset) else None
        )  # fmt: skip
    return {name.partition("/")[2].partition("/")[2].removesuffix(":0"): where for name, where in found.items()}


def flip(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)
        file.seek(offset)
        file.write(bytes([byte[0] ^ 1]))


def names_of(folder: Path) -> list[str]:
    write_tiny(folder / "pt")
    pt2tf(folder / "pt", folder / "tf")
    return sorted(offsets(folder / "tf" / "tf_model.h5"))


def test_the_first_and_the_last_byte_are_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = names_of(tmp_path)
    assert len(names) == 98
    damaged: list[str] = []

    def damage(path: Path) -> None:
        offset, size = offsets(path)[damaged[-1]]
        flip(path, offset if len(damaged) % 2 else offset + size - 1)

    spoil(monkeypatch, damage)
    for name in names[::9]:
        damaged.append(name)
        with pytest.raises(CheckError) as caught:
            pt2tf(tmp_path / "pt", tmp_path / "out")
        assert str(caught.value).startswith(f"{name}: what was written differs from the source, first at element ")
        assert not (tmp_path / "out").exists()


def test_whole_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = write_tiny(tmp_path / "pt")
    value = tensors["text_model.embeddings.word_embeddings.weight"][0, 3]
    spoil(monkeypatch, lambda path: flip(path, offsets(path)[LARGE][0] + 3 * 4))
    with pytest.raises(CheckError) as caught:
        pt2tf(tmp_path / "pt", tmp_path / "tf")
    flipped = (value.view(np.uint32) ^ np.uint32(1)).view(np.float32)
    assert str(caught.value) == (
        f"{LARGE}: what was written differs from the source, first at element 3 of the rows from 0: {value!r} became "
        f"{flipped!r}; the disk or the memory of this machine may be failing: convert again, elsewhere"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["pt"]


def test_without_check_nothing_is_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The damage is real: it stays where nobody looks."""
    write_tiny(tmp_path / "pt")
    spoil(monkeypatch, lambda _: pytest.fail("nobody should look"))
    assert not pt2tf(tmp_path / "pt", tmp_path / "tf", check=False).checked


def test_back_to_pytorch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names_of(tmp_path)
    spoil(monkeypatch, lambda path: flip(path, path.stat().st_size - 1))
    last = max(load(tmp_path / "pt" / "model.safetensors"))
    with pytest.raises(CheckError, match=f"^{last}: what was written differs from the source, "):
        tf2pt(tmp_path / "tf", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_cast_is_compared_with_its_rounding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tiny(tmp_path / "pt")
    assert pt2tf(tmp_path / "pt", tmp_path / "fine", dtype="float16").checked
    spoil(monkeypatch, lambda path: flip(path, offsets(path)[LARGE][0]))
    with pytest.raises(CheckError, match=f"^{LARGE}: what was written differs"):
        pt2tf(tmp_path / "pt", tmp_path / "tf", dtype="float16")


def test_restored_buffers_are_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tiny(tmp_path / "pt", "swin")
    index = "vision_model/swin/encoder/layers.1/blocks.0/attention/self/relative_position_index"
    spoil(monkeypatch, lambda path: flip(path, offsets(path)[index][0]))
    with pytest.raises(CheckError) as caught:
        pt2tf(tmp_path / "pt", tmp_path / "tf")
    assert str(caught.value) == f"{index}: the file differs from the data written to it; convert again"


def test_a_tensor_that_went_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tiny(tmp_path / "pt")

    def damage(path: Path) -> None:
        with h5py.File(path, "r+") as file:
            layer = file["text_projection"]
            del layer["tf_vision_text_dual_encoder_model"]
            layer.attrs["weight_names"] = np.zeros(0, "S1")

    spoil(monkeypatch, damage)
    with pytest.raises(CheckError) as caught:
        pt2tf(tmp_path / "pt", tmp_path / "tf")
    assert str(caught.value) == "tf_model.h5: the tensors written to it are not there; convert again"


def test_a_tensor_of_another_shape(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tiny(tmp_path / "pt")

    def damage(path: Path) -> None:
        with h5py.File(path, "r+") as file:
            layer = file["text_projection/tf_vision_text_dual_encoder_model/text_projection"]
            data = layer["kernel:0"][()]
            del layer["kernel:0"]
            layer["kernel:0"] = data.T

    spoil(monkeypatch, damage)
    with pytest.raises(CheckError) as caught:
        pt2tf(tmp_path / "pt", tmp_path / "tf")
    assert str(caught.value) == "text_projection/kernel: was written as (32, 26), is (26, 32); convert again"


@pytest.mark.parametrize("size", [8, 12, 3, 2**20 + 8, 2**20 + 3])
def test_same_bits(size: int) -> None:
    data = np.random.default_rng(1).integers(0, 256, size).astype(np.uint8)
    assert same_bits(data, data.copy())
    for position in (0, size // 2, size - 1):
        other = data.copy()
        other[position] ^= 1
        assert not same_bits(data, other)
    assert not same_bits(data, data[:-1])


def test_bits_not_values() -> None:
    nan = np.array([0x7FC00000], np.uint32).view(np.float32)
    other = np.array([0x7FC00001], np.uint32).view(np.float32)
    assert same_bits(nan, nan.copy())
    assert not same_bits(nan, other)
    assert not same_bits(np.array([0.0], np.float32), np.array([-0.0], np.float32))


def test_hashes_of_files(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"abc" * 10**6)
    digests = {"blake3": BLAKE3_OF_ABC, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    assert hash_file(path).to_json() == {"name": "x", "size": 3_000_000, "blake3": BLAKE3_OF_ABC}
    assert hash_file(path, digests).to_json() == {"name": "x", "size": 3_000_000, **digests}
    assert file_record(path).to_json() == {"name": "x", "size": 3_000_000}
    for kind, digest in digests.items():
        assert differing_sum(path, FileRecord("x", 0, **{kind: digest})) is None
        assert differing_sum(path, FileRecord("x", 0, **digests | {kind: "0" * 64})) == kind
    assert differing_sum(path, FileRecord("x", 0)) is None
    assert blake3.blake3(b"").hexdigest() == "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"

"""Tied weights: what two names share is read once more, and what only claims to be shared is refused."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from safetensors.numpy import save_file

from converter.checkpoints import hdf5, safetensors
from converter.errors import CorruptCheckpoint, UnsupportedContainer

EMBEDDING = np.arange(12, dtype=np.float32).reshape(4, 3)


def write(path: Path, second: np.ndarray, chunks: bool = False, below: str = "") -> Path:
    """A model with a head, as TFBertForMaskedLM writes it: each layer's group lists the embedding that they share."""
    with h5py.File(path, "w") as file:
        root = file.require_group(below) if below else file
        root.attrs["layer_names"] = [b"bert", b"mlm"]
        for group, values in (("bert", EMBEDDING), ("mlm", second)):
            made = root.create_group(group)
            made.attrs["weight_names"] = [b"model/bert/embeddings/weight:0"]
            made.create_dataset("model/bert/embeddings/weight:0", data=values, chunks=True if chunks else None)
        if below:
            file["optimizer_weights/adam/m:0"] = np.ones(3)
            root.create_group("inputs").attrs["weight_names"] = np.zeros(0, "S1")
            root.attrs["layer_names"] = [b"inputs", b"bert", b"mlm"]
    return path


@pytest.mark.parametrize("chunks", [False, True])
@pytest.mark.parametrize("below", ["", "model_weights"])
def test_equal_values_are_one_tensor(tmp_path: Path, chunks: bool, below: str) -> None:
    """In a tf_model.h5, and in what a functional Keras model's ``save`` writes."""
    checkpoint = hdf5.read_header(write(tmp_path / "x.h5", EMBEDDING, chunks, below))
    try:
        tensor = checkpoint.tensors["bert/embeddings/weight"]
        assert list(checkpoint.tensors) == [tensor.name]
        assert np.array_equal(hdf5._rows(tensor, 0, 4).reshape(4, 3), EMBEDDING)
    finally:
        checkpoint.close()


def changed(values: np.ndarray) -> np.ndarray:
    values = values.copy()
    values.view(np.uint32)[-1, -1] ^= 1
    return values


@pytest.mark.parametrize(
    "second",
    [changed(EMBEDDING), EMBEDDING[:3], EMBEDDING.astype(np.float64)],
    ids=["one bit", "another shape", "another dtype"],
)
@pytest.mark.parametrize("chunks", [False, True])
def test_different_values_of_one_name_are_refused(tmp_path: Path, second: np.ndarray, chunks: bool) -> None:
    path = write(tmp_path / "x.h5", second, chunks)
    with pytest.raises(CorruptCheckpoint) as caught:
        hdf5.read_header(path)
    assert str(caught.value) == (
        f"{path}: not a valid tf_model.h5: it holds bert/embeddings/weight twice, with different values; download or save it "
        "again"
    )


def test_weights_of_a_whole_model_behind_a_link(tmp_path: Path) -> None:
    write(tmp_path / "other.h5", EMBEDDING, below="model_weights")
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file["model_weights"] = h5py.ExternalLink("other.h5", "model_weights")
    with pytest.raises(UnsupportedContainer) as caught:
        hdf5.read_header(path)
    assert (
        str(caught.value)
        == f"{path}: an HDF5 file without the attribute layer_names of a tf_model.h5; write the model with save_pretrained"
    )


def test_an_alias_of_the_metadata_is_followed(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file(
        {"decoder.weight": EMBEDDING}, path, {"format": "pt", "embedding.weight": "decoder.weight", "x": "nothing"}
    )
    found = safetensors.read_header(path).tensors
    assert list(found) == ["decoder.weight", "embedding.weight"]
    assert found["embedding.weight"].extent == found["decoder.weight"].extent
    assert found["embedding.weight"].name == "embedding.weight"


def test_an_alias_never_replaces_a_tensor(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"a": EMBEDDING, "b": EMBEDDING + 1}, path, {"format": "pt", "a": "b"})
    found = safetensors.read_header(path).tensors
    assert found["a"].extent != found["b"].extent


def test_a_long_alias(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"a": EMBEDDING}, path, {"format": "pt", "n" * 1001: "a"})
    with pytest.raises(CorruptCheckpoint) as caught:
        safetensors.read_header(path)
    assert str(caught.value) == (
        f"{path}: not a valid safetensors file: its __metadata__ has a name of 1,001 characters; download or save it again"
    )


@pytest.mark.parametrize("code", ["F8_E4M3", "F8_E5M2", "F4"])
def test_narrow_floats_are_named(tmp_path: Path, code: str) -> None:
    header = f'{{"w":{{"dtype":"{code}","shape":[2],"data_offsets":[0,2]}}}}'.encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(2))
    with pytest.raises(UnsupportedContainer) as caught:
        safetensors.read_header(path)
    assert str(caught.value) == (
        f"{path}: tensor w is {code}, which no transformers 4 model computes in; convert such tensors with "
        ".to(torch.float32), multiply them by their scales if any, and save again"
    )

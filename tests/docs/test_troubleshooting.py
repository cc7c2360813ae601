"""The messages of docs/troubleshooting.md are those that the tool says, each provoked here."""

from __future__ import annotations

import json
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from converter import ConverterError, pt2tf, tf2pt
from tests.bundles import write_bundle
from tests.docs.pages import ROOT
from tests.tiny import FIXTURES

PAGE = (ROOT / "docs" / "troubleshooting.md").read_text()
MESSAGES = re.findall(r"^\| `([^`]+)` \|", PAGE.split("## What this tool says")[1].split("\n## ")[0], re.MULTILINE)
Tensors = dict[str, np.ndarray]


def tensors(change: Callable[[Tensors], Tensors]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        path = folder / "model.safetensors"
        save_file(change(load_file(path)), path, metadata={"format": "pt"})

    return apply


def config(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        fields = json.loads((folder / "config.json").read_text())
        change(fields)
        (folder / "config.json").write_text(json.dumps(fields))

    return apply


def weights(name: str, content: bytes) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        (folder / name).write_bytes(content)

    return apply


def truncate(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:300_000])


def to_tensorflow(folder: Path) -> None:
    pt2tf(folder, folder.parent / "tf")
    shutil.rmtree(folder)
    (folder.parent / "tf").rename(folder)


def keras_weights(folder: Path) -> None:
    import h5py

    (folder / "model.safetensors").unlink()
    with h5py.File(folder / "model.weights.h5", "w") as file:
        file.create_dataset("layers/dense/vars/0", data=np.zeros(3))


def copied_journal(folder: Path) -> None:
    (folder / ".conversion-journal").mkdir()
    (folder / ".conversion-journal" / ".journal.json").write_text(
        '{"format": 1, "inode": 1, "replaced": [], "new": []}'
    )


def several_checkpoints(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    for name in "ab":
        write_bundle(folder / name, {"logit_scale": np.ones(1, np.float32)})


def damaged_checkpoint(folder: Path) -> None:
    source, out = FIXTURES / "cases" / "tf_ckpt", folder
    shutil.rmtree(folder)
    shutil.copytree(source, out)
    with (out / "model_ckpt.data-00000-of-00001").open("r+b") as file:
        file.seek(30_000)
        file.write(b"damaged")


IN_TENSORFLOW = ("weights in Keras", "holds 2 TensorFlow", "have another CRC-32C")
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 465980\n"
PROVOKED: dict[str, tuple[Callable[[Path], None], dict[str, Any]]] = {
    "holds TensorFlow": (to_tensorflow, {}),
    "exists already": (lambda folder: (folder.parent / "out").mkdir(), {}),
    "interrupted while its files": (copied_journal, {}),
    "not the tensors": (tensors(lambda t: {n: a for n, a in t.items() if "pooler" not in n}), {}),
    "unexpected": (tensors(lambda t: t | {"text_model.extra.weight": np.zeros(3, np.float32)}), {}),
    "tensor shapes that differ": (tensors(lambda t: t | {"text_projection.weight": np.zeros((3, 4), np.float32)}), {}),
    "are two names": (
        tensors(lambda t: t | {n.replace("vision_model.vision_model", "vision_model"): a for n, a in t.items()}), {},
    ),
    "text_config.model_type": (config(lambda c: c["text_config"].update(model_type="electra")), {}),
    "expected a model with two towers": (config(lambda c: c.update(model_type="blip")), {}),
    "text_config.position_embedding_type": (
        config(lambda c: c["text_config"].update(position_embedding_type="relative_key")), {},
    ),
    "a Git LFS pointer": (weights("model.safetensors", POINTER), {}),
    "it is truncated": (truncate, {}),
    "HDF5 has no bfloat16": (lambda folder: None, {"dtype": "bfloat16"}),
    "weights in Keras": (keras_weights, {}),
    "holds 2 TensorFlow": (several_checkpoints, {}),
    "have another CRC-32C": (damaged_checkpoint, {}),
    "a pickle": (weights("pytorch_model.bin", pickle.dumps({"a": Path})), {}),
}  # fmt: skip


def test_every_message_of_the_page_is_provoked() -> None:
    assert [message for message in MESSAGES if not message.startswith(tuple(PROVOKED))] == []
    assert len(MESSAGES) == len(PROVOKED)


@pytest.mark.parametrize("beginning", PROVOKED)
def test_the_tool_says_so(beginning: str, tiny: Path, tmp_path: Path) -> None:
    prepare, options = PROVOKED[beginning]
    shutil.copytree(tiny, tmp_path / "model")
    prepare(tmp_path / "model")
    convert = tf2pt if beginning in IN_TENSORFLOW else pt2tf
    with pytest.raises(ConverterError) as caught:
        convert(tmp_path / "model", tmp_path / "out", **options)
    said = str(caught.value).replace("`", "")
    message = next(message for message in MESSAGES if message.startswith(beginning))
    parts = [part.strip() for part in message.split("...") if part.strip()]
    assert parts
    for part in parts:
        assert part in said, said


def test_flat_names_are_mended_there_and_back(tiny: Path, tmp_path: Path) -> None:
    """What the page advises for a checkpoint of 5.6 that 4.x reads half."""
    shutil.copytree(tiny, tmp_path / "flat")
    tensors(lambda t: {n.replace("vision_model.vision_model", "vision_model"): a for n, a in t.items()})(
        tmp_path / "flat"
    )
    pt2tf(tmp_path / "flat", tmp_path / "tf")
    tf2pt(tmp_path / "tf", tmp_path / "nested")
    found, wanted = load_file(tmp_path / "nested" / "model.safetensors"), load_file(tiny / "model.safetensors")
    assert sorted(found) == sorted(wanted)

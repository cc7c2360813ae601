"""Indices of shards that lie or lead elsewhere."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from converter import pt2tf, tf2pt
from converter.errors import ConverterError, CorruptCheckpoint
from tests.hostile.conftest import Refused
from tests.tiny import config_of, tensors_of

FIRST, SECOND, INDEX = (
    "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors",
    "model.safetensors.index.json",
)
Damage = Callable[[Path, dict[str, Any]], object]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "src"
    folder.mkdir()
    write_shards(folder)
    return folder


def write_shards(folder: Path) -> None:
    """A sound checkpoint in two shards."""
    (folder / "config.json").write_text(json.dumps(config_of()))
    tensors = list(tensors_of(config_of()).items())
    weight_map: dict[str, str] = {}
    for file, part in ((FIRST, dict(tensors[:40])), (SECOND, dict(tensors[40:]))):
        save_file(part, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, file)
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def named(file: Any) -> Damage:
    """One tensor is said to be in another file."""
    return lambda _, index: index["weight_map"].update({"logit_scale": file})


def link_out(folder: Path, _: Any) -> None:
    (folder / FIRST).rename(folder.parent / "elsewhere")
    (folder / FIRST).symlink_to("../elsewhere")


def tensor_in_both(folder: Path, index: Any) -> None:
    save_file({"logit_scale": np.ones(()), "x": np.ones(1)}, folder / "more.safetensors", metadata={"format": "pt"})
    index["weight_map"]["x"] = "more.safetensors"


CASES: dict[str, tuple[Damage, str]] = {
    "absolute path": (named("/etc/passwd"), "it names '/etc/passwd', which is not a file in its folder"),
    "path upwards": (
        named("../model.safetensors"),
        "it names '../model.safetensors', which is not a file in its folder",
    ),
    "only dots": (named(".."), "it names '..', which is not a file in its folder"),
    "nothing": (named(""), "it names '', which is not a file in its folder"),
    "a number": (named(7), "it names 7, which is not a file in its folder"),
    "a list": (named([FIRST]), f"it names ['{FIRST}'], which is not a file in its folder"),
    "backslashes": (named("..\\x"), r"it names '..\\x', which is not a file in its folder"),
    "itself": (named(INDEX), f"it names '{INDEX}', which is not a file in its folder"),
    "a zero byte": (named("a\0b"), r"it names 'a\x00b', which is not a file in its folder"),
    "half a surrogate pair": (named("a\ud800"), r"it names 'a\ud800', which is not a file in its folder"),
    "missing shard": (named("gone.safetensors"), "it names gone.safetensors, which is not there"),
    "escapes": (named("\x1b[2J\n"), r"it names \x1b[2J\n, which is not there"),
    "wrong shard": (
        lambda _, index: index["weight_map"].update({"logit_scale": FIRST}),
        f"{FIRST} lacks logit_scale of what it lists, and holds none besides",
    ),
    "left out": (
        lambda _, index: index["weight_map"].pop("logit_scale"),
        f"{SECOND} lacks none of what it lists, and holds logit_scale besides",
    ),
    "in two shards": (tensor_in_both, "more.safetensors lacks none of what it lists, and holds logit_scale besides"),
    "no weight_map": (lambda _, index: index.pop("weight_map"), "it has no weight_map"),
    "empty weight_map": (lambda _, index: index.update(weight_map={}), "it has no weight_map"),
    "a list of names": (lambda _, index: index.update(weight_map=["x"]), "it has no weight_map"),
    "thousands of files": (
        lambda _, index: index.update(weight_map={str(n): f"{n}.safetensors" for n in range(20_000)}),
        "it names 20,000 files",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_refused(source: Path, refused: Refused, case: str) -> None:
    damage, message = CASES[case]
    index = json.loads((source / INDEX).read_text())
    damage(source, index)
    (source / INDEX).write_text(json.dumps(index))
    assert refused(source, CorruptCheckpoint) == (
        f"{source / INDEX}: not a valid index of shards: {message}; download or save the checkpoint again"
    )


def test_without_a_fault_it_is_read(source: Path, tmp_path: Path) -> None:
    assert pt2tf(source, tmp_path / "out").checked


def test_a_shard_that_is_a_link_out_of_the_folder(source: Path, refused: Refused) -> None:
    link_out(source, None)
    assert refused(source, CorruptCheckpoint).startswith(f"{source / FIRST}: a link out of its folder, to ")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b"[" * 100_000])
def test_not_json(source: Path, refused: Refused, content: bytes) -> None:
    (source / INDEX).write_bytes(content)
    assert refused(source, ConverterError).startswith(f"{source / INDEX}: ")


def test_a_truncated_shard(source: Path, refused: Refused) -> None:
    content = (source / SECOND).read_bytes()
    (source / SECOND).write_bytes(content[:-5])
    assert f"{SECOND}: not a valid safetensors file: it is truncated" in refused(source, CorruptCheckpoint)


def tensorflow(folder: Path, *shards: dict[str, str]) -> Path:
    """A folder of TensorFlow shards; each says which name of the index stands for which tensor of one number."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config_of()))
    weight_map: dict[str, str] = {}
    for number, names in enumerate(shards):
        save_file({name: np.ones(1) for name in names.values()}, folder / f"{number}.safetensors", {"format": "tf"})
        weight_map |= dict.fromkeys(names, f"{number}.safetensors")
    (folder / INDEX).write_text(json.dumps({"weight_map": weight_map}))
    return folder


def test_a_tensor_that_two_shards_hold(tmp_path: Path) -> None:
    """TensorFlow's index names tensors with their root scope, any one: two of its names can mean the same tensor."""
    folder = tensorflow(tmp_path / "src", {"model/a:0": "a:0"}, {"other/a:0": "a:0"})
    with pytest.raises(CorruptCheckpoint) as caught:
        tf2pt(folder, tmp_path / "out")
    assert str(caught.value) == (
        f"{folder / INDEX}: not a valid index of shards: a stands in 1.safetensors and in another shard; download or save "
        "the checkpoint again"
    )
    assert not (tmp_path / "out").exists()


def test_shards_of_different_frameworks(tmp_path: Path) -> None:
    folder = tensorflow(tmp_path / "src", {"model/a:0": "a:0"}, {"model/b:0": "b:0"})
    save_file({"c": np.ones(1)}, folder / "foreign.safetensors", {"format": "pt"})
    index = json.loads((folder / INDEX).read_text())
    index["weight_map"]["c"] = "foreign.safetensors"
    (folder / INDEX).write_text(json.dumps(index))
    with pytest.raises(CorruptCheckpoint) as caught:
        tf2pt(folder, tmp_path / "out")
    assert str(caught.value) == (
        f"{folder / INDEX}: not a valid index of shards: its shards come from different frameworks; download or save the "
        "checkpoint again"
    )


def test_a_name_that_stands_in_the_index_twice(source: Path, refused: Refused) -> None:
    """JSON lets it pass and takes the last: then the other shard holds what nobody lists."""
    text = (source / INDEX).read_text()
    (source / INDEX).write_text(text.replace('"weight_map": {', f'"weight_map": {{"logit_scale": "{FIRST}", ', 1))
    assert pt2tf(source, source.with_name("tf")).checked
    (source / INDEX).write_text(text.replace("}}", f', "logit_scale": "{FIRST}"}}}}'))
    assert f"{FIRST} lacks logit_scale of what it lists" in refused(source, CorruptCheckpoint)


def test_an_index_of_itself(source: Path, refused: Refused) -> None:
    (source / INDEX).write_text(json.dumps({"weight_map": {"x": INDEX}}))
    assert f"it names '{INDEX}', which is not a file in its folder" in refused(source, CorruptCheckpoint)

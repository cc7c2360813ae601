"""Every hostile file is given to every command, as a person would: in a process of its own, in little time and memory.

A sample in each run, all of them under `make torture`.
"""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from converter.checkpoints.detect import held
from tests.archives import dump
from tests.checkpoints import test_modules
from tests.compat.towers import FAMILIES
from tests.hdf5_files import sound_file
from tests.hostile import test_config, test_hdf5, test_pickle, test_safetensors, test_shards, test_zip
from tests.hostile.refusing import run_alone
from tests.tiny import EXPECTED, FIXTURE, OF_FAMILIES, config_of, safetensors_bytes, tensors_of, write_checkpoint
from tests.torture import FULL

Make = Callable[[Path], object]


def weights(name: str, content: bytes) -> Make:
    return lambda folder: (folder / name).write_bytes(content)


def pickled(text: bytes) -> Make:
    return lambda folder: test_pickle.write(folder, text)


def executing(name: str) -> Make:
    """What would make a file in the folder, which then is not as it was."""
    return lambda folder: test_pickle.write(folder, test_pickle.executing(folder / "canary")[name][0])


def hdf5(damage: Callable[..., None]) -> Make:
    def make(folder: Path) -> None:
        with sound_file(folder / "tf_model.h5") as (file, layer):
            damage(file, layer)

    return make


def shards(damage: test_shards.Damage) -> Make:
    def make(folder: Path) -> None:
        test_shards.write_shards(folder)
        index = json.loads((folder / test_shards.INDEX).read_text())
        damage(folder, index)
        (folder / test_shards.INDEX).write_text(json.dumps(index))

    return make


def config(text: str) -> Make:
    def make(folder: Path) -> None:
        write_checkpoint(folder, config_of("swin", "bert"), tensors_of(config_of("swin", "bert")))
        (folder / "config.json").write_text(text)

    return make


def nested_config(depth: int) -> str:
    return json.dumps(config_of("swin") | {"deep": "HERE"}).replace('"HERE"', "[" * depth + "]" * depth)


def swin(place: str, fields: dict[str, Any]) -> Make:
    return config(json.dumps(config_of("swin", **{place: fields})))


def whole(family: str, place: str, field: str, value: Any) -> Make:
    """A sound checkpoint of a family, but for one field of its config."""

    def make(folder: Path) -> None:
        write_checkpoint(folder, OF_FAMILIES[family], tensors_of(OF_FAMILIES[family]))
        (folder / "config.json").write_text(json.dumps(test_config.with_field(family, place, field, value)))

    return make


def modules(text: str) -> Make:
    """A model in a folder, as sentence-transformers has it, and any modules.json."""

    def make(folder: Path) -> None:
        (folder / "config.json").unlink()
        write_checkpoint(folder / test_modules.MODEL, config_of(), tensors_of(config_of()))
        (folder / "modules.json").write_text(text)

    return make


def linked_modules(folder: Path) -> None:
    modules("")(folder)
    (folder / "modules.json").unlink()
    (folder / "modules.json").symlink_to("/etc/passwd")


def link(name: str, target: str) -> Make:
    return lambda folder: (folder / name).symlink_to(target)


BIN, H5, SAFETENSORS = "pytorch_model.bin", "tf_model.h5", "model.safetensors"
CASES: dict[str, Make] = {
    **{f"safetensors, {name}": weights(SAFETENSORS, content) for name, (content, _) in test_safetensors.CASES.items()},
    "safetensors, nested": weights(SAFETENSORS, test_safetensors.nested(1_000_000, "[", "]")),
    "safetensors, a header of 100 MB": weights(
        SAFETENSORS, struct.pack("<Q", 100 * 2**20) + b'{"a":[' + b"[]," * (100 * 2**20 // 3)
    ),
    "safetensors, the largest header": weights(SAFETENSORS, safetensors_bytes(b'{"a":[' + b"[]," * 2_796_000 + b"[]]}")),
    "safetensors, a link out": link(SAFETENSORS, "/etc/passwd"),
    **{f"zip, {name}": weights(BIN, content) for name, (content, _) in {**test_zip.UNSOUND, **test_zip.UNREAD}.items()},
    **{f"pickle, {name}": executing(name) for name in test_pickle.executing(Path())},
    **{f"pickle, {name}": pickled(text) for name, (text, _) in test_pickle.UNSOUND.items()},
    **{f"pickle, {name}": pickled(dump({"x": view})) for name, (view, _) in test_pickle.LYING.items()},
    **{f"pickle, {name}": pickled(text) for name, (text, _) in test_pickle.deep(2_000_000 if FULL else 0).items()},
    "pickle, a link out": link(BIN, "/etc/passwd"),
    **{f"HDF5, {name}": hdf5(damage) for name, (damage, _) in test_hdf5.CASES.items()},
    **{
        f"HDF5, cut to {keep}": weights(H5, (EXPECTED / H5).read_bytes()[:keep])
        for keep in (0, 7, 8, 100, 2048, 10_000, 300_000)
    },
    "HDF5, a link out": link(H5, "/etc/passwd"),
    **{f"index, {name}": shards(damage) for name, (damage, _) in test_shards.CASES.items()},
    "index, a link out": shards(test_shards.link_out),
    **{
        f"config, {json.dumps(fields)[:40]}": swin(place, fields)
        for place, fields in test_config.ENORMOUS
    },
    **{f"config, nested {depth} deep": config(nested_config(depth)) for depth in (60, 990, 100_000)},
    **{
        f"config, auto_map in {place}": swin(place, {"auto_map": {"AutoModel": "evil.Evil"}})
        for place in ("fields", "vision_fields", "text_fields")
    },
    **{
        f"{family}, {place or 'top'}: {field} {value}": whole(family, place, field, value)
        for family, place, field in test_config.SHAPING for value in (2**31 - 1, -1)
    },
    **{
        f"modules, {name}": modules(json.dumps([test_modules.module(path)]))
        for name, path in test_modules.ELSEWHERE.items()
    },
    "modules, an object": modules("{}"),
    "modules, nested": modules("[" * 100_000 + "]" * 100_000),
    "modules, a link out": linked_modules,
}  # fmt: skip
SAMPLE = (
    "safetensors, a header of 100 MB",
    "HDF5, soft link loop",
    "modules, a path upwards",
    *(f"{family}, text_config: hidden_size {2**31 - 1}" for family in FAMILIES),
)


def lines(said: str) -> list[str]:
    found = said.splitlines()
    assert "".join(f"{line}\n" for line in found) == said
    assert all(line.isprintable() for line in found)
    return found


@pytest.mark.parametrize("name", CASES if FULL else SAMPLE)
def test_every_command_refuses_it(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "src"
    folder.mkdir()
    shutil.copyfile(FIXTURE / "config.json", folder / "config.json")
    CASES[name](folder)
    before = {path: path.lstat() for path in tmp_path.rglob("*")}
    convert = "tf2pt" if (folder / H5).exists() or (folder / H5).is_symlink() else "pt2tf"
    for command in ("inspect", convert, "verify"):
        more = {"verify": ["--weights-only"], convert: [str(tmp_path / "out")]}.get(command, [])
        status, said, complained = run_alone([command, str(folder), *more])
        if command == "verify" and held(folder):  # says what it found of each part
            assert (status, complained) == (1, "")
            assert any(line.startswith("  weights  failed") for line in lines(said))
        elif status == 0:  # a valid header beside an invalid config
            assert command == "inspect"
            assert ": CANNOT be converted: " in lines(said)[0]
            assert complained == ""
        else:
            assert (status, said) == (3 if command == "verify" else 1, "")
            assert len(lines(complained)) == 1
            assert complained.startswith("convert: ")
    after = {path: path.lstat() for path in tmp_path.rglob("*")}
    assert {path: (held.st_size, held.st_mtime_ns) for path, held in after.items()} == {
        path: (held.st_size, held.st_mtime_ns) for path, held in before.items()
    }

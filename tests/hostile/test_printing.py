"""What a checkpoint calls its parts is shown on terminals: escaped, cut, on lines of ours."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from converter import pt2tf
from tests.cli.conftest import Convert
from tests.cli.conftest import convert as convert  # a fixture
from tests.hdf5_files import sound_file
from tests.tiny import FIXTURE

# A name that clears the screen, sets its title, begins a line, turns the writing around, and is no Latin.
EVIL = "\x1b[2J\x1b]0;evil\x07\r\n\u202e\x9b31m\x00\u2028q\x7f"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copytree(FIXTURE, tmp_path / "pt")
    return tmp_path / "pt"


def lines_of(convert: Convert, *arguments: object) -> list[str]:
    """What a command prints, on stdout and stderr, every line printable, no line for the whole screen."""
    run = convert(*map(str, arguments))
    lines = (run.out + run.err).splitlines()
    assert lines
    assert "".join(line + "\n" for line in lines) == run.out + run.err  # none of the file's breaks a line
    for line in lines:
        assert line.isprintable()
        assert len(line) < 5000
    return lines


@pytest.mark.parametrize("long", [False, True], ids=["short", "long"])
def test_names_of_fields(folder: Path, convert: Convert, long: bool) -> None:
    config = json.loads((folder / "config.json").read_text())
    name = EVIL * (2**12 if long else 1)
    config |= {name: 1, "architectures": [name]}
    config["text_config"][name] = name
    (folder / "config.json").write_text(json.dumps(config))
    for command in (("inspect", folder), ("pt2tf", folder, folder.with_name("tf"), "--dry-run")):
        lines = lines_of(convert, *command)
        assert any(r"\x1b[2J\x1b]0;evil\x07\r\n" in line for line in lines)


@pytest.mark.parametrize("kind", ["pt", "tf", "h5"])
def test_names_of_tensors(folder: Path, convert: Convert, kind: str) -> None:
    name = EVIL.replace("\x00", "") if kind == "h5" else EVIL
    if kind == "h5":
        (folder / "model.safetensors").unlink()
        with sound_file(folder / "tf_model.h5") as (_, layer):
            layer[f"r/{name}/x:0"] = np.ones(1, "f4")
            layer.attrs["weight_names"] = [f"r/{name}/x:0"]
    else:
        save_file({f"{name}.x": np.ones(1)}, folder / "model.safetensors", {"format": kind, name: name})
    command = "pt2tf" if kind == "pt" else "tf2pt"
    for arguments in (("inspect", folder), (command, folder, folder.with_name("out"))):
        assert any(r"\x1b[2J\x1b]0;evil\x07\r\n" in line for line in lines_of(convert, *arguments))


def test_scopes_of_a_megabyte_are_cut(folder: Path, convert: Convert) -> None:
    """The names are within the limit each; only their first parts are shown."""
    scopes = {f"{EVIL}{number}{'x' * 900}.y": np.ones(1) for number in range(100)}
    save_file(scopes, folder / "model.safetensors", {"format": "pt"})
    shown = next(line for line in lines_of(convert, "inspect", folder) if line.startswith("  parameters"))
    assert len(shown) < 1500


def test_names_of_files(folder: Path, convert: Convert) -> None:
    """Of the source and of OUT, which a person may have typed by completion."""
    place = folder.rename(folder.with_name(EVIL.replace("\x00", "")))
    for arguments in (
        ("inspect", place),
        ("pt2tf", place, folder.with_name("tf" + place.name)),
        ("verify", folder.with_name("tf" + place.name), "--weights-only"),
        ("inspect", place / "none"),
        ("pt2tf", place, place),
    ):
        assert any(r"\x1b[2J\x1b]0;evil\x07\r\n" in line for line in lines_of(convert, *arguments))


def test_what_a_manifest_says(folder: Path, convert: Convert) -> None:
    out = folder.with_name("tf")
    pt2tf(folder, out)
    manifest = json.loads((out / "conversion.json").read_text())
    manifest["files"].append({"name": EVIL.replace("\x00", ""), "size": 1})
    manifest["tensors"] = {EVIL: {"dtype": EVIL, "blake3": "0" * 64}}
    manifest["source"] = {"path": EVIL, "hub": EVIL, "commit": EVIL, "files": []}
    (out / "conversion.json").write_text(json.dumps(manifest))
    assert any(r"\x1b[2J" in line for line in lines_of(convert, "verify", out, "--weights-only"))


def test_names_of_what_is_left_out(folder: Path, convert: Convert) -> None:
    """A buffer may be called what training wrappers make of it; the summary says which."""
    tensors = load_file(folder / "model.safetensors")
    name = "text_model.embeddings.position_ids"
    tensors[f"module.{name}"] = np.arange(
        json.loads((folder / "config.json").read_text())["text_config"]["max_position_embeddings"]
    )[None]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    assert any(name in line for line in lines_of(convert, "pt2tf", folder, folder.with_name("tf")))

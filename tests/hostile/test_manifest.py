"""A conversion.json that lies: about its format, its files, its source, or the weights beside it."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from converter import pt2tf, verify
from converter.errors import SourceError
from converter.folder.manifest import read_manifest
from converter.parity.files_and_weights import verify_files
from tests.cli.conftest import Convert
from tests.cli.conftest import convert as convert  # a fixture
from tests.tiny import FIXTURE

SHA256 = "0" * 64


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pt2tf(FIXTURE, tmp_path_factory.mktemp("made") / "tf").out


@pytest.fixture
def out(made: Path, tmp_path: Path) -> Path:
    """A conversion, to be lied about."""
    return Path(shutil.copytree(made, tmp_path / "tf"))


def file(**changes: Any) -> dict[str, Any]:
    return {"files": [{"name": "tf_model.h5", "size": 1, "sha256": SHA256, **changes}]}


# What is changed in a sound manifest, and what is said of it.
LIES: dict[str, tuple[dict[str, Any], str]] = {
    "another format": ({"format": 3}, "format 3"),
    "a path upwards": (file(name="../config.json"), "file name '../config.json'"),
    "an absolute path": (file(name="/etc/passwd"), "file name '/etc/passwd'"),
    "chat templates upwards": (
        file(name="additional_chat_templates/../../x.jinja"),
        "file name 'additional_chat_templates/../../x.jinja'",
    ),
    "a file beside chat templates": (
        file(name="additional_chat_templates/x.py"),
        "file name 'additional_chat_templates/x.py'",
    ),
    "a name with a zero": (file(name="x\0"), r"file name 'x\x00'"),
    "a name of a megabyte": (file(name="x" * 2**20), "file name 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxx...xxxxxxx"),
    "a name that is a number": (file(name=7), "file name 7"),
    "a file that is none": ({"files": [None]}, "'NoneType' object is not subscriptable"),
    "a size of text": (file(size="many"), "invalid literal for int() with base 10: 'many'"),
    "a short hash": (file(sha256="00"), "a hash of another length"),
    "a short hash of the new kind": (file(blake3="00"), "a hash of another length"),
    "a hash that is a list": (file(sha256=["0"] * 64), "a hash of another length"),
    "a tensor without a hash": ({"tensors": {"x": {"dtype": "float32"}}}, "'blake3'"),
    "tensors that are a list": ({"tensors": ["x"]}, "'list' object has no attribute 'items'"),
    "no source": ({"source": None}, "'NoneType' object is not subscriptable"),
    "a source with files elsewhere": (
        {"source": {"path": "..", "files": [{"name": "../../x"}]}},
        "file name '../../x'",
    ),
    "another direction": ({"direction": "pt2tf; touch x"}, "direction 'pt2tf; touch x'"),
    "a direction that is a list": ({"direction": ["pt2tf"]}, "direction ['pt2tf']"),
    "no options": ({"options": None}, "'NoneType' object is not subscriptable"),
}


def lie(out: Path, changes: dict[str, Any]) -> None:
    manifest = json.loads((out / "conversion.json").read_text())
    (out / "conversion.json").write_text(json.dumps(manifest | changes))


@pytest.mark.parametrize("name", LIES)
def test_a_manifest_that_lies_is_refused(out: Path, convert: Convert, name: str) -> None:
    changes, said = LIES[name]
    lie(out, changes)
    with pytest.raises(SourceError) as caught:
        read_manifest(out)
    start, end = f"{out}/conversion.json: not a manifest of this version (", "); convert again"
    assert str(caught.value).startswith(start + said)
    assert str(caught.value).endswith(end)
    run = convert("verify", out, "--weights-only")
    assert (run.status, run.out, run.err) == (3, "", f"convert: {caught.value}\n")


@pytest.mark.parametrize(
    "path", ["/dev/zero", "/dev/stdin", "/etc/passwd", "/", "\0", "x" * 5000, "../pipe", "../circle", "\x1b[2J\n"]
)
def test_a_source_that_is_none(out: Path, convert: Convert, path: str) -> None:
    """Nothing is read from there: what has no config.json beside it is no source, and counts as gone."""
    os.mkfifo(out.parent / "pipe")
    (out.parent / "circle").symlink_to("circle")
    lie(out, {"source": {"path": path, "files": []}})
    run = convert("verify", out, "--weights-only")
    assert run.out.replace("\n", "").isprintable()
    assert run.err == ""
    assert "the hashes in the manifest, as the source is gone" in run.out
    assert run.status == 0


def test_a_manifest_that_is_a_link_out_of_the_folder(out: Path, convert: Convert) -> None:
    (out / "conversion.json").rename(out.parent / "elsewhere")
    (out / "conversion.json").symlink_to("../elsewhere")
    run = convert("verify", out, "--weights-only")
    assert (run.status, run.out) == (3, "")
    assert run.err == (
        f"convert: {out}/conversion.json: a link out of its folder, to {out.parent}/elsewhere; copy the file itself into "
        "the folder\n"
    )


def test_a_pipe_is_no_reference(out: Path, convert: Convert) -> None:
    """Whatever it is called: nothing waits for what comes out of it."""
    os.mkfifo(out.parent / "golden.safetensors")
    shutil.copy(out / "config.json", out.parent)
    run = convert("verify", out, "--weights-only", "--reference", out.parent / "golden.safetensors")
    assert run.status == 3
    assert "golden.safetensors: neither a file nor a folder" in run.out


def test_a_manifest_of_other_weights_is_told(out: Path) -> None:
    manifest = json.loads((out / "conversion.json").read_text())
    name = next(iter(manifest["tensors"]))
    manifest["tensors"][name]["blake3"] = SHA256
    lie(out, {"tensors": manifest["tensors"], "source": {"path": "../gone", "files": []}})
    weights = verify(out, weights_only=True).findings[1]
    assert weights.status == "failed"
    assert weights.problems == (f"{name} has a hash that differs from the manifest",)


def test_a_link_is_no_file_of_a_manifest(out: Path) -> None:
    """Though what it leads to has the size and the sum."""
    (out / "tokenizer.json").rename(out.parent / "elsewhere")
    (out / "tokenizer.json").symlink_to("../elsewhere")
    said = "tokenizer.json is a link; replace it with a copy of the file it points to"
    assert verify_files(out, read_manifest(out)).problems == (said,)


def test_without_hashes_sizes_count(tmp_path: Path) -> None:
    pt2tf(FIXTURE, tmp_path / "tf", check=False)
    with (tmp_path / "tf" / "tokenizer.json").open("ab") as file:
        file.write(b" ")
    size = (tmp_path / "tf" / "tokenizer.json").stat().st_size
    assert verify_files(tmp_path / "tf", read_manifest(tmp_path / "tf")).problems == (
        f"tokenizer.json has {size:,} bytes, the manifest says {size - 1:,}",
    )

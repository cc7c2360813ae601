"""conversion.json: every figure and hash in it, computed again from the files and from NumPy's arrays."""

from __future__ import annotations

import hashlib
import json
import shutil
import tomllib
from pathlib import Path
from typing import Any

import blake3
import numpy as np
import pytest

from converter import pt2tf, tf2pt
from converter.errors import TargetError
from converter.folder.manifest import VERSION, read_manifest
from converter.parity.files_and_weights import verify_files
from converter.publishing.evidence import option_words
from tests.tiny import FIXTURE, Arrays, load, write_tiny


def manifest(folder: Path) -> Any:
    return json.loads((folder / "conversion.json").read_text("utf-8"))


def record(path: Path) -> dict[str, Any]:
    return {"name": path.name, "size": path.stat().st_size, "blake3": blake3.blake3(path.read_bytes()).hexdigest()}


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def canonical(tensors: Arrays) -> dict[str, Any]:
    """Hashes as they are defined: BLAKE3 of the bytes in PyTorch's layout, C order, little-endian."""
    return {
        name: {
            "dtype": array.dtype.name,
            "shape": list(array.shape),
            "blake3": blake3.blake3(np.ascontiguousarray(array).tobytes()).hexdigest(),
        }
        for name, array in tensors.items()
    }


def test_everything_in_it(tmp_path: Path) -> None:
    shutil.copytree(FIXTURE, tmp_path / "src")
    pt2tf(tmp_path / "src", tmp_path / "deep" / "out")
    out = tmp_path / "deep" / "out"
    found = manifest(out)
    assert found.pop("tensors") == canonical(load(FIXTURE / "model.safetensors"))
    assert found == {
        "format": 2,
        "made_by": f"dual-encoder-converter {VERSION}",
        "direction": "pt2tf",
        "source": {"path": "../../src", "files": [record(FIXTURE / "model.safetensors")]},
        "options": {"format": "h5", "dtype": "keep", "max_shard_size": None},
        "family": "vision-text-dual-encoder",
        "towers": {"vision": "clip_vision_model", "text": "bert"},
        "config_rewritten": ["config.json: logit_scale_init_value: 2.6592 -> 3.309999942779541"],
        "config_unknown": [],
        "dropped": [],
        "left_behind": [],
        "restored": [],
        "made_new": [],
        "casts": {},
        "overflowed": {},
        "dialects": {"v4": 97},
        "checked": True,
        "files": [
            record(out / name)
            for name in (
                "tf_model.h5", "config.json", "processor_config.json", "tokenizer.json", "tokenizer_config.json",
            )
        ],
    }  # fmt: skip


def test_sha256_stands_beside_it_where_that_is_asked_for(tmp_path: Path) -> None:
    result = pt2tf(FIXTURE, tmp_path / "out", sha256=True)
    found = manifest(tmp_path / "out")
    (source,) = found["source"]["files"]
    assert source == record(FIXTURE / "model.safetensors") | {"sha256": sha256(FIXTURE / "model.safetensors")}
    assert len(found["files"]) == 5
    for item in found["files"]:
        assert item == record(tmp_path / "out" / item["name"]) | {"sha256": sha256(tmp_path / "out" / item["name"])}
    assert [item.to_json() for item in result.files] == found["files"]
    verified = verify_files(tmp_path / "out", read_manifest(tmp_path / "out"))
    assert (verified.status, verified.against) == ("passed", "the manifest, sizes, BLAKE3 and sha256")
    with pytest.raises(TargetError) as caught:
        pt2tf(FIXTURE, tmp_path / "other", sha256=True, check=False)
    assert str(caught.value) == (
        "sha256 is recorded while the output is checked; leave out --no-check (in Python check=False)"
    )


@pytest.mark.parametrize("kind", ["blake3", "sha256"])
def test_either_sum_tells_a_changed_file(tmp_path: Path, kind: str) -> None:
    """Format 1, of version 0.1, has sha256 alone; what it says counts as before."""
    out = pt2tf(FIXTURE, tmp_path / "out", sha256=True).out
    found = manifest(out)
    for item in (*found["files"], *found["source"]["files"]):
        del item["sha256" if kind == "blake3" else "blake3"]
    found["format"] = {"blake3": 2, "sha256": 1}[kind]
    (out / "conversion.json").write_text(json.dumps(found), "utf-8")
    assert verify_files(out, read_manifest(out)).status == "passed"
    with (out / "tf_model.h5").open("r+b") as file:
        file.seek(-1, 2)
        last = file.read(1)[0]
        file.seek(-1, 2)
        file.write(bytes([last ^ 1]))
    said = {"blake3": "BLAKE3", "sha256": "sha256"}[kind]
    assert verify_files(out, read_manifest(out)).problems == (
        f"tf_model.h5 has a {said} sum that differs from the manifest",
    )


def test_the_version_is_that_of_the_package() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["version"] == VERSION


def test_a_config_from_elsewhere_is_in_it_by_name_alone(tmp_path: Path) -> None:
    config = tmp_path / "private" / "dual config.json"
    config.parent.mkdir()
    shutil.copy(FIXTURE / "config.json", config)
    pt2tf(FIXTURE, tmp_path / "out", config=config)
    found = manifest(tmp_path / "out")
    assert found["options"]["config"] == "dual config.json"
    assert "private" not in json.dumps(found)
    assert option_words(found) == ["--format h5", "--config 'dual config.json'"]
    long = "a-name-that-is-longer-than-forty-characters-is-no-reason-to-cut-it.json"
    assert option_words({"options": {"config": long}}) == [f"--config {long}"]
    for odd in ("<!-- dual-encoder-converter: end -->", "```", "conf\udcff.json", "a\nb"):
        assert option_words({"options": {"config": odd, "format": odd}}) == ["--config CONFIG", "--format FORMAT"]
    pt2tf(FIXTURE, tmp_path / "given", config=json.loads(config.read_text()))
    assert "config" not in manifest(tmp_path / "given")["options"]


def test_every_file_is_in_it(tmp_path: Path) -> None:
    result = pt2tf(FIXTURE, tmp_path / "out")
    listed = {file["name"] for file in manifest(tmp_path / "out")["files"]}
    assert listed | {"conversion.json"} == {path.name for path in (tmp_path / "out").iterdir()}
    assert [file.to_json() for file in result.files] == manifest(tmp_path / "out")["files"]


@pytest.mark.parametrize("vision", ["clip_vision_model", "swin"])
def test_hashes_are_the_same_in_both_frameworks(tmp_path: Path, vision: str) -> None:
    tensors = write_tiny(tmp_path / "pt", vision)
    pt2tf(tmp_path / "pt", tmp_path / "tf")
    tf2pt(tmp_path / "tf", tmp_path / "back")
    assert manifest(tmp_path / "tf")["tensors"] == canonical(tensors)
    assert manifest(tmp_path / "back")["tensors"] == canonical(tensors)
    assert manifest(tmp_path / "back")["source"]["files"] == [record(tmp_path / "tf" / "tf_model.h5")]


def test_hashes_are_of_the_dtype_as_written(tmp_path: Path) -> None:
    tensors = write_tiny(tmp_path / "pt")
    pt2tf(tmp_path / "pt", tmp_path / "tf", dtype="float16")
    found = manifest(tmp_path / "tf")
    assert found["tensors"] == canonical({name: array.astype(np.float16) for name, array in tensors.items()})
    assert found["casts"] == {"float32 -> float16": len(tensors)}


def test_without_check_sizes_only(tmp_path: Path) -> None:
    write_tiny(tmp_path / "pt")
    pt2tf(tmp_path / "pt", tmp_path / "tf", check=False)
    found = manifest(tmp_path / "tf")
    assert (found["checked"], found["tensors"]) == (False, {})
    files = found["files"] + found["source"]["files"]
    assert [sorted(file) for file in files] == [["name", "size"]] * 3


def test_the_same_input_gives_the_same_folder(tmp_path: Path) -> None:
    write_tiny(tmp_path / "pt", "swin", "albert")
    for name in ("a", "b"):
        pt2tf(tmp_path / "pt", tmp_path / name)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()

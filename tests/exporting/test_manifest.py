"""export.json from anywhere: what is believed of it, and that it leads nowhere but into its own folder."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from converter.errors import SourceError
from converter.exporting import manifest
from converter.exporting.manifest import read_export
from converter.exporting.verifying import verify_export

SUM = "0" * 64
IMAGE = {"name": "pixel_values", "shape": [None, 3, 40, 40], "dtype": "float32", "axes": ["images", 3, 40, 40]}
TEXT = {"name": "input_ids", "shape": [None, None], "dtype": "int64", "axes": ["texts", "length"]}
PLAIN: dict[str, Any] = {
    "format": 1,
    "precision": "float32",
    "gate": None,
    "normalisation": None,
    "golden": {"name": "reference.safetensors", "size": 1, "sha256": SUM},
    "files": [],
    "exports": [
        {
            "format": "savedmodel",
            "files": [{"name": "saved_model/saved_model.pb", "size": 1, "sha256": SUM}],
            "signatures": {
                "similarity": {"inputs": [TEXT, IMAGE], "outputs": [{"name": "logits_per_image"}]},
                "encode_image": {"inputs": [IMAGE], "outputs": [{"name": "image_embeds"}]},
                "encode_text": {"inputs": [TEXT], "outputs": [{"name": "text_embeds"}]},
            },
        }
    ],
}


def written(folder: Path, raw: Any) -> Path:
    (folder / "export.json").write_text(json.dumps(raw), "utf-8")
    return folder


def at(*way: Any) -> Callable[[Any], Callable[[Any], None]]:
    """A change: another value somewhere in an export.json."""

    def setting(value: Any) -> Callable[[Any], None]:
        def change(raw: Any) -> None:
            for step in way[:-1]:
                raw = raw[step]
            raw[way[-1]] = value

        return change

    return setting


ONE = ("exports", 0)
FILE = (*ONE, "files", 0)
TAKES = (*ONE, "signatures", "encode_text", "inputs", 0)
HOSTILE = {
    "another format": at("format")(2),
    "no exports": at("exports")([]),
    "an unknown format": at(*ONE, "format")("coreml"),
    "a precision that the format lacks": at("precision")("int8"),
    "a gate that lets all pass": at("gate")(-1.0),
    "a gate that is no number": at("gate")(float("nan")),
    "a file elsewhere": at(*FILE, "name")("../saved_model/saved_model.pb"),
    "a file by its full path": at(*FILE, "name")("/etc/passwd"),
    "a file that is none of the format": at(*FILE, "name")("other/saved_model.pb"),
    "a path of many levels": at(*FILE, "name")("saved_model/" + "a/" * 9 + "b"),
    "a size that is none": at(*FILE, "size")(-1),
    "a hash that is none": at(*FILE, "sha256")("abc"),
    "another golden file": at("golden", "name")("golden.safetensors"),
    "an unknown input": at(*TAKES, "name")("__class__"),
    "an unknown dtype": at(*TAKES, "dtype")("O"),
    "too many axes": at(*TAKES, "shape")([None] * 17),
    "an axis of nothing": at(*TAKES, "shape")([0, None]),
    "an unknown output": at(*ONE, "signatures", "encode_text", "outputs")([{"name": "x"}]),
    "no signatures": at(*ONE, "signatures")({}),
    "numbers that make no picture": at("normalisation")({"rescale": 0, "mean": [0], "std": [1]}),
    "more files than any export": at("files")([{"name": f"f{n}", "size": 1, "sha256": SUM} for n in range(1001)]),
    "the same format twice": lambda raw: raw["exports"].append(raw["exports"][0]),
    "a list": at("exports")({"a": 1}),
}


def test_a_plain_one(tmp_path: Path) -> None:
    found = read_export(written(tmp_path, PLAIN))
    assert [one.target.name for one in found.formats] == ["savedmodel"]
    assert found.formats[0].signatures[2].inputs == {"input_ids": ((None, None), "int64")}
    assert [file.path for file in found.files] == ["saved_model/saved_model.pb", "reference.safetensors"]


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE)
def test_refused(tmp_path: Path, change: Callable[[Any], None]) -> None:
    raw = copy.deepcopy(PLAIN)
    change(raw)
    with pytest.raises(SourceError, match=r"not an export of this version \(.*\); export again$"):
        read_export(written(tmp_path, raw))


def test_a_large_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "MAX_EXPORT_BYTES", 500)
    with pytest.raises(SourceError, match="larger than 500 bytes"):
        read_export(written(tmp_path, PLAIN))


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    folder = tmp_path / "app"
    (folder / "saved_model").mkdir(parents=True)
    (tmp_path / "secret").write_bytes(b"s")
    (folder / "saved_model" / "saved_model.pb").symlink_to(tmp_path / "secret")
    found = verify_export(written(folder, PLAIN))
    assert found.status == "failed"
    assert "a link out of its folder" in found.findings[0].problems[0]
    assert found.findings[1].status == "not checked"  # nothing was run


def test_no_export(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"holds no export\.json; name a folder that `convert export` made$"):
        verify_export(tmp_path)

"""Files and weights against manifest and source, without a framework; every control must fail, and name the place."""

from __future__ import annotations

import errno
import json
import os
import shutil
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from converter import pt2tf, tf2pt
from converter.errors import SourceError, unreadable
from converter.folder import records
from converter.folder.manifest import read_manifest
from converter.folder.records import hash_file
from converter.parity import files_and_weights as verification
from converter.parity.files_and_weights import verify_files, verify_weights
from converter.parity.finding import Finding, status_of
from converter.parity.sources import find_source
from tests.tiny import config_of, tensors_of, write_checkpoint

ROOT = "tf_vision_text_dual_encoder_model"


@pytest.fixture
def shipped() -> Path:
    return Path(__file__).parents[2] / "fixtures" / "clip-bert-tiny"


@pytest.fixture
def source(tmp_path: Path, shipped: Path) -> Path:
    return Path(shutil.copytree(shipped, tmp_path / "source"))


@pytest.fixture
def out(tmp_path: Path, source: Path) -> Path:
    pt2tf(source, tmp_path / "out")
    return tmp_path / "out"


def weights(out: Path, reference: Path | None = None) -> Finding:
    recorded = read_manifest(out)
    return verify_weights(out, recorded, find_source(out, recorded, [reference]))


def change(out: Path, name: str, how: Callable[[np.ndarray[Any, Any]], None]) -> None:
    """Changes a tensor of a tf_model.h5 and makes the manifest's sum fit, so that only the weights can tell."""
    with h5py.File(out / "tf_model.h5", "r+") as file:
        group = "top_level_model_weights" if name == "logit_scale" else name.split("/")[0]
        dataset = file[f"{group}/{ROOT}/{name}:0"]
        values = dataset[()]
        how(values)
        dataset[()] = values
    text = (out / "conversion.json").read_text()
    manifest = json.loads(text)
    for record in manifest["files"]:
        record["blake3"] = hash_file(out / record["name"]).blake3
    (out / "conversion.json").write_text(json.dumps(manifest))


def test_a_conversion_passes_in_both_directions(out, source, tmp_path):
    for folder in (out, tmp_path / "back"):
        if folder != out:
            tf2pt(out, folder)
        files = verify_files(folder, read_manifest(folder))
        assert (files.status, files.compared, files.against) == ("passed", 5, "the manifest, sizes and BLAKE3")
        found = weights(folder)
        assert (found.status, found.compared, found.problems) == ("passed", 97, ())


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_dtype_that_was_asked_for_passes(source, tmp_path, dtype):
    pt2tf(source, tmp_path / "out", dtype=dtype, format="safetensors")
    assert weights(tmp_path / "out").status == "passed"


def test_without_its_source_the_canonical_hashes_count(out, source):
    shutil.rmtree(source)
    found = weights(out)
    assert (found.status, found.compared) == ("passed", 97)
    assert found.against == "the hashes in the manifest, as the source is gone"
    change(out, "text_model/bert/pooler/dense/bias", lambda values: values.__setitem__(3, values[3] + 1e-3))
    assert weights(out).problems == ("text_model.pooler.dense.bias has a hash that differs from the manifest",)


def test_without_source_and_hashes_nothing_is_called_passed(source, tmp_path):
    pt2tf(source, tmp_path / "out", check=False)
    shutil.rmtree(source)
    found = weights(tmp_path / "out")
    assert found.status == "not checked"
    assert found.problems == ("the source is gone and the manifest has no hashes; name the source with --reference",)


def test_a_file_of_another_size_is_not_said_to_have_had_no_sum(out):
    config = out / "config.json"
    size = config.stat().st_size
    config.write_text(config.read_text() + " ")
    found = verify_files(out, read_manifest(out))
    assert (found.status, found.against) == ("failed", "the manifest, sizes and BLAKE3")
    assert found.problems == (f"config.json has {size + 1:,} bytes, the manifest says {size:,}",)


def test_a_file_that_cannot_be_read(out, monkeypatch):
    def refuse(path, kinds):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(records, "hash_file", refuse)
    found = verify_files(out, read_manifest(out))
    assert (found.status, len(found.problems), found.compared) == ("not checked", 5, 0)
    assert found.problems[0] == "tf_model.h5 cannot be read: Permission denied"
    assert status_of([found, Finding("weights", "passed", 1)]) == "not checked"
    (out / "config.json").unlink()  # what was seen is judged all the same
    found = verify_files(out, read_manifest(out))
    assert (found.status, found.problems[0]) == ("failed", "config.json is missing")


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ENOENT])
def test_weights_that_cannot_be_read(out, source, monkeypatch, number):
    """A file that is not there is another matter: that was seen."""

    def refuse(*args, **options):
        try:
            raise OSError(number, os.strerror(number))
        except OSError as error:
            raise SourceError(unreadable("tf_model.h5", error)) from None

    monkeypatch.setattr(verification, "open_tensors", refuse)
    found = weights(out, source)
    assert found.status == ("failed" if number == errno.ENOENT else "not checked")
    assert found.problems == (f"tf_model.h5: cannot be read: {os.strerror(number)}; check its permissions",)


def test_a_folder_without_manifest(out, source):
    (out / "conversion.json").unlink()
    assert verify_files(out, read_manifest(out)).status == "not checked"
    assert weights(out, source).status == "passed"


def swap(values: np.ndarray[Any, Any]) -> None:
    values[...] = values.T.copy()


CONTROLS = {
    "one weight by 1e-3": (
        "text_model/bert/encoder/layer_._1/attention/self/value/kernel",
        lambda values: values.__setitem__((3, 5), values[3, 5] + 1e-3),
        "text_model.encoder.layer.1.attention.self.value.weight differs in 1 of 1,600 elements, first at (5, 3)",
    ),
    "a square kernel transposed": (
        "vision_model/clip/vision_model/encoder/layers_._2/self_attn/q_proj/kernel",
        swap,
        "vision_model.vision_model.encoder.layers.2.self_attn.q_proj.weight differs in 2,256 of 2,304 elements",
    ),
    "a NaN": (
        "visual_projection/kernel",
        lambda values: values.__setitem__((0, 0), np.nan),
        "visual_projection.weight differs in 1 of 1,344 elements, first at (0, 0): ",
    ),
    "a negative zero": (
        "text_model/bert/embeddings/LayerNorm/beta",
        lambda values: values.__setitem__(slice(None), -values),
        "text_model.embeddings.LayerNorm.bias differs in 40 of 40 elements, first at (0,)",
    ),
}


@pytest.mark.parametrize("control", CONTROLS)
def test_a_changed_weight_is_found_and_named(out, control):
    name, how, expected = CONTROLS[control]
    change(out, name, how)
    assert verify_files(out, read_manifest(out)).status == "passed"
    found = weights(out)
    assert found.status == "failed"
    assert len(found.problems) == 1
    assert found.problems[0].startswith(expected)


def test_a_scale_reset_to_the_default_is_found_twice(out):
    change(out, "logit_scale", lambda values: values.__setitem__(0, 2.6592))
    problems = weights(out).problems
    assert problems[0].startswith(
        "config.json: logit_scale_init_value is 3.309999942779541, the trained logit_scale is 2.659"
    )
    assert problems[1].startswith("logit_scale differs in 1 of 1 elements, first at (): 2.659")


@pytest.mark.parametrize("options", [{"format": "safetensors"}, {"max_shard_size": "100KB"}], ids=str)
def test_other_containers_hold_the_scale_that_transformers_4_reads(
    source: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    """Of a single tf_model.h5 alone it takes the config's."""
    pt2tf(source, tmp_path / "other", **options)
    config = json.loads((tmp_path / "other" / "config.json").read_text())
    (tmp_path / "other" / "config.json").write_text(json.dumps(config | {"logit_scale_init_value": 2.6592}))
    assert weights(tmp_path / "other", source).status == "passed"


def test_a_config_without_the_trained_scale_is_found(out):
    config = json.loads((out / "config.json").read_text())
    (out / "config.json").write_text(json.dumps(config | {"logit_scale_init_value": 2.6592}))
    assert verify_files(out, read_manifest(out)).problems[0].startswith("config.json has ")
    assert weights(out).problems[0].startswith("config.json: logit_scale_init_value is 2.6592, the trained")


def test_chat_templates_that_changed_went_or_are_linked(source, tmp_path):
    folder = source / "additional_chat_templates"
    folder.mkdir()
    for name in ("a", "b", "c", "d"):
        (folder / f"{name}.jinja").write_text(name)
    out = pt2tf(source, tmp_path / "out").out
    names = [f"additional_chat_templates/{name}.jinja" for name in ("a", "b", "c", "d")]
    assert verify_files(out, read_manifest(out)).status == "passed"
    for name in names:
        assert read_manifest(out).files[name] == replace(hash_file(source / name), name=name)
    (out / names[0]).write_text("x")
    (out / names[1]).unlink()
    (out / names[2]).rename(tmp_path / "c")
    (out / names[2]).symlink_to(tmp_path / "c")
    assert verify_files(out, read_manifest(out)).problems == (
        f"{names[0]} has a BLAKE3 sum that differs from the manifest",
        f"{names[1]} is missing",
        f"{names[2]} is a link; replace it with a copy of the file it points to",
    )
    moved = (out / "additional_chat_templates").rename(tmp_path / "elsewhere")
    (out / "additional_chat_templates").symlink_to(moved)
    assert len(verify_files(out, read_manifest(out)).problems) == 4


def test_files_that_changed_went_or_came(out):
    (out / "tokenizer.json").unlink()
    with (out / "tf_model.h5").open("r+b") as file:
        file.seek(-1, 2)
        last = file.read(1)
        file.seek(-1, 2)
        file.write(bytes([last[0] ^ 1]))
    (out / "model.safetensors").write_bytes(b"")
    found = verify_files(out, read_manifest(out))
    assert found.status == "failed"
    assert found.problems == (
        "tf_model.h5 has a BLAKE3 sum that differs from the manifest",
        "tokenizer.json is missing",
        "weights that the manifest does not list: model.safetensors",
    )


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "{}",
        '{"format": 3}',
        '{"format": 1, "files": [{"name": "../x", "size": 1}], "tensors": {}, "direction": "pt2tf"}',
        '{"format": 1, "files": [{"name": "x", "size": "many"}], "tensors": {}}',
        '{"format": 1, "files": 3}',
        "[" * 100_000,
    ],
)
def test_a_manifest_that_lies_is_refused(out, text):
    (out / "conversion.json").write_text(text)
    with pytest.raises(SourceError, match=r"conversion\.json: "):
        read_manifest(out)


# --- several weights in one folder ----------------------------------------------------------------------------------


def test_weights_that_were_not_compared_are_not_equal(out: Path, source: Path) -> None:
    change(out, "text_model/bert/pooler/dense/bias", lambda values: values.__setitem__(3, values[3] + 1e-3))
    shutil.copy(source / "model.safetensors", out)
    (out / "conversion.json").unlink()
    found = weights(out, source)
    assert found.status == "failed"
    assert found.problems == (
        "the folder holds several weights (model.safetensors, tf_model.h5), and only model.safetensors was compared; "
        "keep one of them",
    )


@pytest.mark.parametrize("shards", [None, "100KB"])
def test_of_a_source_with_several_weights_those_converted_are_the_source(
    out: Path, source: Path, tmp_path: Path, shards: str | None
) -> None:
    both = tmp_path / "both"
    if shards is None:
        change(out, "text_model/bert/pooler/dense/bias", lambda values: values.__setitem__(3, values[3] + 1e-3))
        shutil.copytree(out, both)
    else:
        pt2tf(source, both, dtype="float16", max_shard_size=shards)
    shutil.copy(source / "model.safetensors", both)
    tf2pt(both, tmp_path / "back")
    name = "tf_model.h5" if shards is None else "tf_model.h5.index.json"
    for given in (None, both):
        found = weights(tmp_path / "back", given)
        assert (found.status, found.against) == ("passed", f"{both / name}, bit for bit")
    shutil.copy(source / "model.safetensors", tmp_path / "back")
    assert weights(tmp_path / "back").status == "failed", "equal to the weights beside those that were converted"


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="counts what the kernel counts")
def test_how_much_is_read_and_held(tmp_path: Path) -> None:
    """The output twice, for its sum and its weights; the source once; and blocks of both in memory, not tensors."""
    config = config_of(text_fields={"vocab_size": 400_000})
    write_checkpoint(tmp_path / "pt", config, tensors_of(config))
    pt2tf(tmp_path / "pt", tmp_path / "tf")
    sizes = [(tmp_path / name).stat().st_size for name in ("pt/model.safetensors", "tf/tf_model.h5")]
    assert min(sizes) > 30e6
    recorded = read_manifest(tmp_path / "tf")

    def so_far() -> int:
        return int(Path("/proc/self/io").read_text().split()[1])

    before = so_far()
    tracemalloc.start()
    assert verify_files(tmp_path / "tf", recorded).status == "passed"
    assert verify_weights(tmp_path / "tf", recorded, tmp_path / "pt").status == "passed"
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert so_far() - before <= 1.5 * sum(sizes) + 2**20
    assert most < 10e6

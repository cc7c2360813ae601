"""The golden reference file: there and back bit for bit, and everything a file from elsewhere may get wrong."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from converter.errors import OptionError, ParityError
from converter.parity.batches import Batch, same_bits
from converter.parity.runners.golden import MAX_BYTES, Recording, check_recording_path, read_recording, write_recording
from converter.parity.runners.golden import METADATA as NEEDED
from tests.parity.samples import METADATA, SEQUENCE, TEXTS, inputs, recording, taps

HEADER = {**METADATA, "format": "vision-text-parity", "format_version": "1", "batches": '["one"]'}


def tensors(**changed: Any) -> dict[str, Any]:
    found = {f"batch.0.input.{name}": array for name, array in inputs().items()}
    found.update({f"batch.0.tap.{name}": array for name, array in taps().items()})
    return {**found, **changed}


def stored(path: Path, found: dict[str, Any], header: dict[str, str] | None = None) -> Path:
    save_file(found, path, metadata=HEADER if header is None else header)
    return path


def refusal(path: Path, **options: Any) -> str:
    with pytest.raises(ParityError) as caught:
        read_recording(path, **options)
    return str(caught.value).removeprefix(f"{path}")


def test_a_recording_comes_back_bit_for_bit(tmp_path: Path) -> None:
    found = taps()
    found["text.layers.0"][0, 0, :3] = [np.nan, np.inf, -0.0]
    written = recording(found, taps(1, "float64"))
    write_recording(written, tmp_path / "a.safetensors")
    read = read_recording(tmp_path / "a.safetensors")
    assert read.metadata == METADATA
    assert [batch.title for batch in read.batches] == ["batch 0", "batch 1"]
    for one, other in zip(read.batches, written.batches, strict=True):
        for ours, theirs in ((one.inputs, other.inputs), (one.taps, other.taps)):
            assert ours.keys() == theirs.keys()
            for name in theirs:
                assert (ours[name].dtype, ours[name].shape) == (theirs[name].dtype, theirs[name].shape)
                assert ours[name].tobytes() == theirs[name].tobytes()


def test_writing_replaces_a_file_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    for seed in (0, 1):
        write_recording(recording(taps(seed)), path)
    assert list(tmp_path.iterdir()) == [path]
    assert np.array_equal(read_recording(path).batches[0].taps["text.pooled"], taps(1)["text.pooled"])


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
def test_others_may_read_it_where_they_may_read_other_files(tmp_path: Path, mask: int, mode: int) -> None:
    before = os.umask(mask)
    try:
        write_recording(recording(taps()), tmp_path / "a.safetensors")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.safetensors").stat().st_mode) == mode


def test_arrays_in_another_order_of_memory_are_written_by_value(tmp_path: Path) -> None:
    found = taps()
    found["logits_per_text"] = found["logits_per_image"].T
    write_recording(recording(found), tmp_path / "a.safetensors")
    read = read_recording(tmp_path / "a.safetensors").batches[0].taps
    assert np.array_equal(read["logits_per_text"], found["logits_per_image"].T)


def test_inputs_alone_are_read_as_such(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write_recording(Recording({}, (Batch("one", inputs()),)), path)
    assert read_recording(path, taps=False).batches[0].taps == {}
    assert "metadata lacks source, config_sha256" in refusal(path)
    write_recording(Recording(METADATA, (Batch("one", inputs()),)), path)
    assert refusal(path) == (": batch 0 has no layer outputs; run 'convert reference' again")
    write_recording(recording(taps()), path)
    assert refusal(path, taps=False) == ": batch 0 already has layer outputs, expected inputs only"


@pytest.mark.parametrize("name", NEEDED)
def test_metadata_must_say_what_ran(tmp_path: Path, name: str) -> None:
    header = {key: value for key, value in HEADER.items() if key != name}
    path = stored(tmp_path / "a.safetensors", tensors(), header)
    assert refusal(path) == f": metadata lacks {name}; make the file again"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "pt"}, "not a golden reference file but another safetensors file"),
        ({"format_version": "2"}, "format version 2, this version reads 1; make the file again"),
        ({"batches": "[]"}, "not a list of 1 to 1000 titles"),
        ({"batches": "{"}, "not a list of 1 to 1000 titles"),
        ({"batches": "[1]"}, "not a list of 1 to 1000 titles"),
        ({"batches": "[" * 100_000}, "more than 100,000 characters of metadata"),
        ({"batches": "[" * 50_000}, "not a list of 1 to 1000 titles"),
        ({"batches": json.dumps(["t"] * 1001)}, "not a list of 1 to 1000 titles"),
        ({"batches": json.dumps(["red \x1b[31m"])}, r"'red \x1b[31m' is not a batch title"),
        ({"batches": json.dumps(["a", "b"])}, "batch 1: no pixel_values"),
        ({"source": "s" * 100_001}, "more than 100,000 characters of metadata"),
    ],
)
def test_hostile_metadata_is_refused(tmp_path: Path, change: dict[str, str], message: str) -> None:
    path = stored(tmp_path / "a.safetensors", tensors(), {**HEADER, **change})
    assert message in refusal(path).replace("\\\\", "\\")


@pytest.mark.parametrize(
    "name",
    ["batch.1.tap.loss", "batch.00.tap.loss", "batch.0.tap.text.layers", "batch.0.tap.other", "batch.0.input.labels",
     "batch.0.input.loss", "batch.0.tap.pixel_values", "batch.-1.tap.loss", "tap.loss", "batch.0.tap.loss\x1b[31m"],
)  # fmt: skip
def test_a_tensor_of_another_name_is_refused(tmp_path: Path, name: str) -> None:
    path = stored(tmp_path / "a.safetensors", tensors(**{name: np.zeros(2, np.float32)}))
    message = refusal(path)
    assert message.startswith(": unexpected tensor ")
    assert "\x1b" not in message


@pytest.mark.parametrize(
    ("name", "dtype", "message"),
    [
        ("tap.loss", "float16", "batch.0.tap.loss is F16, expected F32 or F64"),
        ("tap.loss", "int64", "batch.0.tap.loss is I64, expected F32 or F64"),
        ("input.pixel_values", "float64", "batch.0.input.pixel_values is F64, expected F32"),
        ("input.input_ids", "int32", "batch.0.input.input_ids is I32, expected I64"),
        ("input.attention_mask", "bool", "batch.0.input.attention_mask is BOOL, expected I64"),
    ],
)
def test_another_dtype_is_refused(tmp_path: Path, name: str, dtype: str, message: str) -> None:
    found = tensors()
    found[f"batch.0.{name}"] = found[f"batch.0.{name}"].astype(dtype)
    assert refusal(stored(tmp_path / "a.safetensors", found)) == f": {message}"


HOLLOW = np.array([[1, 1, 1, 1, 1], [0, 0, 0, 0, 0], [1, 0, 0, 0, 0]])
BAD_INPUTS = [
    ({"attention_mask": HOLLOW}, "attention_mask masks all of row 1"),
    ({"attention_mask": np.full((TEXTS, SEQUENCE), 2)}, "attention_mask holds 2, expected 0 and 1 only"),
    ({"attention_mask": np.full((TEXTS, SEQUENCE), -1)}, "attention_mask holds -1, expected no negative values"),
    ({"attention_mask": np.ones((TEXTS, 1), np.int64)}, "expected int64 (texts, sequence) like input_ids (3, 5)"),
    ({"input_ids": np.full((TEXTS, SEQUENCE), -7)}, "input_ids holds -7, expected no negative values"),
    ({"input_ids": np.zeros((TEXTS, 0), np.int64)}, "input_ids is int64 (3, 0), expected int64 (texts, sequence)"),
    ({"input_ids": np.zeros(5, np.int64)}, "input_ids is int64 (5,), expected int64 (texts, sequence)"),
    ({"position_ids": np.zeros((1, SEQUENCE), np.int64)}, "position_ids is int64 (1, 5)"),
    ({"pixel_values": np.zeros((4, 3, 8), np.float32)}, "pixel_values is float32 (4, 3, 8)"),
    ({"pixel_values": np.zeros((0, 3, 8, 8), np.float32)}, "pixel_values is float32 (0, 3, 8, 8)"),
    ({"pixel_values": np.full((1, 3, 8, 8), np.nan, np.float32)}, "pixel_values holds values that are not finite"),
]


CUT = {
    "pixel_values": np.ones((4, 6, 12), np.float32),
    "pixel_attention_mask": np.ones((4, 6), np.int64),
    "spatial_shapes": np.full((4, 2), 2),
}
BAD_INPUTS += [
    ({**CUT, **changed}, message)
    for changed, message in (
        ({"pixel_values": np.ones((4, 3, 8, 8), np.float32)}, "expected float32 (images, patches, values)"),
        ({"pixel_attention_mask": np.ones((4, 5), np.int64)}, "expected int64 (images, patches) (4, 6)"),
        ({"pixel_attention_mask": np.full((4, 6), 3)}, "pixel_attention_mask holds 3, expected 0 and 1 only"),
        ({"pixel_attention_mask": np.zeros((4, 6), np.int64)}, "pixel_attention_mask masks all of row 0"),
        ({"spatial_shapes": np.full((4, 3), 1)}, "spatial_shapes is int64 (4, 3), expected int64 (images, 2)"),
        (
            {"spatial_shapes": np.full((4, 2), 0)},
            "spatial_shapes holds 0 to 0, expected rows and columns of at least 1",
        ),
        ({"spatial_shapes": np.array([[1, 1]] * 3 + [[2, 4]])}, "whose product is at most the 6 patches"),
        ({"spatial_shapes": np.full((4, 2), 2**32)}, "whose product is at most the 6 patches"),  # 0 in 64 bits
    )
]
BAD_INPUTS.append(
    (
        {name: CUT[name] for name in ("pixel_values", "pixel_attention_mask")},
        "pixel_attention_mask without spatial_shapes; give the rows and columns of each image",
    )
)


def test_images_that_are_cut_up_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write_recording(Recording(METADATA, (Batch("one", inputs(**CUT), taps()),)), path)
    (batch,) = read_recording(path).batches
    assert all(same_bits(batch.inputs[name], array) for name, array in CUT.items())


@pytest.mark.parametrize(("changed", "message"), BAD_INPUTS)
def test_inputs_that_no_model_should_see_are_refused_both_ways(
    tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    path = tmp_path / "a.safetensors"
    with pytest.raises(ParityError) as caught:
        write_recording(Recording(METADATA, (Batch("one", inputs(**changed), taps()),)), path)
    assert message in str(caught.value)
    assert not path.exists()
    found = tensors(**{f"batch.0.input.{name}": array for name, array in changed.items()})
    assert message in refusal(stored(path, found))


@pytest.mark.parametrize("name", ["pixel_values", "input_ids"])
def test_inputs_that_every_model_needs(tmp_path: Path, name: str) -> None:
    found = {key: array for key, array in tensors().items() if not key.endswith(name)}
    assert f"batch 0: no {name}" in refusal(stored(tmp_path / "a.safetensors", found))


def test_what_is_no_file_of_ours_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    assert refusal(path) == ": cannot be read: No such file or directory"
    assert refusal(tmp_path) == ": not a file; name a golden reference file that 'convert reference' wrote"
    os.mkfifo(tmp_path / "pipe")
    assert "not a file" in refusal(tmp_path / "pipe")
    for content in (
        b"",
        b"PK\x03\x04" * 100,
        (2**60).to_bytes(8, "little") + b"{}",
        (9).to_bytes(8, "little") + b"[[[[[[[[[",
    ):
        path.write_bytes(content)
        assert "not a golden reference file" in refusal(path)
    save_file({"x": np.zeros(1)}, path)
    assert "not a golden reference file but another safetensors file" in refusal(path)


def test_a_file_larger_than_any_run_makes_is_not_read(tmp_path: Path) -> None:
    path = stored(tmp_path / "a.safetensors", tensors())
    os.truncate(path, MAX_BYTES + 1)  # sparse
    assert refusal(path) == f": {MAX_BYTES + 1:,} bytes, expected at most {MAX_BYTES:,}"


@given(st.data())
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_damaged_file_is_refused_or_read_as_well_formed(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "a.safetensors"
    write_recording(recording({"loss": np.ones((), np.float32)}), path)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(content[: data.draw(st.integers(0, len(content)))]))
    try:
        read = read_recording(path)
    except ParityError:
        return
    assert all(batch.taps and batch.mask.any(axis=1).all() for batch in read.batches)


def test_a_tap_of_another_dtype_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ParityError, match=r"batch\.0\.tap\.loss is float16, expected float32 or float64"):
        write_recording(recording({"loss": np.zeros((), np.float16)}), tmp_path / "a.safetensors")


def test_a_folder_that_is_not_there_is_an_error_of_the_caller(tmp_path: Path) -> None:
    with pytest.raises(ParityError, match="cannot be written"):
        write_recording(recording(taps()), tmp_path / "none" / "a.safetensors")


def test_a_name_by_which_verify_would_not_know_it_is_refused(tmp_path: Path) -> None:
    check_recording_path(tmp_path / "golden.safetensors")
    with pytest.raises(OptionError) as caught:
        check_recording_path(tmp_path / "golden")
    assert str(caught.value) == (
        f"{tmp_path}/golden: the name of a golden reference file ends in .safetensors; choose another name"
    )

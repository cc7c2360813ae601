"""LiteRT: every tower and family in a file of three signatures, beside PyTorch; what is refused, and that faults are found."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

pytest.importorskip("ai_edge_litert")

from converter.errors import ModelError, ParityError, WorkerError
from converter.exporting.normalisation import Normalisation
from converter.exporting.runners.litert import start_litert
from converter.exporting.signatures import ExportOptions
from converter.parity.runners.isolation import Worker
from tests.exporting import litert_files as files
from tests.fuzz.mutators import mutate_bytes
from tests.models import reference
from tests.models.conftest import Case, make_case
from tests.models.families import FAMILIES, WHOLES, config_of
from tests.torture import rounds
from tests.towers import ROUND, sample_of_pairs

pytestmark = [pytest.mark.torch, pytest.mark.tf]

if keras.backend.backend() != "tensorflow":
    pytest.skip("about TensorFlow's graphs", allow_module_level=True)

# Every tower is in a pair, another with each day; one of all is tried in every run.
EVERY = [*map("+".join, sample_of_pairs()), *(name for name in WHOLES if name in FAMILIES)]
TODAY = EVERY[ROUND % len(EVERY)]
TEXT = {"input_ids", "attention_mask"}
NUMBERS = Normalisation(1 / 255, (0.48, 0.45, 0.40), (0.27, 0.26, 0.21))
HALF = 65504.0  # the largest float16


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    with start_litert() as started:
        yield started


@pytest.fixture(scope="module")
def case() -> Case:
    return make_case(config_of("clip_vision_model+roberta"))


@pytest.fixture(scope="module")
def file(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("litert") / "model.tflite"
    files.write(case, path)
    return path


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name == TODAY else pytest.mark.torture) for name in EVERY]
)
def test_every_tower_is_pytorchs(name: str, worker: Worker, tmp_path: Path) -> None:
    case = make_case(config_of(name))
    written = files.write(case, tmp_path / "model.tflite")
    said = files.opened(worker, tmp_path / "model.tflite")
    assert said["signatures"].keys() == {"encode_image", "encode_text", "similarity"}
    assert said["axes"] == 4
    assert not [kind for kind in said["operators"] if kind.startswith(("custom:", "FLEX"))]
    assert written.operators == {"model.tflite": said["operators"]}
    assert written.least == {"runtime": said["runtime"]}
    assert written.dtypes == {
        one: "int32" for one in files.served(case, reference.make_inputs(case.config)) if one != "pixel_values"
    }
    for _, values in files.constants((tmp_path / "model.tflite").read_bytes()):
        assert np.abs(values).max() <= HALF
    for shape in ((3, 4, 9), (1, 1, 5), (2, 3, 13)):
        inputs = files.served(case, reference.make_inputs(case.config, *shape, seed=shape[2]))
        wanted = files.wanted(case, inputs)
        for signature, about in said["signatures"].items():
            found = files.run(worker, signature, {key: inputs[key] for key in about["inputs"]}, tmp_path)
            for key, value in found.items():
                assert files.difference(value, wanted[key]) <= (1e-5 if "embeds" in key else 1e-4), (signature, key)


def test_static_shapes_and_bytes_in_float16(case: Case, worker: Worker, tmp_path: Path) -> None:
    options = ExportOptions(precision="float16", pixels="uint8", batch=2, length=9)
    files.write(case, tmp_path / "model.tflite", options, NUMBERS, only="similarity")
    said = files.opened(worker, tmp_path / "model.tflite")
    (signature,) = said["signatures"].values()
    assert signature["inputs"] == {
        "input_ids": {"shape": [2, 9], "dtype": "int32"},
        "attention_mask": {"shape": [2, 9], "dtype": "int32"},
        "pixels": {"shape": [2, 20, 20, 3], "dtype": "uint8"},
    }
    inputs = files.served(case, reference.make_inputs(case.config, 2, 2, 9))
    pixels = np.random.default_rng(0).integers(0, 256, (2, 20, 20, 3), dtype=np.uint8)
    inputs["pixel_values"] = np.moveaxis(NUMBERS.apply(pixels), -1, 1)
    wanted = files.wanted(case, inputs)
    given = {**{key: inputs[key] for key in TEXT}, "pixels": pixels}
    found = files.run(worker, "similarity", given, tmp_path)
    for key in ("image_embeds", "text_embeds"):
        assert 1e-6 < files.difference(found[key], wanted[key]) < 2e-3  # nearer would not be float16
    with pytest.raises(ParityError, match=r"pixels has shape \[3, 20, 20, 3\]; expected \[2, 20, 20, 3\]"):
        files.run(worker, "similarity", {**given, "pixels": np.zeros((3, 20, 20, 3), np.uint8)}, tmp_path)
    halves = [values for tensor, values in files.constants((tmp_path / "model.tflite").read_bytes())]
    assert sum(values.nbytes for values in halves if values.dtype == np.float16) > 0.9 * sum(v.nbytes for v in halves)


def test_int8_is_per_channel_and_near(case: Case, worker: Worker, tmp_path: Path) -> None:
    files.write(case, tmp_path / "model.tflite", ExportOptions(precision="int8"), only="similarity")
    scaled = files.channels_of((tmp_path / "model.tflite").read_bytes())
    assert any(rows == scales > 1 for rows, scales in scaled)
    files.opened(worker, tmp_path / "model.tflite")
    inputs = files.served(case, reference.make_inputs(case.config, 3, 4, 9))
    wanted = files.wanted(case, inputs)
    found = files.run(worker, "similarity", inputs, tmp_path)
    for key in ("image_embeds", "text_embeds"):
        assert files.difference(found[key], wanted[key]) > 1e-5
        assert (found[key] * wanted[key]).sum(axis=1).min() > 0.99


def test_a_missing_operator_is_named(tmp_path: Path) -> None:
    """The Laplace activation has the error function outside of GELU."""
    case = make_case(reference.make_config("vit", "bert", vision_hidden_act="laplace", text_num_hidden_layers=1))
    with pytest.raises(ModelError) as caught:
        files.write(case, tmp_path / "model.tflite", only="encode_image")
    assert str(caught.value) == (
        "LiteRT has no operator for TensorFlow's Erf, which this model needs. Export to ONNX, which has one, or change "
        "the config, where an activation needs it."
    )
    assert not list(tmp_path.iterdir())


def ids(case: Case, place: int | None = None, length: int = 9) -> dict[str, Any]:
    inputs = reference.make_inputs(case.config, 1, 2, length)
    if place is not None:
        inputs["input_ids"][1, 2] = place
    return {key: inputs[key] for key in TEXT}


@pytest.mark.parametrize("place", [101, -1, 2**31 - 1])
def test_an_id_out_of_range_is_an_error(place: int, case: Case, file: Path, worker: Worker, tmp_path: Path) -> None:
    files.opened(worker, file)
    with pytest.raises(ParityError, match="LiteRT: model.tflite: encode_text failed: .*gather index out of bounds"):
        files.run(worker, "encode_text", ids(case, place), tmp_path)
    wanted = files.wanted(case, reference.make_inputs(case.config, 1, 2, 9))["text_embeds"]
    assert files.difference(files.run(worker, "encode_text", ids(case), tmp_path)["text_embeds"], wanted) < 1e-5


def test_what_the_file_does_not_take_is_an_error(case: Case, file: Path, worker: Worker, tmp_path: Path) -> None:
    files.opened(worker, file)
    pixels = reference.make_inputs(case.config, 3)["pixel_values"]
    refused = [
        ("encode_text", ids(case, length=60), "gather index out of bounds"),
        ("encode_text", ids(case, 2**40), "input_ids holds numbers that int32 cannot; expected ids"),
        ("encode_text", {"input_ids": ids(case)["input_ids"]}, "takes attention_mask, input_ids; got input_ids"),
        ("encode_image", {"pixel_values": np.concatenate([pixels, pixels], 2)}, "has shape [3, 3, 40, 20]; expected"),
        ("caption", {"pixel_values": pixels}, "has no signature 'caption', but encode_image, encode_text"),
    ]
    for signature, inputs, message in refused:
        with pytest.raises(ParityError) as caught:
            files.run(worker, signature, inputs, tmp_path)
        assert message in str(caught.value)
        assert not isinstance(caught.value, WorkerError)
    assert files.run(worker, "encode_image", {"pixel_values": pixels[:0]}, tmp_path)["image_embeds"].shape == (0, 23)


def test_time_is_taken(case: Case, file: Path, worker: Worker, tmp_path: Path) -> None:
    files.opened(worker, file)
    files.run(worker, "encode_text", ids(case), tmp_path)
    said = worker.ask(
        {"time": "encode_text", "inputs": str(tmp_path / "inputs.safetensors"), "times": 3}, files.SECONDS
    )
    assert 0 < said["milliseconds"] < 10_000


def test_a_changed_weight_is_found(case: Case, file: Path, worker: Worker, tmp_path: Path) -> None:
    """The smallest bit of which PyTorch would tell, in one weight of the image tower's last projection."""
    data, other = bytearray(file.read_bytes()), tmp_path / "other.tflite"
    changed = next(values for tensor, values in files.constants(data) if list(tensor.ShapeAsNumpy()) == [23, 24])
    changed[7] += 0.02
    other.write_bytes(data)
    inputs = files.served(case, reference.make_inputs(case.config, 3, 4, 9))
    wanted, told = files.wanted(case, inputs), []
    for path in (file, other):
        files.opened(worker, path)
        found = files.run(worker, "similarity", inputs, tmp_path)
        told.append({key: files.difference(found[key], wanted[key]) > 1e-5 for key in wanted if "embeds" in key})
    assert told == [{"image_embeds": False, "text_embeds": False}, {"image_embeds": True, "text_embeds": False}]


def hostile(data: bytes) -> Iterator[bytes]:
    yield from (b"", b"\0" * 7, random.Random(0).randbytes(5000), data[:4] + b"TFL2" + data[8:], data[:8])
    yield from (data[: len(data) * part // 7] for part in range(1, 7))
    yield data[:8] + random.Random(1).randbytes(5000)
    yield data.replace(b"input_ids", b"input_\xf4ds")
    for seed in range(rounds(100, 3000)):
        yield mutate_bytes(data, random.Random(seed))


def test_a_hostile_file_ends_its_own_process_at_most(case: Case, file: Path, tmp_path: Path) -> None:
    path, inputs = tmp_path / "model.tflite", files.served(case, reference.make_inputs(case.config))
    worker, refused = start_litert(), 0
    try:
        for data in hostile(file.read_bytes()):
            path.write_bytes(data)
            try:
                files.opened(worker, path)
                files.run(worker, "similarity", inputs, tmp_path)
            except ParityError as error:
                assert str(error).replace("\n", "").isprintable()
                assert "failed with" not in str(error)  # that is how a mistake of ours is told
                refused += 1
                if isinstance(error, WorkerError):
                    worker.close()
                    worker = start_litert()
        files.opened(worker, file)
        files.run(worker, "similarity", inputs, tmp_path)
    finally:
        worker.close()
    assert refused >= 12


def test_a_file_that_is_none(worker: Worker, tmp_path: Path) -> None:
    (tmp_path / "empty.tflite").touch()
    (tmp_path / "other.tflite").write_bytes(b"PK\3\4" * 9)
    refused = {
        "missing.tflite": "cannot be read: No such file or directory",
        "empty.tflite": "empty; export again",
        "other.tflite": "not a LiteRT file; export again",
    }
    for name, message in refused.items():
        with pytest.raises(ParityError, match=message):
            files.opened(worker, tmp_path / name)

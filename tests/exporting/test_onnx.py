"""ONNX: one pair of towers or family a day, under `make torture` all; two runtimes, three precisions, another file system.

`PAIRS_ROUND` says which: tests/towers.py.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from converter.errors import ParityError, WorkerError
from converter.exporting.normalisation import Normalisation
from converter.exporting.onnx_check import check_weights
from converter.exporting.onnx_file import read_onnx
from converter.exporting.onnx_graph import onnx_files, trace, write_onnx, write_traced
from converter.exporting.runners.onnx import start_onnx
from converter.exporting.signatures import LOGITS, ExportOptions, Precision, Written, signatures_of
from converter.parity.runners.isolation import Worker
from tests.models import reference
from tests.models.conftest import Case, make_case
from tests.models.families import WHOLES, config_of
from tests.torture import FULL
from tests.towers import ROUND, TEXT, VISION, sample_of_pairs

pytestmark = [pytest.mark.torch, pytest.mark.tf]

if keras.backend.backend() != "tensorflow":
    pytest.skip("traced by TensorFlow", allow_module_level=True)
for needed in ("onnx", "onnxruntime", "tf2onnx"):
    pytest.importorskip(needed)

ALL = [*("+".join(pair) for pair in sample_of_pairs(VISION, TEXT)), *WHOLES]
NAMES = ALL if FULL else [ALL[ROUND % len(ALL)]]
PRECISIONS: tuple[Precision, ...] = ("float32", "float16", "int8")
LEAST_COSINE = {"float16": 0.9999, "int8": 0.98}  # of random weights, 16 to 50 wide: real ones keep more
SHAPES = ({}, {"images": 1, "texts": 1, "length": 5, "seed": 1}, {"images": 5, "texts": 2, "length": 12, "seed": 2})
SCRIPT = Path(__file__).with_name("transformers_js.mjs")
SECONDS = 120.0

Arrays = dict[str, np.ndarray[Any, Any]]


@dataclass(frozen=True)
class Exported:
    """A model in three precisions, beside its checkpoint; and batches with what PyTorch answers."""

    case: Case
    folder: Path
    written: Mapping[str, Written]
    batches: list[tuple[Arrays, Arrays]]


@pytest.fixture(scope="module", params=NAMES)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    case = make_case(config_of(request.param))
    folder = tmp_path_factory.mktemp("export")
    signatures = signatures_of(case.keras)
    traced = trace(case.keras, signatures)
    written = {precision: write_traced(traced, folder, precision) for precision in PRECISIONS}
    save_file(case.tensors, folder / "model.safetensors", {"format": "pt"})
    case.config.save_pretrained(folder)
    taken = {given.name for signature in signatures for given in signature.inputs}
    batches = []
    for shape in SHAPES:
        given = case.inputs if not shape else reference.make_inputs(case.config, **shape)
        inputs = {name: np.asarray(value) for name, value in given.items() if name in taken}
        with torch.no_grad():
            found = case.torch(**reference.torch_inputs(inputs))
        wanted = {name: found[name].numpy() for name in (*LOGITS, "image_embeds", "text_embeds")}
        batches.append((inputs, wanted))
    return Exported(case, folder, written, batches)


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    with start_onnx() as started:
        yield started


def opened(worker: Worker, folder: Path, precision: Precision = "float32") -> dict[str, Any]:
    paths = {name: str(path) for name, path in onnx_files(folder, precision).items()}
    found: dict[str, Any] = worker.ask({"open": paths, "threads": 1}, SECONDS)["signatures"]
    return found


def run(worker: Worker, name: str, inputs: Arrays, folder: Path) -> Arrays:
    save_file({key: np.ascontiguousarray(value) for key, value in inputs.items()}, folder / "inputs.safetensors")
    given, made = (str(folder / f"{name}.safetensors") for name in ("inputs", "outputs"))
    worker.ask({"run": name, "inputs": given, "outputs": made}, SECONDS)
    return dict(load_file(made))


def check(found: Arrays, wanted: Arrays) -> None:
    assert found
    for name, value in found.items():
        assert value.shape == wanted[name].shape
        assert value.dtype == np.float32
        difference = np.abs(value - wanted[name]).max()
        assert difference <= (1e-4 if name in LOGITS else 1e-5), (name, difference)


def test_equal_to_pytorch(exported: Exported, worker: Worker, tmp_path: Path) -> None:
    for name in opened(worker, exported.folder):
        for inputs, wanted in exported.batches:
            check(run(worker, name, inputs, tmp_path), wanted)


def cosines(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    found: np.ndarray[Any, Any] = (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)
    return found


@pytest.mark.skipif(find_spec("openvino") is None, reason="openvino, of the extra `dev`, is not installed")
def test_equal_to_pytorch_in_openvino(exported: Exported) -> None:
    import openvino

    for path in onnx_files(exported.folder).values():
        settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
        compiled = openvino.Core().compile_model(str(path), "CPU", settings)
        for inputs, wanted in exported.batches:
            made = compiled({name: inputs[name] for given in compiled.inputs for name in given.names if name in inputs})
            check({name: made[out] for out in compiled.outputs for name in out.names if name in wanted}, wanted)


@pytest.mark.parametrize("precision", PRECISIONS[1:])
def test_narrow_weights_keep_the_direction(
    precision: Precision, exported: Exported, worker: Worker, tmp_path: Path
) -> None:
    for name in opened(worker, exported.folder, precision):
        for inputs, wanted in exported.batches:
            found = run(worker, name, inputs, tmp_path)
            for key in ("image_embeds", "text_embeds"):
                if key in found:
                    assert (np.abs(np.linalg.norm(found[key], axis=-1) - 1) < 1e-3).all()
                    assert (least := cosines(found[key], wanted[key]).min()) >= LEAST_COSINE[precision], (name, least)


def test_axes_are_named_and_free(exported: Exported, worker: Worker) -> None:
    found = opened(worker, exported.folder)
    signatures = {signature.name: signature for signature in signatures_of(exported.case.keras)}
    assert found.keys() == signatures.keys()
    for name, signature in signatures.items():
        for given, has in zip(signature.inputs, found[name]["inputs"], strict=True):
            assert (has["name"], has["dtype"], tuple(has["shape"])) == (given.name, given.dtype, given.shape)
            assert all(axis in ("", told) for axis, told in zip(given.axes, has["axes"], strict=True))
        assert [output["name"] for output in found[name]["outputs"]] == [output.name for output in signature.outputs]
        assert [tuple(output["axes"]) for output in found[name]["outputs"]] == [o.axes for o in signature.outputs]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_weights_are_the_checkpoint_s(precision: Precision, exported: Exported, tmp_path: Path) -> None:
    shutil.copytree(exported.folder / "onnx", tmp_path / "onnx")
    for path in set((tmp_path / "onnx").glob("*.onnx")).difference(onnx_files(tmp_path, precision).values()):
        path.unlink()
    found = check_weights(tmp_path / "onnx", exported.folder)
    assert found.problems == ()
    assert found.compared == len(exported.written[precision].initializers)
    held = {
        name: tensor for path in (tmp_path / "onnx").glob("*.onnx") for name, tensor in read_onnx(path).weights.items()
    }
    assert held.keys() == exported.written[precision].initializers.keys()
    assert {tensor.extent.path for tensor in held.values() if tensor.extent} == set(
        tmp_path.glob("*/*.safetensors")
    ) - {tmp_path / "onnx" / f"weights{end}.safetensors" for end in {"", "_fp16", "_int8"} - {_end(precision)}}
    name, tensor = sorted(held.items())[len(held) // 2]
    assert tensor.extent is not None
    with tensor.extent.path.open("r+b") as file:
        file.seek(tensor.extent.offset)
        first = file.read(1)
        file.seek(tensor.extent.offset)
        file.write(bytes([first[0] ^ 1]))
    (problem,) = check_weights(tmp_path / "onnx", exported.folder).problems
    assert problem.startswith(f"{name} differs in 1 of ")


def _end(precision: Precision) -> str:
    return {"float32": "", "float16": "_fp16", "int8": "_int8"}[precision]


def test_on_another_file_system(exported: Exported, worker: Worker, tmp_path: Path) -> None:
    """Nothing leads out of the folder, and no link is needed."""
    other = Path("/dev/shm")
    if not other.is_dir() or other.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no other file system here: /dev/shm")
    home = other / f"onnx-{os.getpid()}"
    try:
        shutil.copytree(exported.folder / "onnx", home / "onnx")
        inputs, wanted = exported.batches[0]
        for name in opened(worker, home):
            check(run(worker, name, inputs, tmp_path), wanted)
    finally:
        shutil.rmtree(home)


def test_wrong_inputs_are_refused(exported: Exported, worker: Worker, tmp_path: Path) -> None:
    inputs, _ = exported.batches[0]
    opened(worker, exported.folder)
    # CANINE takes any number.
    vocabulary = getattr(exported.case.config.text_config, "vocab_size", None)
    for wrong in () if vocabulary is None else (vocabulary, -1):
        ids = inputs["input_ids"].copy()
        ids[0, 0] = wrong
        with pytest.raises(ParityError, match=r"text_model.onnx cannot be run: .* out of data bounds"):
            run(worker, "encode_text", {**inputs, "input_ids": ids}, tmp_path)
    with pytest.raises(ParityError, match="inputs input_ids.* missing"):
        run(worker, "encode_text", {}, tmp_path)
    with pytest.raises(ParityError, match="encode_image was not opened"):
        worker.ask({"open": {}}, SECONDS)
        run(worker, "encode_image", inputs, tmp_path)


def test_bytes_are_normalised_inside(exported: Exported, worker: Worker, tmp_path: Path) -> None:
    """The numbers of the image processor are constants of the graph."""
    numbers = Normalisation(1 / 255, (0.4,), (0.3,))
    signatures = signatures_of(exported.case.keras, ExportOptions(pixels="uint8"), numbers)
    encode = next(signature for signature in signatures if signature.name == "encode_image")
    write_onnx(exported.case.keras, [encode], tmp_path)
    first, *rest = encode.inputs
    plain = exported.batches[0][0]
    pixels = plain["pixel_values"]
    whole = pixels.shape if pixels.ndim == 3 else pixels.transpose(0, 2, 3, 1).shape
    noise = np.random.default_rng(1).integers(0, 256, whole, dtype=np.uint8)
    given = {first.name: noise, **{one.name: plain[one.name] for one in rest}}
    worker.ask({"open": {"encode_image": str(onnx_files(tmp_path)["encode_image"])}}, SECONDS)
    found = run(worker, "encode_image", given, tmp_path)
    check(found, {name: np.asarray(value) for name, value in encode.function(*given.values()).items()})


HOSTILE = {
    "cut off": lambda data: data[: len(data) // 2],
    "no ONNX": lambda data: b"\x80\x04" + data,
    "weights of another folder": lambda data: data.replace(b"weights.safetensors", b"../weights.safetens"),
    "weights of the system": lambda data: data.replace(b"weights.safetensors", b"/etc/ssh/sshd_confi"),
    "an operator of none": lambda data: data.replace(b"MatMul", b"MatMol"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_file_ends_no_more_than_its_process(what: str, exported: Exported, tmp_path: Path) -> None:
    shutil.copytree(exported.folder / "onnx", tmp_path / "onnx")
    path = tmp_path / "onnx" / "text_model.onnx"
    made = HOSTILE[what](path.read_bytes())
    assert made != path.read_bytes()
    path.write_bytes(made)
    with start_onnx() as started:
        with pytest.raises((ParityError, WorkerError)) as caught:
            started.ask({"open": {"encode_text": str(path)}}, SECONDS)
        assert "text_model.onnx" in str(caught.value) or "crashed with" in str(caught.value)
        assert len(str(caught.value)) < 5000
    (tmp_path / "onnx" / "text_model.onnx").unlink()


def test_a_terabyte_is_refused(worker: Worker, tmp_path: Path) -> None:
    with (tmp_path / "m.onnx").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(ParityError, match="has more than 33,554,432 bytes without its weights"):
        worker.ask({"open": {"encode_text": str(tmp_path / "m.onnx")}}, SECONDS)


def test_fixed_shapes_are_quantised_as_free_ones_are(exported: Exported, tmp_path: Path) -> None:
    """Where shapes are fixed, tf2onnx makes one node of a product and a sum."""
    signatures = signatures_of(exported.case.keras, ExportOptions("int8", batch=3, length=7))
    write_onnx(exported.case.keras, signatures, tmp_path, "int8")
    free, fixed = (load_file(folder / "onnx" / "weights_int8.safetensors") for folder in (exported.folder, tmp_path))
    assert {name: value.dtype for name, value in fixed.items()} == {name: value.dtype for name, value in free.items()}


# --- transformers.js ----------------------------------------------------------------------------------------------


@pytest.mark.skipif(not FULL, reason="runs under `make torture`: npm installs transformers.js")
@pytest.mark.parametrize("precision", PRECISIONS)
def test_transformers_js_reads_the_folder(
    precision: Precision, packages: Path, worker: Worker, exported: Exported, tmp_path: Path
) -> None:
    inputs, _ = exported.batches[0]
    opened(worker, exported.folder, precision)
    wanted = run(worker, "similarity", inputs, tmp_path)
    given = {
        name: {"dtype": value.dtype.name, "dims": value.shape, "data": value.reshape(-1).tolist()}
        for name, value in inputs.items()
    }
    request = {
        "home": str(exported.folder.parent), "name": exported.folder.name, "class": "AutoModel", "inputs": given,
        "dtype": {"float32": "fp32", "float16": "fp16", "int8": "int8"}[precision],
    }  # fmt: skip
    (tmp_path / "request.json").write_text(json.dumps(request))
    script = Path(shutil.copy(SCRIPT, packages))
    command = ["node", script.name, str(tmp_path / "request.json")]
    made = subprocess.run(command, cwd=packages, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert made.returncode == 0, made.stderr
    found = json.loads(made.stdout)
    assert found.keys() == wanted.keys()
    for name, output in found.items():
        values = np.array(output["data"], np.float32).reshape(output["dims"])
        # Another build of ONNX Runtime, whose float16 and int8 round in other places.
        assert np.abs(values - wanted[name]).max() <= (1e-4 if precision == "float32" else 5e-2), name

"""Further inputs of the kinds that people bring, made here: each is converted, or named for what it is with the way out."""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save, save_file

from converter import ConverterError, pt2tf
from converter.errors import quoted
from tests.tiny import config_of, safetensors_bytes, tensors_of

Array = np.ndarray[Any, Any]
CONFIG = config_of("clip_vision_model", "bert")
WEIGHTS = tensors_of(CONFIG)
ARCHIVE = ", not weights; unpack it, and name the folder with config.json and the weights in it"
TO_RUN = (
    ", exported to be run, with other tensors than the checkpoint; convert the checkpoint that it was exported from"
)
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 465980\n"
LFS = "a Git LFS pointer, not the {}; run `git lfs pull` in its repository"
PAGE = "a web page, not the file; download the file itself (its address has /resolve/ where the page's has /blob/)"
NPZ = (
    "NumPy arrays (.npz), which do not say what they are; in Python pass them by their PyTorch names: "
    "pt2tf(dict(numpy.load(FILE)), OUT, config=...)"
)
UNFINISHED = "an unfinished download; download the file again"
ZEROS = "begins with zeros, as an unfinished download does; download or copy it again"
QUANTISED = (
    "the weights are quantised (quantization_config in config.json) and have other names and shapes; transformers 4.57.6 "
    "cannot dequantise {!r}; convert the checkpoint from before it"
)
MEGATRON = (
    "a Megatron checkpoint, whose weights are split and have names of their own; convert it to transformers' format with the "
    "tools of the code that trained it"
)


@pytest.fixture(
    params=["plain", "mit Leer zeichen", "emoji 😀 é", "-dash", "two\nlines", "q'uote$x", "l" * 255], ids=ascii
)
def named(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A folder with a config, by a name that people give."""
    folder = tmp_path / request.param
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    held = tmp_path / "src"
    held.mkdir()
    (held / "config.json").write_text(json.dumps(CONFIG))
    return held


def put(folder: Path, tensors: Mapping[str, Array], name: str = "model.safetensors") -> None:
    save_file(dict(tensors), folder / name, metadata={"format": "pt"})


def prefixed(prefix: str) -> Callable[[str], str]:
    return lambda name: prefix + name


RENAMED: dict[str, Callable[[str], str]] = {
    "model. _orig_mod. module.": prefixed("model._orig_mod.module."),
    "module.": prefixed("module.module."),
    "_forward_module. module. _orig_mod.": prefixed("_forward_module.module._orig_mod."),
    "net.model.clip_model.": prefixed("net.model.clip_model."),
    "deepspeed_engine. module.": prefixed("deepspeed_engine.module."),
    "ema_model.": prefixed("ema_model."),
    "_module.": lambda name: name.replace("_model.", "_model._module.", 1),
    "module. _fsdp_wrapped_module.": lambda name: name.replace("_model.", "_model.module._fsdp_wrapped_module.", 1),
}


@pytest.mark.parametrize("spelling", RENAMED)
def test_wrappers(spelling: str, folder: Path, tmp_path: Path) -> None:
    put(folder, {RENAMED[spelling](name): array for name, array in WEIGHTS.items()})
    done = pt2tf(folder, tmp_path / "out")
    assert done.tensors == len(WEIGHTS)
    assert f"v4, {spelling}" in done.dialects


def test_names_of_folders(named: Path, tmp_path: Path) -> None:
    """Also of what is written, and of the file that a message names."""
    put(named, WEIGHTS)
    assert pt2tf(named, tmp_path / "out").tensors == len(WEIGHTS)
    (named / "model.safetensors").rename(named / "my w.safetensors")
    assert f"convert pt2tf {quoted(named / 'my w.safetensors')} OUT" in refusal(named, tmp_path)


def test_names_of_out(named: Path, tmp_path: Path, folder: Path) -> None:
    put(folder, WEIGHTS)
    out = named / named.name
    if len(named.name) == 255:  # what it is staged as would be longer
        with pytest.raises(ConverterError, match="cannot be made: File name too long; choose another folder"):
            pt2tf(folder, out)
        return
    assert pt2tf(folder, out).tensors == len(WEIGHTS)
    assert [path.name for path in named.iterdir() if path.name != "config.json"] == [named.name]


def refusal(source: Path, tmp_path: Path) -> str:
    with pytest.raises(ConverterError) as caught:
        pt2tf(source, tmp_path / "refused")
    assert not (tmp_path / "refused").exists()
    message = str(caught.value)
    assert message.removeprefix(str(source)).isprintable()
    return message


def zipped(*names: str) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        for name in names:
            archive.writestr(zipfile.ZipInfo(name.replace("|", "\\")), b"x")
    return held.getvalue()


def tarred(mode: str) -> bytes:
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode=mode) as archive:  # type: ignore[call-overload]
        archive.addfile(tarfile.TarInfo("model.safetensors"))
    return held.getvalue()


def arrays() -> bytes:
    held = io.BytesIO()
    np.savez(held, **WEIGHTS)  # type: ignore[arg-type]
    return held.getvalue()


UNZIP = (
    "a zip archive that torch.save did not write (no data.pkl), which holds {}; unpack it, and name the folder with "
)
UNZIP += "config.json and the weights"
# By the name of the one file beside config.json: its bytes, and what it is called.
FILES: list[tuple[str, bytes, str]] = [
    ("model.tar", tarred("w"), f"an archive{ARCHIVE}"),
    ("model.tar.gz", tarred("w:gz"), f"an archive{ARCHIVE}"),
    ("model.zip", zipped("m/config.json"), f"an archive{ARCHIVE}"),
    ("pytorch_model.bin", zipped("m|config.json", "m|model.safetensors"), UNZIP.format(r"m\config.json, m\model.safetensors")),
    ("model.safetensors", gzip.compress(save(WEIGHTS)), f"a gzip archive{ARCHIVE}"),
    ("pytorch_model.bin", b"7z\xbc\xaf\x27\x1c" + bytes(60), f"a 7z archive{ARCHIVE}"),
    ("model.safetensors", b"\x28\xb5\x2f\xfd" + bytes(60), f"a Zstandard archive{ARCHIVE}"),
    ("model.safetensors", POINTER, LFS.format("weights")),
    ("pytorch_model.bin", POINTER, LFS.format("weights")),
    ("model.safetensors", b"<!DOCTYPE html>\n<html></html>", PAGE),
    ("pytorch_model.bin", b'<?xml version="1.0"?><Error/>', PAGE),
    ("model.safetensors", b'{"error": "Invalid username"}', "text ('{\"error\": \"Invalid username\"}' ...), not weights; "
     "download or copy the file itself"),
    ("model.npz", arrays(), NPZ),
    ("pytorch_model.bin", arrays(), NPZ),
    ("model.npy", b"\x93NUMPY\x01\0", "a single NumPy array; name the checkpoint that it was taken from"),
    ("model.onnx", b"\x08\x07\x12\x07pytorch", f"an ONNX model{TO_RUN}"),
    ("model.gguf", b"GGUF\x03\0\0\0", f"a GGUF model{TO_RUN}"),
    ("ggml-model.bin", b"lmgg" + bytes(60), f"a GGML model{TO_RUN}"),
    ("model.tflite", b"\x1c\0\0\0TFL3" + bytes(60), f"a LiteRT (TensorFlow Lite) model{TO_RUN}"),
    ("model.engine", b"ftrt", f"a TensorRT engine{TO_RUN}"),
    ("openvino_model.bin", bytes(100), f"an OpenVINO model{TO_RUN}"),
    ("model.pkl", b"\x80\x04}", "a pickle, which is never executed; save the state_dict with torch.save where it was made"),
    ("model.safetensors.part", b"x", UNFINISHED),
    ("model.safetensors.crdownload", b"x", UNFINISHED),
    ("4d7a.incomplete", b"x", UNFINISHED),
    ("model.safetensors", b"", "an empty file; download or save it again"),
    ("pytorch_model.bin", b"", "an empty file; download or save it again"),
    ("model.safetensors", bytes(4096), ZEROS),
    ("pytorch_model.bin", bytes(4096), ZEROS),
    ("model.safetensors", safetensors_bytes({"a": {"dtype": "F8_E5M2", "shape": [4], "data_offsets": [0, 4]}}, bytes(4)),
     "tensor a is F8_E5M2, which no transformers 4 model computes in; convert such tensors with .to(torch.float32), multiply "
     "them by their scales if any, and save again"),
    ("model.safetensors", safetensors_bytes({"a": {"dtype": "C64", "shape": [1], "data_offsets": [0, 8]}}, bytes(8)),
     "tensor a is C64, which no transformers 4 model computes in; convert such tensors with .to(torch.float32), multiply them "
     "by their scales if any, and save again"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "data", "what"), FILES, ids=[f"{name}-{what[:20]}" for name, _, what in FILES])
def test_files(name: str, data: bytes, what: str, folder: Path, tmp_path: Path) -> None:
    (folder / name).write_bytes(data)
    assert refusal(folder, tmp_path) == f"{folder / name}: {what}"


METHODS = ("gptq", "awq", "hqq", "compressed-tensors", "torchao", "fp8", "quanto", "aqlm")


@pytest.mark.parametrize("method", METHODS)
def test_quantisers(method: str, folder: Path, tmp_path: Path) -> None:
    held = {**WEIGHTS}
    weight = held.pop("text_model.pooler.dense.weight")
    put(folder, {**held, "text_model.pooler.dense.qweight": weight.astype(np.int32)})
    (folder / "config.json").write_text(json.dumps({**CONFIG, "quantization_config": {"quant_method": method}}))
    assert refusal(folder, tmp_path) == f"{folder / 'model.safetensors'}: {QUANTISED.format(method)}"
    (folder / "config.json").write_text(
        json.dumps(
            {**CONFIG, "text_config": {**CONFIG["text_config"], "quantization_config": {"quant_method": method}}}
        )
    )
    nested = QUANTISED.format(method).replace("(quant", "(text_config.quant")
    assert refusal(folder, tmp_path) == f"{folder / 'model.safetensors'}: {nested}"


def make(folder: Path, *paths: str) -> None:
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(b"x")


RANKS = "the parts of an FSDP run, one of each process; save the whole model there, as accelerate does with "
RANKS += "fsdp_state_dict_type: FULL_STATE_DICT"
FOLDERS: dict[str, tuple[tuple[str, ...], str]] = {
    "Megatron": (("latest_checkpointed_iteration.txt", "iter_01/mp_rank_00/model_optim_rng.pt"), f": {MEGATRON}"),
    "a rank of Megatron": (("mp_rank_00/model_optim_rng.pt",), f"/mp_rank_00: {MEGATRON}"),
    "ranks of FSDP": (("pytorch_model_fsdp_rank0.bin", "pytorch_model_fsdp_rank1.bin"), f": {RANKS}"),
    "states of Accelerate": (
        ("random_states_0.pkl", "scheduler.bin", "optimizer.bin", "sampler.bin"),
        ": holds no weights (config.json, optimizer.bin, random_states_0.pkl, sampler.bin, scheduler.bin); expected "
        "model.safetensors or model.safetensors.index.json or pytorch_model.bin or pytorch_model.bin.index.json or "
        "open_clip_model.safetensors or open_clip_pytorch_model.bin",
    ),
    "Core ML": (("model.mlpackage/Data/x",), f"/model.mlpackage: a Core ML model{TO_RUN}"),
    "a folder called as weights": (
        ("model.safetensors/x",),
        "/model.safetensors: a folder, expected a file of weights; download or save the model again",
    ),
    "a shard of a variant alone": (
        ("model.fp16-00001-of-00002.safetensors",),
        ": holds shards (model.fp16-00001-of-00002.safetensors) without their index; put "
        "model.safetensors.index.fp16.json beside them, which was saved with them",
    ),
}


@pytest.mark.parametrize("kind", FOLDERS)
def test_folders(kind: str, folder: Path, tmp_path: Path) -> None:
    paths, said = FOLDERS[kind]
    make(folder, *paths)
    assert refusal(folder, tmp_path) == f"{folder}{said}"


def test_a_pipe_called_as_weights(folder: Path, tmp_path: Path) -> None:
    os.mkfifo(folder / "model.safetensors")
    assert refusal(folder, tmp_path) == (
        f"{folder / 'model.safetensors'}: neither a file nor a folder, expected a file of weights; download or save the "
        "model again"
    )


@pytest.mark.parametrize("where", ["out/final", f"models--org--name/snapshots/{'a' * 40}", "checkpoint-9"])
def test_weights_deeper_in_a_folder(where: str, folder: Path, tmp_path: Path) -> None:
    inner = tmp_path / "above" / where
    inner.parent.mkdir(parents=True)
    put(folder, WEIGHTS)
    folder.rename(inner)
    message = refusal(tmp_path / "above", tmp_path)
    assert message == (
        f"{tmp_path / 'above'}: holds no weights, but its subfolders do; name one of them: {quoted(inner)}"
    )
    assert pt2tf(inner, tmp_path / "out").tensors == len(WEIGHTS)


def test_shards(folder: Path, tmp_path: Path) -> None:
    """Of a variant; one alone, a link that leads nowhere, and one that is not there."""
    first, second = (f"model.fp16-0000{number}-of-00002.safetensors" for number in (1, 2))
    items = list(WEIGHTS.items())
    put(folder, dict(items[:40]), first)
    put(folder, dict(items[40:]), second)
    index = folder / "model.safetensors.index.fp16.json"
    files = {name: first for name, _ in items[:40]} | {name: second for name, _ in items[40:]}
    index.write_text(json.dumps({"weight_map": files}))
    assert f"convert pt2tf {index} OUT" in refusal(folder, tmp_path)
    assert pt2tf(index, tmp_path / "out").tensors == len(WEIGHTS)
    assert refusal(folder / first, tmp_path) == (
        f"{folder / first}: one of several shards; name their index, {index}, which reads all"
    )
    (folder / first).unlink()
    assert f"it names {first}, which is not there; download or save" in refusal(index, tmp_path)
    (folder / first).symlink_to("../../blobs/4d7a")
    assert f"{folder / first}: a link to ../../blobs/4d7a, which does not exist; copy the folder with" in refusal(
        index, tmp_path
    )


def test_a_pointer_in_place_of_the_tokenizer(folder: Path, tmp_path: Path) -> None:
    put(folder, WEIGHTS)
    for data, what in ((POINTER, LFS.format("file")), (b"<!doctype html>", PAGE)):
        (folder / "tokenizer.json").write_bytes(data)
        assert refusal(folder, tmp_path) == f"{folder / 'tokenizer.json'}: {what}"


def test_data_without_its_index(folder: Path, tmp_path: Path) -> None:
    (folder / "model.data-00000-of-00001").write_bytes(b"x")
    assert refusal(folder, tmp_path) == (
        f"{folder / 'model.data-00000-of-00001'}: data of a TensorFlow checkpoint without its index; put model.index beside it"
    )


def test_parts_below_prefixes_of_their_own(folder: Path, tmp_path: Path) -> None:
    held = {("a." if name.startswith("text") else "") + name: array for name, array in WEIGHTS.items()}
    put(folder, held)
    call = refusal(folder, tmp_path).partition("they stand below a.; take that off: ")[2]
    assert call == "pt2tf({name.removeprefix('a.'): tensor for name, tensor in state_dict.items()}, OUT, config=...)"
    place = {"pt2tf": pt2tf, "state_dict": held, "OUT": tmp_path / "out", "CONFIG": CONFIG}
    assert eval(call.replace("config=...", "config=CONFIG"), place).tensors == len(WEIGHTS)


CONFIGS: dict[str, tuple[Callable[[bytes], bytes], str | None]] = {
    "a byte order mark": (lambda text: b"\xef\xbb\xbf" + text, None),
    "UTF-16": (lambda text: text.decode().encode("utf-16"), None),
    "a trailing comma": (lambda text: text[:-1] + b",}", "not JSON: Expecting property name enclosed in double quotes"),
    "NaN": (
        lambda text: text.replace(b"2.6592", b"NaN"),
        "logit_scale_init_value is nan, expected a value like 2.6592",
    ),
    "architectures alone": (lambda _: b'{"architectures": ["X"]}', "found no model_type; add that of the original"),
    "a web page": (lambda _: b"<!DOCTYPE html>", PAGE),
    "a pointer": (lambda _: POINTER, LFS.format("file")),
    "half of it": (lambda text: text[:200], "; restore it from the original"),
}


@pytest.mark.parametrize("kind", CONFIGS)
def test_configs(kind: str, folder: Path, tmp_path: Path) -> None:
    change, said = CONFIGS[kind]
    put(folder, WEIGHTS)
    path = folder / "config.json"
    path.write_bytes(change(path.read_bytes()))
    if said is None:
        assert pt2tf(folder, tmp_path / "out").tensors == len(WEIGHTS)
    else:
        message = refusal(folder, tmp_path)
        assert message.startswith(f"{path}: ")
        assert said in message


def test_arrays_are_converted_as_the_message_says(folder: Path, tmp_path: Path) -> None:
    (folder / "model.npz").write_bytes(arrays())
    assert "pt2tf(dict(numpy.load(FILE)), OUT, config=...)" in refusal(folder, tmp_path)
    held = dict(np.load(folder / "model.npz"))
    assert pt2tf(held, tmp_path / "out", config=folder / "config.json").tensors == len(WEIGHTS)

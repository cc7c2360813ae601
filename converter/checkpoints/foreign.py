"""Says what a file is that holds no checkpoint: an archive, a model for running, arrays, an unfinished download."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

_UNPACK = "{}, not weights; unpack it, and name the folder with config.json and the weights in it"
_TO_RUN = (
    "{}, exported to be run, with other tensors than the checkpoint; convert the checkpoint that it was exported from"
)
NPZ = (
    "NumPy arrays (.npz), which do not say what they are; in Python pass them by their PyTorch names: "
    "pt2tf(dict(numpy.load(FILE)), OUT, config=...)"
)
_NPY = "a single NumPy array; name the checkpoint that it was taken from"
_PICKLE = "a pickle, which is never executed; save the state_dict with torch.save where it was made"
_UNFINISHED = "an unfinished download; download the file again"
_ZEROS = "begins with zeros, as an unfinished download does; download or copy it again"

_ARCHIVES = (
    (b"\x1f\x8b", "a gzip archive"), (b"BZh", "a bzip2 archive"), (b"\xfd7zXZ\0", "an xz archive"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard archive"), (b"7z\xbc\xaf\x27\x1c", "a 7z archive"), (b"Rar!\x1a\x07", "a RAR archive"),
)  # fmt: skip
_BY_HEAD: tuple[tuple[bytes, str], ...] = (
    *((magic, _UNPACK.format(what)) for magic, what in _ARCHIVES),
    (b"GGUF", _TO_RUN.format("a GGUF model")),
    *((magic, _TO_RUN.format("a GGML model")) for magic in (b"lmgg", b"tjgg", b"fmgg")),
    (b"\x93NUMPY", _NPY),
)
_BY_ENDING: tuple[tuple[tuple[str, ...], str], ...] = (
    ((".part", ".partial", ".crdownload", ".incomplete", ".download", ".aria2"), _UNFINISHED),
    ((".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst", ".zip", ".7z", ".rar", ".gz"), _UNPACK.format("an archive")),
    ((".npz",), NPZ),
    ((".npy",), _NPY),
    ((".onnx",), _TO_RUN.format("an ONNX model")),
    ((".gguf", ".ggml"), _TO_RUN.format("a GGUF model")),
    ((".tflite",), _TO_RUN.format("a LiteRT (TensorFlow Lite) model")),
    ((".mlmodel", ".mlpackage"), _TO_RUN.format("a Core ML model")),
    ((".engine", ".plan", ".trt"), _TO_RUN.format("a TensorRT engine")),
    ((".pkl", ".pickle", ".joblib"), _PICKLE),
)  # fmt: skip


def kind_of(name: str, head: bytes) -> str | None:
    """The kind of a file, by its first bytes or its name; None for one that may hold weights."""
    if head[4:8] == b"TFL3":
        return _TO_RUN.format("a LiteRT (TensorFlow Lite) model")
    found = next((what for magic, what in _BY_HEAD if head.startswith(magic)), None) or by_name(name)
    return found or (_ZEROS if head and not head.strip(b"\0") else None)


def by_name(name: str) -> str | None:
    """The kind of a file, by its name; None for one that may hold weights."""
    if name.startswith("openvino_model."):
        return _TO_RUN.format("an OpenVINO model")
    return next((what for endings, what in _BY_ENDING if name.lower().endswith(endings)), None)


def among(listing: Iterable[Path], is_state: Callable[[str], bool]) -> tuple[Path, str] | None:
    """The first of a folder's files that is of such a kind by its name, and what it is."""
    found = ((path, by_name(path.name)) for path in listing if not is_state(path.name))
    return next(((path, what) for path, what in found if what is not None), None)

"""ONNX files as bytes: what is read of a sound one, what is refused, and weights that are not the checkpoint's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converter.errors import CorruptCheckpoint
from converter.exporting import onnx_file
from converter.exporting.onnx_check import check_weights
from converter.exporting.onnx_file import MAX_BODIES, MAX_ONNX_BYTES, OnnxValue, read_onnx
from converter.exporting.onnx_weights import half, in_int8
from tests.exporting.onnx_bytes import WEIGHTS, Fields, external, message, model, node, of_weights, tensor, value
from tests.tiny import config_of, in_tensorflow, tensors_of, write_checkpoint

BIG = 2**40


def weight(location: str = WEIGHTS, offset: object = 0, length: object = 24, name: str = "w", dtype: int = 1) -> Fields:
    return tensor(name, dtype, (2, 3), external(location, offset, length))


def test_what_is_read(tmp_path: Path) -> None:
    inside = tensor("inside", 7, (2,), [(9, bytes(16))])
    loop = node("Loop", [(6, [(1, node("Add")), (5, inside)])])
    data = model([weight(offset=8), inside], (1, loop), (1, node("Gelu", domain="com.microsoft")))
    (tmp_path / WEIGHTS).write_bytes(bytes(32))
    (tmp_path / "m.onnx").write_bytes(data)
    found = read_onnx(tmp_path / "m.onnx")
    assert found.inputs == (OnnxValue("a", "float32", ("images", 3)),)
    assert found.outputs == (OnnxValue("b", "float32", ("images", 2)),)
    assert found.operators == {"MatMul": 1, "Add": 1, "Loop": 1, "com.microsoft.Gelu": 1}
    assert found.opsets == {"": 18}
    assert found.constants == ("inside",)
    held = found.weights["w"]
    assert (held.dtype, held.shape) == ("float32", (2, 3))
    assert held.extent is not None
    assert (held.extent.path, held.extent.offset, held.extent.nbytes) == (tmp_path / WEIGHTS, 8, 24)


def nested(depth: int) -> Fields:
    made = node("Add")
    for _ in range(depth):
        made = node("If", [(11, [(1, made)])])
    return made


WRONG: dict[str, tuple[bytes, str]] = {
    "cut off": (model([weight()])[:-3], "ends 3 bytes too early"),
    "no graph": (message([(1, 9)]), "has no graph"),
    "a number for a graph": (message([(7, 9)]), "has a number where bytes belong"),
    "a name of another folder": (model([weight("../w")]), "has w in ../w, which is no file beside it"),
    "an absolute name": (model([weight("/etc/passwd")]), "has w in /etc/passwd, which is no file beside it"),
    "no name": (model([tensor("w", 1, (2, 3), [(14, 1)])]), "has w in no file, which is no file beside it"),
    "a negative offset": (model([weight(offset=-1)]), "has w at -1, 24 bytes long"),
    "an offset in other digits": (model([weight(offset="٣")]), "has w at ٣, 24 bytes long"),
    "an offset of a megabyte": (model([weight(offset="9" * 1000)]), "has w at 999"),
    "fewer bytes than the shape": (model([weight(length=20)]), "has w of 20 bytes; its shape asks for 24"),
    "past the end": (model([weight(offset=16)]), f"has w past the end of {WEIGHTS}"),
    "a size of 2^63": (model([tensor("w", 1, (2**63, 2**63), external(WEIGHTS, 0, ""))]), "has w past the end"),
    "a data type of none": (model([weight(dtype=99)]), "has w of data type 99"),
    "a name twice": (model([weight(), weight()]), "has w twice, or too many initializers"),
    "too many axes": (model([tensor("w", 1, [1] * 17, external(WEIGHTS, 0, 4))]), "has a tensor with too many axes"),
    "axes of an input": (model([], (11, value("c", 1, [1] * 17))), "has c with too many axes"),
    "a long name": (model([weight(name="w" * 1001)]), "has a name of 1,001 characters"),
    "bodies in bodies": (model([], (1, nested(MAX_BODIES + 1))), "has bodies in bodies, more than 8 deep"),
    "a sparse constant": (model([], (15, [])), "has a sparse constant"),
    "a sparse constant in a body": (model([], (1, node("If", [(6, [(15, [])])]))), "has a sparse constant"),
    "a constant elsewhere": (model([], (1, node("Constant", [(5, weight("../w"))]))), "has a constant in another file"),
    "a constant elsewhere in a body": (
        model([], (1, node("If", [(6, [(5, weight("../w"))])]))),
        "has a constant in another file",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_refused(case: str, tmp_path: Path) -> None:
    data, what = WRONG[case]
    (tmp_path / WEIGHTS).write_bytes(bytes(32))
    (tmp_path / "m.onnx").write_bytes(data)
    with pytest.raises(CorruptCheckpoint) as caught:
        read_onnx(tmp_path / "m.onnx")
    assert str(caught.value).startswith(f"{tmp_path / 'm.onnx'}: not a valid ONNX file: {what}")
    assert str(caught.value).endswith("; export or download it again")


def test_a_link_out_of_the_folder(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (tmp_path / "w").write_bytes(bytes(32))
    (home / WEIGHTS).symlink_to("../w")
    (home / "m.onnx").write_bytes(model([weight()]))
    with pytest.raises(CorruptCheckpoint, match="a link out of its folder"):
        read_onnx(home / "m.onnx")


def test_weights_that_are_not_there(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(model([weight()]))
    with pytest.raises(CorruptCheckpoint, match=r"weights.safetensors: not found; m.onnx has its weights there"):
        read_onnx(tmp_path / "m.onnx")


def test_a_file_of_a_terabyte(tmp_path: Path) -> None:
    with (tmp_path / "m.onnx").open("wb") as file:
        file.truncate(BIG)
    with pytest.raises(CorruptCheckpoint, match=f"has more than {MAX_ONNX_BYTES:,} bytes without its weights"):
        read_onnx(tmp_path / "m.onnx")


def test_too_many_initializers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_file, "MAX_INITIALIZERS", 3)
    (tmp_path / WEIGHTS).write_bytes(bytes(32))
    (tmp_path / "m.onnx").write_bytes(model([weight(name=f"w{number}") for number in range(4)]))
    with pytest.raises(CorruptCheckpoint, match="has w3 twice, or too many initializers"):
        read_onnx(tmp_path / "m.onnx")


# --- weights ------------------------------------------------------------------------------------------------------

Arrays = dict[str, np.ndarray[Any, Any]]


def in_precision(tensors: Arrays, precision: str) -> Arrays:
    if precision == "float32":
        return tensors
    if precision == "float16":
        return {name: half(name, array) for name, array in tensors.items()}
    made: Arrays = {}
    for name, array in tensors.items():
        if array.ndim != 2:
            made[name] = array
            continue
        axis = 0 if "embeddings" in name else 1
        whole, scales = in_int8(array, axis)
        made |= {f"{name}_int8": whole, f"{name}_scale": scales if axis == 1 else scales[:, None]}
    return made


def exported(folder: Path, change: Callable[[Arrays], None] = lambda arrays: None, precision: str = "float32") -> Path:
    config = config_of("vit", "bert")
    tensors = tensors_of(config)
    write_checkpoint(folder / "checkpoint", config, tensors)
    arrays = in_precision(in_tensorflow(config, tensors), precision)
    change(arrays)
    (folder / "onnx").mkdir()
    of_weights(folder / "onnx", arrays)
    return folder


KERNEL = "text_model/bert/encoder/layer_._0/attention/self/query/kernel"


@pytest.mark.parametrize("precision", ["float32", "float16", "int8"])
def test_weights_of_the_checkpoint(precision: str, tmp_path: Path) -> None:
    exported(tmp_path, precision=precision)
    found = check_weights(tmp_path / "onnx", tmp_path / "checkpoint")
    assert found.problems == ()
    assert found.unused == ()
    assert found.compared > 90


@pytest.mark.parametrize("precision", ["float32", "float16", "int8"])
def test_a_flipped_bit_is_named_by_its_tensor(precision: str, tmp_path: Path) -> None:
    name = KERNEL + ("_int8" if precision == "int8" else "")

    def flip(arrays: Arrays) -> None:
        flat = arrays[name] = arrays[name].copy()
        flat.view(np.uint8)[2, flat.itemsize - 1] ^= 1

    exported(tmp_path, flip, precision)
    (problem,) = check_weights(tmp_path / "onnx", tmp_path / "checkpoint").problems
    assert problem.startswith(f"{name}:0 differs in 1 of ")
    assert "first at (2, 0)" in problem


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda held: held.update({"other": held.pop(KERNEL)}), "other:0 is no tensor of the checkpoint"),
        (lambda held: held.update({KERNEL: held[KERNEL][1:]}), f"{KERNEL}:0 is float32 (31, 32); the checkpoint makes"),
        (lambda held: held.update({KERNEL: held[KERNEL].T.copy()}), f"{KERNEL}:0 differs in "),
    ],
    ids=["another name", "another shape", "transposed"],
)
def test_other_weights(change: Callable[[Arrays], None], problem: str, tmp_path: Path) -> None:
    exported(tmp_path, change)
    (found,) = check_weights(tmp_path / "onnx", tmp_path / "checkpoint").problems
    assert found.startswith(problem)


def test_a_weight_of_no_graph_is_told(tmp_path: Path) -> None:
    exported(tmp_path, lambda held: held.__delitem__("text_projection/kernel"))
    found = check_weights(tmp_path / "onnx", tmp_path / "checkpoint")
    assert (found.problems, found.unused) == ((), ("text_projection.weight",))


@pytest.mark.parametrize("content", [None, model([])], ids=["no file", "no weights"])
def test_nothing_compared_is_a_problem(content: bytes | None, tmp_path: Path) -> None:
    exported(tmp_path)
    (tmp_path / "onnx" / "model.onnx").unlink()
    if content is not None:
        (tmp_path / "onnx" / "model.onnx").write_bytes(content)
    (problem,) = check_weights(tmp_path / "onnx", tmp_path / "checkpoint").problems
    assert problem.endswith(".onnx files with no weight beside them; nothing was compared")


def test_int8_is_within_half_a_step() -> None:
    noise: Sequence[Any] = np.random.default_rng(3).standard_normal((9, 5)).astype(np.float32)
    values = np.asarray(noise)
    values[:, 2] = 0
    for axis in (0, 1):
        whole, scales = in_int8(values, axis)
        spread = scales[None, :] if axis == 1 else scales[:, None]
        assert (np.abs(whole * spread - values) <= spread * 0.5001).all()
        assert np.abs(whole).max() == 127

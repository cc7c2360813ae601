"""What torch saves is read as torch reads it, and what is written torch loads, checksums and memory maps included."""

from __future__ import annotations

import os
import tempfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import VisionTextDualEncoderModel

from converter import pt2tf, tf2pt
from converter.checkpoints import torch_legacy, torch_zip
from converter.checkpoints.detect import read_header
from converter.errors import ConverterError, CorruptCheckpoint, UnsupportedContainer
from converter.specs import StoredTensor
from converter.tensors.casts import DTYPES, numpy_dtype
from tests.contents import read_h5

pytestmark = pytest.mark.torch

Tensors = dict[str, torch.Tensor]
ALIKE = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def content(tensor: torch.Tensor) -> tuple[str, tuple[int, ...], bytes]:
    """Dtype, shape and bytes as torch has them."""
    plain = tensor.detach().contiguous().resolve_neg()
    data = plain.view(ALIKE[plain.element_size()]).numpy().tobytes()
    return str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape), data


def stored_content(stored: StoredTensor) -> tuple[str, tuple[int, ...], bytes]:
    """The same as our readers have them."""
    if stored.extent is not None:
        with stored.extent.path.open("rb") as file:
            file.seek(stored.extent.offset)
            return stored.dtype, stored.shape, file.read(stored.extent.nbytes)
    assert stored.read_rows is not None
    rows = stored.shape[0] if stored.shape else 1
    parts = [stored.read_rows(row, row + 1) for row in range(rows)]
    assert all(part.dtype == numpy_dtype(stored.dtype) for part in parts)
    return stored.dtype, stored.shape, b"".join(part.tobytes() for part in parts)


def assert_read_alike(path: Path, tensors: Tensors) -> None:
    held = read_header(path).tensors
    assert list(held) == list(tensors)
    assert tensors
    for name, tensor in tensors.items():
        assert stored_content(held[name]) == content(tensor), name


def noise(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    values = torch.from_numpy(np.random.default_rng(sum(shape) + 1).integers(0, 200, shape))
    return values.to(dtype) if dtype is not torch.bool else values > 100


def state_dict() -> Tensors:
    """One tensor of each kind that a checkpoint may hold."""
    base = torch.randn(8, 9, generator=torch.Generator().manual_seed(1))
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    tagged = torch.nn.Parameter(noise(2, 5))
    tagged.tag = "kept by torch, of no use here"
    tensors: Tensors = OrderedDict(module.state_dict())
    tensors._metadata = module.state_dict()._metadata  # type: ignore[attr-defined]
    tensors |= {
        "shared": base,
        "transposed": base.t(),
        "sliced": base[2:7:2, 1::3],
        "offset": base[3],
        "element": base[4, 5],
        "expanded": base[:1].expand(4, 9),
        "permuted": noise(2, 3, 4, 5).permute(3, 1, 0, 2),
        "channels last": noise(2, 3, 4, 5).contiguous(memory_format=torch.channels_last),
        "parameter": torch.nn.Parameter(noise(3, 2)),
        "tagged": tagged,
        "empty": torch.zeros(0, 4),
        "one": noise(1, 1).as_strided((1, 1), (7, 9)),
        **{f"of {name}": noise(2, 3, dtype=getattr(torch, name)) for name in DTYPES},
        **{f"{name} turned": noise(2, 3, dtype=getattr(torch, name)).t() for name in DTYPES},
    }
    return tensors


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_what_torch_saves_is_read(protocol: int, tmp_path: Path) -> None:
    tensors = state_dict()
    torch.save(tensors, tmp_path / "x.bin", pickle_protocol=protocol)
    assert_read_alike(tmp_path / "x.bin", tensors)
    assert read_header(tmp_path / "x.bin").container == "PyTorch pickle (zip)"


@pytest.mark.parametrize("protocol", [2, 3])  # all that torch reads itself with weights_only
def test_what_torch_saved_before_1_6_is_read_by_torch(protocol: int, tmp_path: Path) -> None:
    newer = (torch.uint16, torch.uint32, torch.uint64)
    tensors = {name: tensor for name, tensor in state_dict().items() if tensor.dtype not in newer}
    torch.save(tensors, tmp_path / "x.bin", pickle_protocol=protocol, _use_new_zipfile_serialization=False)
    assert_read_alike(tmp_path / "x.bin", tensors)
    assert read_header(tmp_path / "x.bin").container == "PyTorch pickle (before torch 1.6)"


@pytest.mark.parametrize("new", [True, False])
def test_lightning_wraps_its_state_dict(new: bool, tmp_path: Path) -> None:
    tensors = {"w": noise(3, 4).t(), "b": noise(5)}
    wrapped = {"epoch": 2, "state_dict": tensors, "lr_schedulers": [], "optimizer_states": [{"state": {0: noise(2)}}]}
    torch.save(wrapped, tmp_path / "last.ckpt", _use_new_zipfile_serialization=new)
    assert_read_alike(tmp_path / "last.ckpt", tensors)


def test_checksums_that_torch_was_told_to_leave_out_are_not_missed(tmp_path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"w": noise(3, 4)}, tmp_path / "x.bin")
    finally:
        torch.serialization.set_crc32_options(True)
    assert_read_alike(tmp_path / "x.bin", {"w": noise(3, 4)})


@st.composite
def view(draw: Callable[..., Any]) -> torch.Tensor:
    """A view of random shape, order of axes, offset and steps."""
    shape = draw(st.lists(st.integers(1, 5), max_size=4))
    steps = [draw(st.integers(1, 3)) for _ in shape]
    base = torch.arange(5 + int(np.prod([size * step for size, step in zip(shape, steps, strict=True)])))
    base = base[draw(st.integers(0, 5)) :][: int(np.prod([a * b for a, b in zip(shape, steps, strict=True)]))]
    base = base.to(getattr(torch, draw(st.sampled_from(["float32", "bfloat16", "float64", "int16", "uint8"]))))
    strided = base.reshape([size * step for size, step in zip(shape, steps, strict=True)])
    for axis, step in enumerate(steps):
        strided = strided[(slice(None),) * axis + (slice(None, None, step),)]
    return strided.permute(draw(st.permutations(range(len(shape)))))


@given(tensor=view(), new=st.booleans())
@settings(max_examples=60)
def test_any_view_is_read_as_torch_reads_it(tensor: torch.Tensor, new: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.pt")
        torch.save({"x": tensor}, path, _use_new_zipfile_serialization=new)
        assert_read_alike(path, {"x": tensor})


@pytest.mark.parametrize("options", [{}, {"mmap": True}, {"weights_only": False}], ids=str)
def test_torch_loads_what_was_written(options: dict[str, Any], tmp_path: Path) -> None:
    tensors = {name: tensor.contiguous() for name, tensor in state_dict().items()}
    path = tmp_path / "pytorch_model.bin"
    described = {name: content(tensor) for name, tensor in tensors.items()}
    placed = torch_zip.write_header(path, [(name, dtype, shape) for name, (dtype, shape, _) in described.items()])
    with path.open("r+b") as file:
        for name, stored in placed.items():
            assert stored.extent is not None
            file.seek(stored.extent.offset)
            file.write(described[name][2])
    torch_zip.seal(path)
    loaded = torch.load(path, **{"weights_only": True, **options})
    assert type(loaded) is OrderedDict
    assert {name: content(tensor) for name, tensor in loaded.items()} == described
    for name, tensor in loaded.items():
        assert tensor.is_contiguous()
        assert tensor.stride() == torch.empty(tensor.shape).stride(), name
        assert not tensor.requires_grad


def test_torch_maps_tensors_behind_4_gib(tmp_path: Path) -> None:
    path = tmp_path / "large.bin"
    placed = torch_zip.write_header(path, [("large", "float32", (2**30 + 1,)), ("small", "int16", (3,))])
    extent = placed["small"].extent
    assert extent is not None
    with path.open("r+b") as file:
        file.seek(extent.offset)
        file.write(b"\1\0\2\0\3\0")
    loaded = torch.load(path, mmap=True, weights_only=True)
    assert loaded["small"].tolist() == [1, 2, 3]
    assert loaded["large"].shape == (2**30 + 1,)


def test_transformers_loads_what_tf2pt_wrote(tiny: Path, tiny_expected: Path, tmp_path: Path) -> None:
    expected = VisionTextDualEncoderModel.from_pretrained(tiny).state_dict()
    for name, options in (("one", {}), ("shards", {"max_shard_size": "100KB"})):
        tf2pt(tiny_expected, tmp_path / name, format="bin", **options)  # type: ignore[arg-type]
        model, account = VisionTextDualEncoderModel.from_pretrained(tmp_path / name, output_loading_info=True)
        assert not any(account.values()), account
        loaded = model.state_dict()
        assert loaded.keys() == expected.keys()
        assert all(torch.equal(loaded[key], expected[key]) for key in expected)


@pytest.mark.parametrize("new", [True, False])
def test_pt2tf_reads_what_torch_saved(new: bool, tiny: Path, tiny_expected: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    tensors = load_file(tiny / "model.safetensors")
    turned = {name: tensor.t().contiguous().t() if tensor.ndim == 2 else tensor for name, tensor in tensors.items()}
    (tmp_path / "pt").mkdir()
    (tmp_path / "pt" / "config.json").write_bytes((tiny / "config.json").read_bytes())
    torch.save(turned, tmp_path / "pt" / "pytorch_model.bin", _use_new_zipfile_serialization=new)
    pt2tf(tmp_path / "pt", tmp_path / "tf")
    assert read_h5(tmp_path / "tf" / "tf_model.h5") == read_h5(tiny_expected / "tf_model.h5")


class Runs:
    """Makes a folder when it is unpickled by what does not look."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.canary),)


def refused() -> dict[str, tuple[Any, str]]:
    """What torch saves and no state_dict of plain tensors holds, with the name that the refusal gives."""
    complex_tensor = torch.ones(2, dtype=torch.complex64)
    return {
        "complex": (complex_tensor, "torch.ComplexFloatStorage"),
        "negated": (torch.ones(2)._neg_view(), "metadata"),
        "sparse": (torch.eye(2).to_sparse(), "torch._utils._rebuild_sparse_tensor"),
        "quantized": (torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8), "torch._utils._rebuild_qtensor"),
        "meta": (torch.ones(2, device="meta"), "torch._utils._rebuild_meta_tensor_no_storage"),
        "module": (torch.nn.Linear(2, 3), "torch.nn.modules.linear.Linear"),
        "float8": (torch.ones(2).to(torch.float8_e5m2), "torch.float8_e5m2"),
    }


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["complex", "negated", "sparse", "quantized", "meta", "module", "float8"])
def test_what_is_more_than_plain_tensors_is_refused_by_name(name: str, tmp_path: Path) -> None:
    value, named = refused()[name]
    torch.save({"x": value}, tmp_path / "x.bin")
    with pytest.raises(UnsupportedContainer, match="None of it was run") as caught:
        read_header(tmp_path / "x.bin")
    assert named in str(caught.value)


@pytest.mark.parametrize("new", [True, False])
def test_nothing_is_run(new: bool, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    path = tmp_path / "x.bin"
    torch.save({"x": Runs(canary)}, path, _use_new_zipfile_serialization=new)
    with pytest.raises(UnsupportedContainer, match=r"posix\.mkdir"):
        read_header(path)
    assert not canary.exists()
    torch.load(path, weights_only=False)
    assert canary.exists()  # the file does what it is here to do


@pytest.mark.parametrize("part", [0.05, 0.2, 0.5, 0.9, 0.999])
def test_a_truncated_old_pickle_is_refused(part: float, tmp_path: Path) -> None:
    torch.save({"x": noise(5, 6)}, tmp_path / "whole.bin", _use_new_zipfile_serialization=False)
    whole = (tmp_path / "whole.bin").read_bytes()
    (tmp_path / "x.bin").write_bytes(whole[: int(part * len(whole))])
    with pytest.raises(ConverterError, match=r"x\.bin: torch "):
        read_header(tmp_path / "x.bin")


def test_an_expanded_tensor_of_any_size_is_refused(tmp_path: Path) -> None:
    for name, new in (("new.bin", True), ("old.bin", False)):
        torch.save({"x": torch.ones(1).expand(2**20, 2**20)}, tmp_path / name, _use_new_zipfile_serialization=new)
        with pytest.raises(CorruptCheckpoint, match=r"would expand a storage of 4 bytes to 4,398,046,511,104"):
            read_header(tmp_path / name)


def test_a_torch_that_is_not_safe_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({"x": noise(2)}, tmp_path / "x.bin", _use_new_zipfile_serialization=False)
    monkeypatch.setattr(torch, "__version__", "2.5.1+cpu")
    with pytest.raises(UnsupportedContainer) as caught:
        torch_legacy.read_header(tmp_path / "x.bin")
    assert str(caught.value) == (
        f"{tmp_path / 'x.bin'}: a PyTorch pickle from before torch 1.6; torch 2.5.1+cpu cannot read it safely; "
        "install 2.6 or newer"
    )

"""Compares the weights of ONNX files with a checkpoint, bit for bit and without a framework."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from converter.conversion.streams import TensorReader, open_tensors
from converter.errors import ConverterError, printable
from converter.exporting.onnx_file import read_onnx
from converter.exporting.onnx_weights import QUANTISED, SCALE, half, in_int8
from converter.names.frameworks import KERAS
from converter.parity.files_and_weights import where_they_differ
from converter.specs import StoredTensor
from converter.tensors.casts import numpy_dtype
from converter.tensors.check import same_bits
from converter.tensors.files import Files
from converter.tensors.moves import cast

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class CheckedWeights:
    """The result of comparing ONNX files with a checkpoint.

    Attributes:
        compared: how many weights, each once, in how many files soever it is used.
        problems: the differences; weights have the files' names.
        unused: names in the checkpoint that no graph uses, such as a pooler.
    """

    compared: int
    problems: tuple[str, ...]
    unused: tuple[str, ...]


def check_weights(folder: str | os.PathLike[str], checkpoint: str | os.PathLike[str]) -> CheckedWeights:
    """Compares every weight of the ONNX files in a folder with the checkpoint that they were made of.

    float32 must have the checkpoint's bits, widened if those are narrower. float16 and int8 must equal the export's
    arithmetic on these, bit for bit too.

    Args:
        folder: the folder of the .onnx files.
        checkpoint: of any framework and container.

    Raises:
        ConverterError: the checkpoint cannot be read.
    """
    folder = Path(folder)
    problems: list[str] = []
    weights: dict[StoredTensor, None] = {}
    beside: dict[str, StoredTensor] = {}
    paths = sorted(folder.glob("*.onnx"))
    for path in paths:
        try:
            held = read_onnx(path).weights
        except (ConverterError, OSError) as error:
            problems.append(printable(str(error), 500))
            continue
        beside |= held
        weights |= dict.fromkeys(held.values())
    if not weights and not problems:
        problems.append(f"{folder}: {len(paths)} .onnx files with no weight beside them; nothing was compared")
    with open_tensors(checkpoint, KERAS) as reader, Files() as files:
        expected = _Expected(reader, beside)
        for tensor in weights:
            problems += _compare(files, tensor, expected)
        used = {_plain(tensor.name, expected.names) for tensor in weights}
        unused = tuple(reader.sources[name] for name in reader.names if name not in used)
    return CheckedWeights(len(weights), tuple(problems), unused)


class _Expected:
    """A weight as converted from the checkpoint; the last tensor is kept, because int8 needs it twice."""

    def __init__(self, reader: TensorReader, beside: Mapping[str, StoredTensor]) -> None:
        self._reader, self._beside = reader, beside
        self.names = frozenset(reader.names)
        self._last: tuple[str, Array] | None = None

    def of(self, tensor: StoredTensor) -> Array | None:
        """The values that a weight must have; None where the checkpoint has no such tensor."""
        name = _plain(tensor.name, self.names)
        if name is None:
            return None
        if self._last is None or self._last[0] != name:
            self._last = name, cast(self._reader.read(name), "float32")
        values = self._last[1]
        if tensor.name == name + ":0":
            return half(name, values) if tensor.dtype == "float16" else values
        scale = self._beside.get(f"{name}{SCALE}:0")
        if values.ndim != 2 or scale is None:
            return None
        whole, scales = in_int8(values, 1 if len(scale.shape) == 1 else 0)
        return whole if tensor.name.endswith(f"{QUANTISED}:0") else scales.reshape(scale.shape)


def _compare(files: Files, tensor: StoredTensor, expected: _Expected) -> Iterator[str]:
    """Says how a weight differs from the checkpoint's."""
    theirs = expected.of(tensor)
    shown = printable(tensor.name)
    if theirs is None:
        yield f"{shown} is no tensor of the checkpoint"
        return
    if (theirs.shape, theirs.dtype.name) != (tensor.shape, tensor.dtype):
        yield f"{shown} is {tensor.dtype} {tensor.shape}; the checkpoint makes it {theirs.dtype} {theirs.shape}"
        return
    ours = np.empty(tensor.shape, numpy_dtype(tensor.dtype))
    if tensor.extent is not None:
        files.open(tensor.extent.path)
        files.read(tensor.extent, 0, ours)
    if not same_bits(ours, np.ascontiguousarray(theirs)):
        yield f"{shown} differs{where_they_differ(ours, theirs)}"


def _plain(name: str, known: Collection[str]) -> str | None:
    """The checkpoint name of a weight, or None."""
    plain = name.removesuffix(":0")
    return next((p for p in (plain, *(plain.removesuffix(end) for end in (QUANTISED, SCALE))) if p in known), None)

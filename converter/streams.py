"""Gives the tensors of a checkpoint one at a time, under either framework's names and in its layout, for models."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from converter.casts import numpy_dtype
from converter.checkpoints.detect import open_source
from converter.configs import DualEncoderConfig, read_config
from converter.moves import Files
from converter.plan import Plan, PlannedTensor, make_plan
from converter.specs import Checkpoint, Framework, Shape

Array = np.ndarray[Any, Any]


class TensorReader:
    """The tensors of one checkpoint, complete and checked against its config before any is read.

    Attributes:
        config: the checkpoint's, checked.
        plan: what every tensor is called on both sides.
    """

    def __init__(self, checkpoint: Checkpoint, config: DualEncoderConfig, plan: Plan) -> None:
        self.config = config
        self.plan = plan
        self._checkpoint = checkpoint
        self._tensors = {tensor.name: tensor for tensor in plan.tensors}
        self._files = Files()

    def __enter__(self) -> TensorReader:
        for path in self._checkpoint.files:
            self._files.open(path)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._files.__exit__(kind, error, trace)
        self._checkpoint.close()

    @property
    def names(self) -> tuple[str, ...]:
        """Names as the framework that was asked for has them, in its order."""
        return tuple(self._tensors)

    @property
    def shapes(self) -> Mapping[str, Shape]:
        """Shapes by name, in the layout of the framework that was asked for."""
        return {name: tensor.shape for name, tensor in self._tensors.items()}

    def read(self, name: str) -> Array:
        """Reads one tensor.

        Args:
            name: one of ``names``.

        Returns:
            A fresh, writable array of ``shapes[name]``, in the stored dtype (bfloat16 as ml_dtypes has it).
        """
        tensor = self._tensors[name]
        stored = self._read_stored(tensor)
        if tensor.layout.axes is None or self.plan.source == self.plan.target:
            return stored.reshape(tensor.shape)
        return tensor.layout.to_tf(stored) if self.plan.target == "tf" else tensor.layout.to_pt(stored)

    def _read_stored(self, tensor: PlannedTensor) -> Array:
        source = tensor.source
        if source.extent is None and source.read_rows is not None:
            return source.read_rows(0, source.shape[0] if source.shape else 1)
        stored = np.empty(source.shape, numpy_dtype(source.dtype))
        if source.extent is not None:
            self._files.read(source.extent, 0, stored)
        return stored


def open_tensors(source: str | os.PathLike[str], side: Framework = "tf") -> TensorReader:
    """Opens a checkpoint, PyTorch's or TensorFlow's, to read its tensors as ``side`` calls and lays them out.

    Args:
        source: a folder as ``save_pretrained`` writes it, or a weights file in one.
        side: ``"tf"`` or ``"pt"``.

    Returns:
        A context manager.

    Raises:
        ConverterError: the checkpoint is not complete or not sound.
    """
    checkpoint, folder = open_source(Path(source), None)
    try:
        config = read_config(folder / "config.json")
        plan = make_plan(checkpoint, config, side)
    except BaseException:
        checkpoint.close()
        raise
    return TensorReader(checkpoint, config, plan)

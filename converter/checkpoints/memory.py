"""Tensors in memory as a source: torch's ``state_dict()``, or NumPy arrays by name. No framework is imported."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from converter.errors import SourceError, printable
from converter.specs import Checkpoint, StoredTensor
from converter.tensors.casts import DTYPES, numpy_dtype

Array = np.ndarray[Any, Any]
_DENSE = "torch.strided"


def read_state_dict(state_dict: Mapping[str, Any]) -> Checkpoint:
    """Takes a state dict for a PyTorch checkpoint; nothing is copied until it is written.

    Args:
        state_dict: name -> torch tensor (on any device) or NumPy array (bfloat16 as ml_dtypes has it).

    Raises:
        SourceError: a value is neither, or has a dtype that no weight has.
    """
    tensors = {name: _stored(name, value) for name, value in state_dict.items()}
    return Checkpoint("pt", "state dict in memory", tensors, ())


def _stored(name: Any, value: Any) -> StoredTensor:
    dtype = str(getattr(value, "dtype", "")).removeprefix("torch.")
    if not isinstance(name, str):
        raise SourceError(f"state dict: a name is {printable(repr(name), 60)} ({type(name).__name__}), expected a text")
    if isinstance(value, Mapping):
        raise SourceError(
            f"state dict: {printable(name)} is a dict; if it is the state dict, pass it alone: "
            f"pt2tf(checkpoint[{printable(repr(name), 60)}], OUT, config=...)"
        )
    if dtype not in DTYPES or not hasattr(value, "shape"):
        raise SourceError(
            f"state dict: {printable(name)} is {type(value).__name__} {dtype}, expected a torch tensor or NumPy "
            f"array of {', '.join(DTYPES)}"
        )
    layout = str(getattr(value, "layout", _DENSE))
    if getattr(value, "is_nested", False) or (layout.startswith("torch.") and layout != _DENSE):
        raise SourceError(f"state dict: {printable(name)} is a sparse or nested tensor; pass TENSOR.to_dense()")
    if getattr(value, "is_meta", False):
        raise SourceError(
            f"state dict: {printable(name)} is on the meta device, which holds no values; transformers leaves that where "
            "it loaded nothing (from_flax=True, from_tf=True). Convert the folder itself: convert to tf FOLDER OUT"
        )

    def read_rows(start: int, stop: int) -> Array:
        rows = value[start:stop] if len(value.shape) else value
        if isinstance(rows, np.ndarray | np.generic):
            return np.ascontiguousarray(rows, numpy_dtype(dtype))
        rows = rows.detach().cpu().contiguous()
        if dtype == "bfloat16":
            # NumPy itself has no bfloat16: torch gives the bits as integers.
            return np.asarray(rows.view(_int16(rows)).numpy()).view(numpy_dtype(dtype))
        return np.asarray(rows.numpy())

    return StoredTensor(name, dtype, tuple(int(size) for size in value.shape), None, read_rows)


def _int16(tensor: Any) -> Any:
    """torch.int16, from the module that the tensor itself comes from."""
    import sys

    return sys.modules[type(tensor).__module__.partition(".")[0]].int16

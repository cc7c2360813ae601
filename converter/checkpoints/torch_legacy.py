"""PyTorch pickles from before torch 1.6, which are no zip archives: read by torch itself, restricted to tensors.

Only a second pickle gives the order in which storages follow the pickle, and old files vary. So torch reads them.
"""

from __future__ import annotations

import pickle
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

from converter.checkpoints.memory import read_state_dict
from converter.checkpoints.state_dicts import find_state_dict
from converter.checkpoints.strides import MAX_EXPANDED_BYTES
from converter.errors import CorruptCheckpoint, UnsupportedContainer, printable
from converter.specs import Checkpoint
from converter.tensors.casts import DTYPES

# A pickled number, 0x1950a86a20f9469cfc6c, at the start of torch's old files; by LONG1 in every protocol.
MAGIC = b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"
# Before, weights_only could be led to run code by a file that is a tar archive too (CVE-2025-32434).
OLDEST_TORCH = (2, 6)


def read_header(path: Path) -> Checkpoint:
    """Reads a pickle from before torch 1.6 by ``torch.load(weights_only=True)``; all of it stays in memory.

    Raises:
        UnsupportedContainer: torch is not installed, is too old, or finds more than tensors.
        CorruptCheckpoint: torch cannot read it.
    """
    torch = _torch(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about protocols other than 2, which it reads all the same
            held = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # Its message ends with the advice to run what the file asks for; what it met is the error below.
        met = str(error.__context__ or error).partition(". Please")[0]
        raise UnsupportedContainer(
            f"{path}: torch found damage or more than tensors in it, and ran none of it: "
            f"{printable(met, 300).rstrip('.')}. Load the model in its own environment and write it with save_pretrained"
        ) from None
    except Exception as error:  # torch passes on whatever its parts raise
        raise CorruptCheckpoint(
            f"{path}: torch cannot read it: {printable(f'{type(error).__name__}: {error}')}; download or save it again"
        ) from None
    state_dict, beside = find_state_dict(path, held, lambda value: isinstance(value, torch.Tensor))
    checked = {name: _check_tensor(path, name, value, torch.strided) for name, value in state_dict.items()}
    container = "PyTorch pickle (before torch 1.6)"
    return replace(read_state_dict(checked), container=container, files=(path,), beside=beside)


def _torch(path: Path) -> Any:
    try:
        import torch
    except ImportError:
        raise UnsupportedContainer(
            f"{path}: a PyTorch pickle from before torch 1.6, which only torch reads; install the extra `torch`, or "
            "load and save it again with a newer torch"
        ) from None
    version = tuple(int(part) for part in torch.__version__.split(".")[:2])
    if version < OLDEST_TORCH:
        raise UnsupportedContainer(
            f"{path}: a PyTorch pickle from before torch 1.6; torch {torch.__version__} cannot read it safely; "
            f"install {'.'.join(map(str, OLDEST_TORCH))} or newer"
        )
    return torch


def _check_tensor(path: Path, name: Any, value: Any, strided: Any) -> Any:
    """Gives back a plain tensor, its values as they read."""
    if (dtype := str(value.dtype).removeprefix("torch.")) not in DTYPES or value.layout != strided:
        raise UnsupportedContainer(
            f"{path}: tensor {printable(str(name))} is {dtype}, {value.layout}; supported are plain tensors of "
            f"{', '.join(DTYPES)}"
        )
    if value.nbytes > max(held := value.untyped_storage().nbytes(), MAX_EXPANDED_BYTES):
        raise CorruptCheckpoint(
            f"{path}: tensor {printable(str(name))} would expand a storage of {held:,} bytes to {value.nbytes:,}; save a "
            "contiguous copy of it"
        )
    return value.detach().resolve_neg()

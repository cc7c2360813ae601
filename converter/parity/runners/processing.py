"""Puts texts and pictures through the tokenizer and the image processor of a checkpoint folder, with transformers.

Runs in the process of the PyTorch reference: transformers imports torch if it is installed.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from converter.errors import MissingPackage, ParityError, printable
from converter.folder.files import read_json
from converter.parity.batches import OF_PATCHES
from converter.parity.inputs import read_vocabulary
from converter.parity.runners.golden import Recording, write_recording
from converter.parity.samples import sample_batch
from converter.parity.taps import Array

_NEEDS = "pip install 'dual-encoder-converter[torch]', which brings Pillow, or the package that is named"


def answer(request: Mapping[str, Any]) -> dict[str, Any]:
    """Answers a request of ``samples``: writes a recording of one batch without taps.

    Args:
        request: ``processor``, a folder with tokenizer and processor files; ``title``, ``texts``, ``pictures``
            (paths), ``longest`` (tokens of a text, or None) and ``out``, the file to write.

    Raises:
        ParityError: the folder has no processor that can be loaded, or what it makes is not for the folder's model.
    """
    try:
        from transformers import AutoImageProcessor, AutoTokenizer
    except ImportError as error:
        raise MissingPackage(f"the processor needs transformers: {error}; pip install transformers") from None
    folder = Path(request["processor"])
    config = read_json(folder / "config.json")
    tokenizer = _load(AutoTokenizer, "tokenizer", folder)
    processor = _load(AutoImageProcessor, "image processor", folder)
    longest = min(read_vocabulary(config).longest, request.get("longest") or read_vocabulary(config).longest)
    made = {
        **_tokenized(tokenizer, request["texts"], longest),
        **_processed(processor, [Path(path) for path in request["pictures"]]),
    }
    write_recording(Recording({}, (sample_batch(request["title"], made, config),)), Path(request["out"]))
    return {}


def _load(kind: Any, name: str, folder: Path) -> Any:
    return _attempt(
        # Said, for by default transformers asks on stdin whether to run what a checkpoint brings along.
        lambda: kind.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False),
        f"the {name} of {folder} cannot be loaded",
    )


def _tokenized(tokenizer: Any, texts: list[str], longest: int) -> dict[str, Array]:
    limit = min(longest, tokenizer.model_max_length)
    made = _attempt(
        lambda: tokenizer(texts, padding=True, truncation=True, max_length=limit, return_tensors="np"),
        "the tokenizer cannot take the texts",
    )
    return {name: np.asarray(made[name], np.int64) for name in made}


def _processed(processor: Any, files: list[Path]) -> dict[str, Array]:
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingPackage(f"pictures need Pillow: {error}; {_NEEDS}") from None

    def load(file: Path) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return Image.open(file).convert("RGB")

    pictures = [_attempt(partial(load, file), f"{file}: not a readable picture") for file in files]
    made = _attempt(
        lambda: processor(images=pictures, return_tensors="np"), "the image processor cannot take the pictures"
    )
    cut = {name: np.asarray(made[name], np.int64) for name in OF_PATCHES if name in made}
    return {"pixel_values": np.asarray(made["pixel_values"], np.float32), **cut}


def _attempt(call: Callable[[], Any], failing: str) -> Any:
    """Third-party code over files from anywhere: whatever it raises is a reason, not a bug of ours."""
    try:
        return call()
    except ImportError as error:  # transformers' own is of three sentences
        text = printable(str(error).strip().partition("\n")[0].partition(". ")[0], 300)
        raise MissingPackage(f"{failing}: {text}; {_NEEDS}") from None
    except Exception as error:
        text = printable(" ".join(str(error).split()), 300)
        raise ParityError(f"{failing}: {type(error).__name__}: {text}") from None

"""How outputs are compared: what a person may choose, and what follows for each side."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converter.arguments import check
from converter.errors import OptionError
from converter.parity.comparison import Tolerance
from converter.parity.runners.options import CandidateOptions, ReferenceOptions
from converter.parity.samples import Samples, find_samples

_PATH: Any = str | os.PathLike[str]
_TYPES = {"atol": float, "rtol": float, "device": str, "backend": str, "float64": bool, "seed": int, "seconds": float}


@dataclass(frozen=True)
class VerifyOptions:
    """How outputs are compared.

    Attributes:
        atol: absolute tolerance of every layer output.
        rtol: relative tolerance of every layer output.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:<number>"``, for PyTorch, and for Keras where its backend
            sees a GPU.
        backend: Keras backend of the candidate, ``"tensorflow"`` or ``"jax"``.
        float64: compute in float64 on both sides; any difference left is real.
        seed: of the inputs.
        seconds: time limit for each side.
        reference_python: interpreter of another environment to run PyTorch in. For a Flax source it runs Flax's own model,
            if it has flax and transformers 4.
        texts: a file with one text per line for the checkpoint's tokenizer; by default some that ship with
            this package.
        images: pictures, or folders of them, for its image processor; same default.
    """

    atol: float = 1e-4
    rtol: float = 0.0
    device: str = "auto"
    backend: str = "tensorflow"
    float64: bool = False
    seed: int = 0
    seconds: float = 600.0
    reference_python: Path | None = None
    texts: Path | None = None
    images: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        """Refuses values of another type, and an invalid device, number of seconds, seed or backend; a path may be a text.

        Raises:
            OptionError: they make no sense.
        """
        images = (self.images,) if isinstance(self.images, str | os.PathLike) else self.images
        check("images", images, Sequence, OptionError)
        for value in images:
            check("images", value, _PATH, OptionError)
        object.__setattr__(self, "images", tuple(Path(value) for value in images))
        for name in ("texts", "reference_python"):
            check(name, value := getattr(self, name), _PATH | None, OptionError)
            object.__setattr__(self, name, None if value is None else Path(value))
        for name, kind in _TYPES.items():
            check(name, getattr(self, name), kind, OptionError)
        if not (math.isfinite(self.seconds) and self.seconds > 0):
            raise OptionError(f"seconds is {self.seconds}; give a finite number above 0")
        if self.seed < 0:
            raise OptionError(f"seed is {self.seed}; give a number of 0 or more")
        Tolerance(self.atol, self.rtol)
        self.candidate("float32")

    @property
    def reference(self) -> ReferenceOptions:
        """How PyTorch runs."""
        return ReferenceOptions(self.device, "float64" if self.float64 else "float32", "sdpa", loss=True)

    def candidate(self, dtype: str) -> CandidateOptions:
        """How Keras runs, in the precision of its reference."""
        return CandidateOptions(self.backend, self.device, dtype, loss=True)

    @property
    def samples(self) -> Samples:
        """Texts and pictures.

        Raises:
            OptionError: they cannot be read.
        """
        return find_samples(self.texts, self.images)

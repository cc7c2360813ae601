"""What a part of a verification found. What cannot be checked is "not checked", never "passed"."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Status = Literal["passed", "failed", "not checked"]
# Parts that there may be nothing to check of: a manifest, and a tokenizer and image processor.
OPTIONAL_PARTS = ("files", "samples")


@dataclass(frozen=True)
class Finding:
    """What one part of a verification found.

    Attributes:
        part: ``"files"``, ``"weights"``, ``"outputs"`` or ``"samples"`` (texts and pictures).
        status: ``"passed"``, ``"failed"`` or ``"not checked"``.
        compared: how many files, tensors or values were compared.
        against: with what, in words.
        problems: what is wrong, or why nothing could be checked.
    """

    part: str
    status: Status
    compared: int = 0
    against: str = ""
    problems: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Ready for ``json.dumps``."""
        return vars(self) | {"problems": list(self.problems)}

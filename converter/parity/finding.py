"""The result of a part of a verification. What cannot be checked is "not checked", never "passed"."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, Literal

Status = Literal["passed", "failed", "not checked"]
# Parts that there may be nothing to check of: a manifest, and a tokenizer and image processor.
OPTIONAL_PARTS = ("files", "samples")


def status_of(findings: Collection[Finding]) -> Status:
    """What some findings say together: one failure is a failure, and nothing passes if a part of it was not checked."""
    statuses = {finding.status for finding in findings if finding.status != "not checked"}
    unchecked = any(finding.status == "not checked" and not finding.is_optional for finding in findings)
    if "failed" in statuses:
        return "failed"
    return "not checked" if unchecked or not statuses else "passed"


@dataclass(frozen=True)
class Finding:
    """The result of one part of a verification.

    Attributes:
        part: ``"files"``, ``"weights"``, ``"outputs"`` or ``"samples"`` (texts and pictures).
        status: ``"passed"``, ``"failed"`` or ``"not checked"``.
        compared: how many files, tensors or values were compared.
        against: a description of the other side.
        problems: what is wrong, or why nothing could be checked.
        seconds: how long it took.
        required: whether it had to be checked here although the part is optional, because the checkpoint has it and only
            a package is missing.
    """

    part: str
    status: Status
    compared: int = 0
    against: str = ""
    problems: tuple[str, ...] = ()
    seconds: float = field(default=0.0, compare=False)
    required: bool = False

    @property
    def is_optional(self) -> bool:
        """Whether the whole can be called passed without it."""
        return self.part in OPTIONAL_PARTS and not self.required

    def to_json(self) -> dict[str, Any]:
        """Ready for ``json.dumps``; without the time, so that the same findings are the same text."""
        plain = {name: value for name, value in vars(self).items() if name not in ("seconds", "required")}
        return plain | {"problems": list(self.problems)}

"""How long a test takes: a sample under `make test`, everything under `make torture`."""

from __future__ import annotations

import os

FULL = os.environ.get("TORTURE") == "1"


def rounds(sample: int, full: int) -> int:
    """`full` where `make torture` runs the test, otherwise `sample`."""
    return full if FULL else sample

"""The result of verifying as JSON: every figure of every tap and batch."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from converter.parity.verify import Verification


def to_json_text(found: Verification) -> str:
    """A JSON file with every figure of every tap and batch; ``docs/report.schema.json`` describes it."""
    return json.dumps(found.to_json(), indent=1, ensure_ascii=False, allow_nan=False) + "\n"

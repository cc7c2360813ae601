"""Model types that cannot be a tower, or cannot be one yet, with the reason: ``rename_rules/refused.toml``."""

from __future__ import annotations

import functools
from collections.abc import Mapping

from converter.names.rule_files import Side, rule_file, supported


@functools.cache
def refusals(side: Side) -> Mapping[str, str]:
    """Model types that a dual encoder cannot have on one side and why, sorted; a family may have one of them as its own."""
    found = {
        model_type: str(group["why"])
        for group in rule_file("refused").values()
        for model_type in group[side]
        if model_type not in supported(side)
    }
    return dict(sorted(found.items()))

"""Model types that cannot be a tower, or cannot be one yet, with the reason: ``rename_rules/refused.toml``."""

from __future__ import annotations

import functools
from collections.abc import Mapping

from converter.names.rule_files import Side, rule_file, tower_files


@functools.cache
def refusals(side: Side) -> Mapping[str, str]:
    """Model types that are refused on one side and why, sorted; what has rules is not among them."""
    found = {
        model_type: str(group["why"])
        for group in rule_file("refused").values()
        for model_type in group[side]
        if model_type not in tower_files(side)
    }
    return dict(sorted(found.items()))

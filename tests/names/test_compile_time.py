"""Rules are compiled for every command: also those of the largest models that are published take no time to speak of."""

from __future__ import annotations

import time
from typing import Any

from converter.names.rules import compile_rules
from converter.names.towers import tower_defaults

SECONDS = 0.05
# DINOv2 giant and XLM-R XXL are the deepest of those here.
LAYERS = 48


def test_the_largest_towers_are_compiled_in_50_ms(tower_type: str, names: Any) -> None:
    """In time of the processor, the best of five: other programs run on the machine, too."""
    side = names.side_of(tower_type)
    deep = {"num_hidden_layers": LAYERS} if "num_hidden_layers" in tower_defaults(side, tower_type) else {}
    words = {"vocab_size": 33} if tower_defaults(side, tower_type).get("vocab_size", 33) is None else {}
    config = names.tower_config({"model_type": tower_type, **deep, **words})
    assert len(compile_rules(config).tensors) > 200
    taken = []
    for _ in range(5):
        before = time.process_time()
        compile_rules(config)
        taken.append(time.process_time() - before)
    assert min(taken) < SECONDS

"""How long a run takes, the same in every runtime's process."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable


def milliseconds(run: Callable[[], object], times: int) -> float:
    """The median of n runs, after a warm-up run."""
    run()
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        run()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken) * 1000

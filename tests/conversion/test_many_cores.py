"""On one core and on 64 that the system pretends to have: the same output, few threads, and as little memory."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.tiny import config_of, tensors_of, write_checkpoint

MOST_THREADS = 5  # four, and the one that waits for them
# Of 50 MB, of which the largest tensor has 20: what is held is bounded by blocks, not by cores or tensors.
CHILD = """
import json, os, resource, sys, threading
cores = int(sys.argv[1])
os.cpu_count = lambda: cores
if hasattr(os, "sched_getaffinity"):
    os.sched_getaffinity = lambda _: set(range(cores))
from converter import pt2tf
from converter.tensors import parallel
most = 0
def progress(*_):
    global most
    most = max(most, threading.active_count())
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
pt2tf(sys.argv[2], sys.argv[3], progress=progress)
held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(json.dumps({"pool": parallel.THREADS, "threads": most, "kb": held}))
"""


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = config_of(
        text_fields={"vocab_size": 160_000}, vision_fields={"hidden_size": 1024, "intermediate_size": 4096}
    )
    return write_checkpoint(tmp_path_factory.mktemp("large") / "pt", config, tensors_of(config))


@pytest.mark.parametrize("cores", [1, 64])
def test_neither_one_core_nor_64_do_harm(large: Path, tmp_path: Path, cores: int) -> None:
    found: dict[str, Any] = {}
    for name, count in (("two", 2), ("other", cores)):
        command = [sys.executable, "-c", CHILD, str(count), str(large), str(tmp_path / name)]
        found[name] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert found["two"]["pool"] == 2
    assert found["other"]["pool"] == min(cores, 4)
    assert found["other"]["threads"] <= MOST_THREADS
    assert found["other"]["kb"] < 110_000
    written = [tmp_path / name / "tf_model.h5" for name in found]
    assert len({hashlib.sha256(file.read_bytes()).hexdigest() for file in written}) == 1
    for file in written:
        file.unlink()

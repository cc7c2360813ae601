"""The benchmark of loading makes every container of the same tensors, and says where a bound is missed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import load
from benchmarks.checkpoints import SIZES, write
from benchmarks.load import CONTAINERS, table
from converter.conversion.streams import open_tensors

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("name", [name for name, container in CONTAINERS.items() if container.make is not None])
def test_every_container_holds_the_same(name: str, tmp_path: Path) -> None:
    container = CONTAINERS[name]
    write(SIZES[load.SIZES["tiny"][container.full_clip]], tmp_path / "pt")
    assert container.make is not None
    container.make(tmp_path / "pt", tmp_path / "out")
    with open_tensors(tmp_path / "pt") as wanted, open_tensors(tmp_path / "out") as found:
        assert (found.container, found.framework, found.sources) != (wanted.container, wanted.framework, wanted.sources)
        for tensor in wanted.names:
            np.testing.assert_array_equal(found.read(tensor), wanted.read(tensor), err_msg=tensor)


@pytest.mark.parametrize(("peak", "verdict"), [(109.0, "holds"), (111.0, "MISSED")])
def test_the_bound_can_be_missed(peak: float, verdict: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    took = [{"seconds": each, "cpu": 1.0, "peak_mb": peak, "held_mb": 100.0} for each in (9.0, 2.0, 1.0, 3.0)]
    monkeypatch.setattr(load, "load", lambda *_: took.pop(0))
    monkeypatch.setattr(load, "_checkpoint", lambda *_: {"tensors": 3, "bytes": 10**8})
    (tmp_path / "tiny" / "pt").mkdir(parents=True)
    row = load.run("tiny", tmp_path, ["safetensors"], "tensorflow", 3)[0]
    assert (row["median_s"], row["fastest_s"], row["slowest_s"]) == (2.0, 1.0, 3.0)  # the first is not counted
    assert f"| {peak / 100:.2f} | 1.00 | 1.1 x {verdict} |" in table([row])


@pytest.mark.tf
@pytest.mark.torture
def test_it_runs(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "load.py"), "--size", "tiny", "--runs", "0"]
    command += ["--folder", str(tmp_path / "data"), "--results", str(tmp_path / "results")]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    report = json.loads((tmp_path / "results" / "load-tiny.json").read_text("utf-8"))
    assert [row["name"] for row in report["containers"]] == [container.name for container in CONTAINERS.values()]
    assert all(row["runs"][0]["variables"] == row["tensors"] for row in report["containers"])
    assert "| OpenCLIP safetensors |" in answer.stdout
    assert list((tmp_path / "data").iterdir()) == []

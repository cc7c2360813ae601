"""Three raylets on one machine, one of which is killed midway, and the driver killed and started again (`make torture`)."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
import urllib.request
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from converter import fleet_status, inspect
from converter.fleets.ledger import NAME as LEDGER
from tests.fleets.conftest import Rays
from tests.fleets.test_fleet import command_of, corrupt, lines, started_by
from tests.tiny import FIXTURE

pytestmark = pytest.mark.torture
ray = pytest.importorskip("ray")
MANY = 240


def until(holds: Callable[[], bool], driver: subprocess.Popen[str] | None = None) -> None:
    end = time.monotonic() + 180
    while not holds():
        assert time.monotonic() < end
        assert driver is None or driver.poll() is None, driver.returncode
        time.sleep(0.01)


def noted(out: Path) -> int:
    return (out / LEDGER).read_bytes().count(b'"kind": "attempt"') if (out / LEDGER).exists() else 0


@pytest.mark.filterwarnings("ignore")
def test_nothing_is_lost_and_nothing_done_twice(tmp_path: Path, rays: Rays) -> None:
    """Whatever is killed: a node and then the driver, in the first run; a worker of Ray's in the second."""
    node = rays.add_node()
    for number in range(MANY):
        shutil.copytree(FIXTURE, tmp_path / "models" / f"m{number:03}")
    corrupt(tmp_path / "models" / "m007")
    out = tmp_path / "out"
    with rays.start(str(tmp_path / "models"), str(out)) as first:
        until(lambda: noted(out) >= 10, first)
        rays.cluster.remove_node(node, allow_graceful=False)
        until(lambda: noted(out) >= 40, first)
        first.kill()
    assert noted(out) < MANY
    for path in out.glob("m*"):
        assert inspect(path).problem is None
    inodes = {path: path.stat().st_ino for path in out.glob("m*/conversion.json")}
    before = noted(out)
    with rays.start(str(tmp_path / "models"), str(out), "--json") as second:
        until(lambda: noted(out) >= before + 10, second)
        kill_a_worker()
        metrics = exported(rays.cluster)
        answer, _ = second.communicate()
    found = json.loads(answer)
    assert found.get("counts") == {"failed": 1, "done": MANY - 1}, found
    assert fleet_status(out).counts == found["counts"]
    assert {path: path.stat().st_ino for path in inodes} == inodes
    assert set(Counter(line["name"] for line in lines(out) if line["kind"] == "attempt").values()) == {1}
    assert not list(out.glob(".*"))
    assert re.search(r'ray_fleet_checkpoints_total\{[^}]*state="done"[^}]*\} [1-9]', metrics)
    assert plasma(rays.cluster) == 0


def kill_a_worker() -> None:
    """Kills one of this cluster that Ray runs a task in, or has run one in."""
    named = {number: command_of(number) for number in below(os.getpid())}
    busy = [number for number, name in named.items() if name.startswith((b"ray::convert", b"ray::carry_out"))]
    idle = [number for number, name in named.items() if name.startswith(b"ray::IDLE")]
    os.kill((busy or idle)[0], signal.SIGKILL)  # none of Ray's own agents, without which a node ends


def below(process: int) -> list[int]:
    """Numbers of all processes that one has started, and those have."""
    found = started_by(process)
    return found + [number for one in found for number in below(one)]


def exported(cluster: Any) -> str:
    """What Prometheus would be told, within some seconds."""
    ray.init(address=cluster.address, log_to_driver=False)
    ports = [node["MetricsExportPort"] for node in ray.nodes() if node["Alive"]]
    address = ray.util.get_node_ip_address()
    ray.shutdown()
    said = ""
    end = time.monotonic() + 30
    while "ray_fleet_checkpoints_total" not in said and time.monotonic() < end:
        said = ""
        for port in ports:
            with urllib.request.urlopen(f"http://{address}:{port}/metrics", timeout=5) as answer:
                said += answer.read().decode()
        time.sleep(0.5)
    return said


def plasma(cluster: Any) -> int:
    """How many objects the stores of the cluster hold."""
    ray.init(address=cluster.address, log_to_driver=False)
    from ray._private.internal_api import memory_summary

    said = memory_summary(stats_only=True)
    ray.shutdown()
    return int(re.search(r"Plasma memory usage \d+ MiB, (\d+) objects", said)[1])  # type: ignore[index]

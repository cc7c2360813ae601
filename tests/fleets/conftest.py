"""A folder of small checkpoints, and the fleet of it; a Ray cluster that tests share."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import convert  # noqa: F401 - a fixture

ROOT = Path(__file__).resolve().parents[2]
# Ray writes below this folder, whose sockets have names of some 100 characters at most.
ENVIRONMENT = {"RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": str(ROOT), "RAY_DEDUP_LOGS": "0"}
STORE = 100 * 2**20
_QUICK = {"health_check_period_ms": 1000, "health_check_timeout_ms": 1000, "health_check_failure_threshold": 3}


@pytest.fixture
def models(tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three checkpoints below the current folder, one of them a level deeper; and what is none."""
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b", "org/c"):
        shutil.copytree(tiny, tmp_path / "models" / name)
    (tmp_path / "models" / "notes").mkdir()
    (tmp_path / "models" / "notes" / "README.md").write_text("nothing\n")
    return tmp_path / "models"


class Rays:
    """A Ray cluster of this machine, with temporary files of its own: a head without processors, and nodes."""

    def __init__(self, nodes: int, **configured: Any) -> None:
        from ray.cluster_utils import Cluster

        self._folder = Path(tempfile.mkdtemp(prefix="r", dir="/tmp"))
        self.temporary = self._folder / "t"
        self.temporary.mkdir()
        # Connections are taken and nothing is answered, so that whatever is fetched from a bucket hangs.
        self._silent = socket.create_server(("127.0.0.1", 0), backlog=100)
        self.environment = {
            **os.environ,
            **ENVIRONMENT,
            "RAY_TMPDIR": str(self._folder),
            "TMPDIR": str(self.temporary),
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self._silent.getsockname()[1]}",
            "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
            "AWS_SECRET_ACCESS_KEY": "a-secret-that-nobody-may-see",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        head = {"num_cpus": 0, "object_store_memory": STORE, "_system_config": {**_QUICK, **configured}}
        with self._told():
            self.cluster = Cluster(initialize_head=True, head_node_args=head)
        for _ in range(nodes):
            self.add_node()

    def add_node(self) -> Any:
        """One more, of two processors."""
        with self._told():
            return self.cluster.add_node(num_cpus=2, object_store_memory=STORE)

    def start(self, *words: str, **options: Any) -> subprocess.Popen[str]:
        """A run in a process of its own, in the current folder."""
        command = [sys.executable, "-m", "converter", "fleet", *words, "--ray", self.cluster.address]
        return subprocess.Popen(
            command, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
        )

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """A run to its end."""
        with self.start(*words) as process:
            out, err = process.communicate(timeout=300)
        return subprocess.CompletedProcess(words, process.returncode, out, err)

    def close(self) -> None:
        self.cluster.shutdown()
        self._silent.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Has Ray find this in its environment, and its processes in theirs."""
        with pytest.MonkeyPatch.context() as patch:
            for name, value in self.environment.items():
                patch.setenv(name, value)
            yield


@pytest.fixture(scope="package")
def rays() -> Iterator[Rays]:
    """The cluster of all tests that need one. Those that take a node away add it first."""
    pytest.importorskip("ray")
    made = Rays(nodes=2, metrics_report_interval_ms=500)
    yield made
    made.close()

"""A fleet of 300 checkpoints from a bucket on a Ray cluster, through whatever goes wrong: `python benchmarks/fleet_of_300.py`.

Families and frameworks are mixed, and ten are broken in ten ways (`mixed.py`). They lie on moto's S3 server on loopback. Of
three raylets one is killed midway, then the driver; the second run does what is left. Afterwards the ledger, OUTDIR and
Ray's object stores are looked at, and the program ends with status 1 if something is not as it must be.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.convert import machine  # noqa: E402
from benchmarks.mixed import BROKEN, HANGING, make  # noqa: E402

STORE = 100 * 2**20
NODES = 3
BUCKET = "bench"
_QUICK = {"health_check_period_ms": 1000, "health_check_timeout_ms": 1000, "health_check_failure_threshold": 3}
_PLASMA = re.compile(r"Plasma memory usage (\d+) MiB, (\d+) objects")


def main() -> None:
    """Runs it, prints what came of it, writes the figures."""
    if sys.argv[1:2] == ["--serve"]:
        serve(int(sys.argv[2]))
        return
    parser = argparse.ArgumentParser(description="A fleet of 300 checkpoints, through whatever goes wrong.")
    parser.add_argument("--count", type=int, default=300, metavar="N", help="checkpoints, ten of which are broken")
    parser.add_argument("--deadline", type=float, default=60.0, metavar="SECONDS", help="per checkpoint")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results", help="where the JSON goes")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="r", dir="/tmp") as folder, s3_server() as environment:
        home = Path(folder)
        os.environ.update(environment, RAY_USAGE_STATS_ENABLED="0", PYTHONPATH=str(ROOT), RAY_TMPDIR=folder)
        report = {"machine": machine(), **carried_out(home, options.count, options.deadline)}
    path = options.results / "fleet-of-300.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(f"written to {path}")
    if report["wrong"]:
        raise SystemExit("\n".join(report["wrong"]))


def carried_out(home: Path, count: int, deadline: float) -> dict[str, Any]:
    """Makes, uploads and converts them, and looks at the outcome."""
    began = time.monotonic()
    kinds = make(home / "models", count)
    names = upload(home / "models")
    print(f"{count} checkpoints, {dict(kinds)}: made and uploaded in {time.monotonic() - began:.0f} s", flush=True)
    listed = home / "list.txt"
    listed.write_text("".join(f"s3://{BUCKET}/models/{name}\n" for name in names))
    out = Outdir(f"s3://{BUCKET}/converted")
    command = [sys.executable, "-m", "converter", "fleet", str(listed), out.address, "--memory", "150MB"]
    command += ["--deadline", f"{deadline:g}", "--ray"]
    with cluster() as rays:
        report, fleet = killed_and_continued([*command, rays.address], out, rays, count)
    print(json.dumps(report, indent=2), flush=True)
    wrong = list(what_is_wrong(fleet, out, names))
    return {"checkpoints": count, "kinds": dict(kinds)} | report | {"wrong": wrong}


def killed_and_continued(
    command: list[str], out: Outdir, rays: Any, count: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Two runs: during the first a raylet is killed after a fifth of them, and the driver after half."""
    began = time.monotonic()
    killed = {}
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as first:
        for what, part in (("raylet", count // 5), ("driver", count // 2)):
            until(lambda part=part: out.noted() >= part, first)  # type: ignore[misc]
            killed[what] = {"after_s": time.monotonic() - began, "noted": out.noted()}
            print(f"{what} killed at {killed[what]['noted']} after {killed[what]['after_s']:.1f} s", flush=True)
            if what == "raylet":
                rays.remove_node(next(iter(rays.worker_nodes)), allow_graceful=False)
        first.kill()
    finished = out.finished()
    began = time.monotonic()
    with subprocess.Popen([*command, "--json"], stdout=subprocess.PIPE) as second:
        watched = Watched(second.pid, rays.address)
        answer = second.communicate()[0]
        watched.stop()
    found = json.loads(answer)
    if "counts" not in found:
        raise SystemExit(f"the second run was refused: {found}")
    print(f"second run: {time.monotonic() - began:.1f} s, {found['counts']}", flush=True)
    report = {
        "killed": killed,
        "second_s": time.monotonic() - began,
        "counts": found["counts"],
        "driver_peak_mb": watched.peak / 1e6,
        "object_stores": {"bytes": watched.stored[0], "objects": watched.stored[1], "samples": watched.samples},
        "done_again": sum(out.finished().get(name) != stamp for name, stamp in finished.items()),
        "attempts": len(out.attempts()),
        "errors": {task["name"]: task["error"] for task in found["tasks"] if task["state"] != "done"},
    }
    return report, found


def what_is_wrong(fleet: dict[str, Any], out: Outdir, names: list[str]) -> Iterator[str]:
    """What is not as it must be, one sentence each."""
    tasks = {str(task["source"]).rpartition("/")[2]: task for task in fleet["tasks"]}
    if sorted(tasks) != sorted(names):
        yield f"the result names {len(tasks)} checkpoints, the list {len(names)}"
    for name, task in tasks.items():
        kind = name.removeprefix("broken-") if name.startswith("broken-") else ""
        if task["state"] != ("failed" if kind else "done"):
            yield f"{name}: {task['state']}: {task['error']}"
        elif kind and (BROKEN[kind][1] not in task["error"] or not task["next"]):
            yield f"{name}: expected the reason {BROKEN[kind][1]!r} and a next step: {task['error']} / {task['next']}"
    counted = Counter(attempt["name"] for attempt in out.attempts())
    if set(counted) != {task["name"] for task in tasks.values()} or set(counted.values()) != {1}:
        yield f"the ledger has not one attempt for each: {[name for name, times in counted.items() if times > 1]}"
    for name, objects in out.folders().items():
        files = json.loads(out.read(f"{name}/conversion.json"))["files"] if "conversion.json" in objects else []
        if objects != {*(file["name"] for file in files), "conversion.json"}:
            yield f"{name}: half of an OUT: {sorted(objects)}"
    made = {task["name"] for task in tasks.values() if task["state"] == "done"}
    if set(out.folders()) != made:
        yield f"OUTs that are not of the result: {sorted(set(out.folders()) ^ made)}"


class Outdir:
    """OUTDIR in the bucket, as this program looks at it."""

    def __init__(self, address: str) -> None:
        import fsspec

        self.address = address
        self._system = fsspec.filesystem("s3", use_listings_cache=False)
        self._root = address.removeprefix("s3://")

    def names(self, under: str = "") -> dict[str, str]:
        """Objects, each with what changes when it is put again."""
        found: dict[str, Any] = {}
        with contextlib.suppress(FileNotFoundError):
            found = self._system.find(f"{self._root}/{under}".rstrip("/"), detail=True)
        return {name.removeprefix(f"{self._root}/"): str(held["LastModified"]) for name, held in found.items()}

    def read(self, name: str) -> bytes:
        """An object."""
        found: bytes = self._system.cat_file(f"{self._root}/{name}")
        return found

    def noted(self) -> int:
        """How many attempts the ledger has."""
        return len(self._entries())

    def attempts(self) -> list[dict[str, Any]]:
        """The attempts in the ledger."""
        return [json.loads(self.read(name)) for name in self._entries()]

    def _entries(self) -> list[str]:
        return [name for name in self.names("fleet-ledger") if not name.endswith("/fleet-run.json")]

    def finished(self) -> dict[str, str]:
        """Manifests of OUTs, each with what changes when it is put again."""
        return {name: stamp for name, stamp in self.names().items() if name.endswith("/conversion.json")}

    def folders(self) -> dict[str, set[str]]:
        """OUTs, and what each holds."""
        found: dict[str, set[str]] = {}
        for name in self.names():
            folder, _, rest = name.partition("/")
            if rest and not folder.startswith("fleet-"):
                found.setdefault(folder, set()).add(rest)
        return found


class Watched:
    """The memory of a driver, and what Ray's object stores hold, while it runs."""

    def __init__(self, process: int, address: str) -> None:
        self._process, self._address = process, address
        self._ended = threading.Event()
        self.peak, self.samples, self.stored = 0, 0, (0, 0)
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def stop(self) -> None:
        """Ends it."""
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        import ray
        from ray._private.internal_api import memory_summary

        ray.init(address=self._address, log_to_driver=False, logging_level="ERROR")
        while True:
            ended = self._ended.wait(1.0)
            with contextlib.suppress(OSError, TypeError):
                said = Path(f"/proc/{self._process}/status").read_text("ascii", "replace")
                self.peak = max(self.peak, 1024 * int(re.search(r"VmHWM:\s+(\d+)", said)[1]))  # type: ignore[index]
            held = _PLASMA.search(memory_summary(stats_only=True))
            assert held is not None
            self.stored = max(self.stored, (int(held[1]) * 2**20, int(held[2])))
            self.samples += 1
            if ended:
                break
        ray.shutdown()


@contextlib.contextmanager
def cluster() -> Iterator[Any]:
    """A head without processors, and three nodes of one."""
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 0, "object_store_memory": STORE, "_system_config": _QUICK}
    made = Cluster(initialize_head=True, head_node_args=head)
    try:
        for _ in range(NODES):
            made.add_node(num_cpus=1, object_store_memory=STORE, resources={"disk": 10, "network": 2})
        yield made
    finally:
        made.shutdown()


def until(holds: Callable[[], bool], driver: subprocess.Popen[bytes]) -> None:
    """Waits; the driver must not end meanwhile."""
    while not holds():
        if driver.poll() is not None:
            raise SystemExit(f"the run ended too early, with status {driver.returncode}")
        time.sleep(0.1)


def upload(models: Path) -> list[str]:
    """Puts every folder into the bucket; their names."""
    import fsspec

    system = fsspec.filesystem("s3", use_listings_cache=False)
    system.mkdir(BUCKET)
    for path in sorted(models.rglob("*")):
        if path.is_file():
            system.pipe_file(f"{BUCKET}/models/{path.relative_to(models).as_posix()}", path.read_bytes())
    names = sorted(path.name for path in models.iterdir())
    shutil.rmtree(models)
    return names


@contextlib.contextmanager
def s3_server() -> Iterator[dict[str, str]]:
    """A server of S3's protocol on loopback, in a process of its own; what its clients find in their environment."""
    with contextlib.closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-W", "ignore", __file__, "--serve", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while True:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{address}/moto-api/", timeout=5).close()
                break
            if server.poll() is not None:
                raise SystemExit("the S3 server ended; install moto[server] and s3fs")
            time.sleep(0.1)
        key = {"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "of-no-value"}
        yield {"AWS_ENDPOINT_URL": address, "AWS_DEFAULT_REGION": "us-east-1", **key}
    finally:
        server.kill()
        server.wait()


def serve(port: int) -> None:
    """A server of moto's, which never answers if somebody gets the weights of one checkpoint."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
    from werkzeug.serving import run_simple

    served = DomainDispatcherApplication(create_backend_app)

    def hanging(environ: dict[str, Any], start: Any) -> Any:
        if environ["REQUEST_METHOD"] == "GET" and f"{HANGING}/model.safetensors" in environ["PATH_INFO"]:
            time.sleep(10**6)
        return served(environ, start)

    run_simple("127.0.0.1", port, hanging, threaded=True, request_handler=MotoRequestHandler)


if __name__ == "__main__":
    main()

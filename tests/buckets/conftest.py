"""Buckets of tests: fsspec's own memory, and a real S3 server on loopback, started once. Ranges that are read are recorded."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from converter.folder.addresses import Address
from tests.cli.conftest import convert as convert  # a fixture
from tests.tiny import FIXTURE

_NUMBERS = itertools.count()
_SECONDS = 60
_NEEDED = {"s3": ("s3fs", "moto"), "memory": ("fsspec",)}


@pytest.fixture(scope="session")
def s3_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """moto's server in a process of its own, which speaks S3's protocol."""
    with contextlib.closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("moto") / "log"
    with log.open("wb") as output:
        command = [sys.executable, "-W", "ignore", "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        server = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        until = time.monotonic() + _SECONDS
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/moto-api/", timeout=5).close()
                break
            except OSError:
                assert server.poll() is None and time.monotonic() < until, log.read_text()
                time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.kill()
        server.wait()


@pytest.fixture(params=["memory", "s3"])
def bucket(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Address:
    """An empty bucket, of each kind."""
    scheme = request.param
    missing = [name for name in _NEEDED[scheme] if find_spec(name) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} is not installed (extra `cloud`, and `dev` for moto)")
    return request.getfixturevalue(f"{scheme}_bucket")


@pytest.fixture
def memory_bucket() -> Iterator[Address]:
    """A bucket in the memory of this process."""
    fsspec = pytest.importorskip("fsspec", reason="fsspec is not installed (extra `cloud`)")
    name = f"bucket-{next(_NUMBERS)}"
    fsspec.filesystem("memory").makedirs(f"/{name}")
    yield Address(f"memory://{name}")
    fsspec.filesystem("memory").store.clear()


@pytest.fixture
def s3_bucket(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Address:
    """A bucket of the S3 server; its address and credentials are where boto looks for them."""
    fsspec = pytest.importorskip("fsspec")
    for name, value in {
        "AWS_ENDPOINT_URL": s3_endpoint,
        "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "a-secret-that-nobody-may-see",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    name = f"bucket-{os.getpid()}-{next(_NUMBERS)}"
    fsspec.filesystem("s3", use_listings_cache=False).mkdir(name)
    return Address(f"s3://{name}")


class Bucket:
    """What a test does in a bucket beside the converter."""

    def __init__(self, address: Address) -> None:
        import fsspec

        self.system = fsspec.filesystem(address.scheme, use_listings_cache=False)
        self.root = f"{address.bucket}"

    def put(self, key: str, data: bytes) -> None:
        self.system.pipe_file(f"{self.root}/{key}", data)

    def put_folder(self, key: str, folder: Path) -> None:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                self.put(f"{key}/{path.relative_to(folder).as_posix()}", path.read_bytes())

    def files(self, key: str) -> dict[str, bytes]:
        try:
            names = self.system.find(f"{self.root}/{key}")
        except FileNotFoundError:
            return {}
        found = {name.lstrip("/").removeprefix(f"{self.root}/{key}/"): name for name in names}
        return {name: self.system.cat_file(path) for name, path in sorted(found.items())}

    def remove(self, key: str) -> None:
        self.system.rm_file(f"{self.root}/{key}")


@pytest.fixture
def held(bucket: Address) -> Bucket:
    return Bucket(bucket)


@pytest.fixture
def source(bucket: Address, held: Bucket) -> Address:
    """The shipped checkpoint, in the bucket."""
    held.put_folder("models/tiny", FIXTURE)
    return bucket / "models" / "tiny"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Every range that is read: of which object, and how many bytes."""
    from converter.buckets.stores import Store

    seen: list[tuple[str, int]] = []
    read: Callable[..., bytes] = Store.read

    def noting(self: Any, name: str, start: int, nbytes: int) -> bytes:
        seen.append((name, nbytes))
        return read(self, name, start, nbytes)

    monkeypatch.setattr(Store, "read", noting)
    return seen

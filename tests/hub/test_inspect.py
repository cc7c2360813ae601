"""inspect of a model on the Hub: headers by range request, no weights downloaded, the same checks as of files."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from converter import inspect, pt2tf, tf2pt
from converter.checkpoints.detect import read_header
from converter.checkpoints.remote import BLOCK_BYTES, RemoteFile
from converter.errors import ConverterError, CorruptCheckpoint, HubError, SourceError, UnsupportedContainer
from converter.hub import ranges
from tests.cli.conftest import Convert
from tests.hub.conftest import ID, fetched, files_of
from tests.hub.loopback import Answer, Hub
from tests.tiny import EXPECTED, FIXTURE, config_of, tensors_of, write_checkpoint

WIDE = config_of(
    vision_fields={"hidden_size": 64, "intermediate_size": 512}, text_fields={"hidden_size": 64, "vocab_size": 20_000}
)


def containers(tmp_path: Path) -> dict[str, Path]:
    """One checkpoint of some megabytes in every container."""
    made = {"pt": write_checkpoint(tmp_path / "pt", WIDE, tensors_of(WIDE))}
    for name, options in {
        "h5": {}, "tf": {"format": "safetensors"}, "h5-shards": {"max_shard_size": "1MB"},
    }.items():  # fmt: skip
        made[name] = pt2tf(made["pt"], tmp_path / name, **options).out  # type: ignore[arg-type]
    for name, options in {"bin": {"format": "bin"}, "pt-shards": {"max_shard_size": "1MB"}}.items():
        made[name] = tf2pt(made["h5"], tmp_path / name, **options).out  # type: ignore[arg-type]
    return made


def test_every_container_as_if_it_were_here(hub: Hub, tmp_path: Path) -> None:
    for name, folder in containers(tmp_path).items():
        repository = f"org/{name}"
        files = files_of(folder)
        hub.add(repository, files)
        hub.requests.clear()
        far, near = inspect(repository), inspect(folder)
        assert far.commit == hub.repositories[repository].refs["main"]
        assert near.commit is None
        assert vars(far) | {"source": "", "commit": ""} == vars(near) | {"source": "", "commit": ""}, name
        assert far.problem is None
        assert fetched(hub) <= {"config.json", "model.safetensors.index.json", "tf_model.h5.index.json"}, name
        ranges = [request.range for request in hub.asked("GET /cdn/")]
        assert None not in ranges
        asked = sum(_length(asked) for asked in ranges if asked)
        size = sum(len(content) for name, content in files.items() if "model" in name and "json" not in name)
        assert asked < size / (1 if "shards" in name else 4), (name, asked, size)
        assert not list((tmp_path / "cache").rglob("*.safetensors"))


def _length(asked: str) -> int:
    start, stop = asked.removeprefix("bytes=").split("-")
    return int(stop) - int(start) + 1


def test_what_transformers_wrote(hub: Hub) -> None:
    hub.add(ID, {**files_of(FIXTURE, "config.json"), "tf_model.h5": (EXPECTED / "tf_model.h5").read_bytes()})
    assert inspect(ID).tensors == inspect(EXPECTED).tensors


def test_at_a_revision(hub: Hub, published: str, convert: Convert) -> None:
    commit = hub.repositories[ID].refs["v1"] = hub.repositories[ID].refs["main"]
    hub.repositories[ID].commit({"config.json": b"{}"})
    done = convert("inspect", ID, "--revision", "v1")
    assert (done.status, done.err) == (0, "")
    assert done.out.startswith(f"{ID} (commit {commit[:12]}): can be converted\n")
    assert done.out.endswith(f"\nnext: convert pt2tf {ID} OUT --revision v1\n")
    assert json.loads(convert("inspect", f"{ID}@v1", "--json").out)["commit"] == commit
    assert "CANNOT be converted" in convert("inspect", ID).out


def test_what_is_in_the_cache_is_read_there(hub: Hub, published: str, tmp_path: Path, offline: Any) -> None:
    pt2tf(ID, tmp_path / "tf")
    hub.requests.clear()
    inspect(ID)
    assert not hub.asked("GET /cdn/")
    offline()
    assert inspect(ID).tensors == inspect(FIXTURE).tensors


# --- what goes wrong ----------------------------------------------------------------------------------------------


def refused(hub: Hub, name: str, content: bytes) -> ConverterError:
    hub.add(ID, files_of(FIXTURE, "config.json") | {name: content})
    with pytest.raises(ConverterError) as caught:
        inspect(ID)
    assert fetched(hub) == {"config.json"}
    return caught.value


def test_damaged_headers(hub: Hub) -> None:
    weights = (FIXTURE / "model.safetensors").read_bytes()
    error = refused(hub, "model.safetensors", weights[:-1])
    commit = hub.repositories[ID].refs["main"][:12]
    assert isinstance(error, CorruptCheckpoint)
    assert str(error).startswith(f"{ID}@{commit}/model.safetensors: not a valid safetensors file: it is truncated: ")
    assert isinstance(refused(hub, "model.safetensors", (2**62).to_bytes(8, "little") + b"{}"), CorruptCheckpoint)
    assert isinstance(refused(hub, "model.safetensors", b"ab"), ConverterError)


def test_damaged_hdf5(hub: Hub) -> None:
    content = bytearray((EXPECTED / "tf_model.h5").read_bytes())
    error = refused(hub, "tf_model.h5", bytes(content[: len(content) // 2]))
    assert isinstance(error, CorruptCheckpoint)
    assert "not a valid tf_model.h5: " in str(error) or "HDF5 cannot open it" in str(error)


def test_old_pickles_have_no_header(hub: Hub) -> None:
    magic = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."
    error = refused(hub, "pytorch_model.bin", magic + bytes(100))
    commit = hub.repositories[ID].refs["main"][:12]
    assert isinstance(error, UnsupportedContainer)
    assert str(error) == (
        f"{ID}@{commit}/pytorch_model.bin: a PyTorch pickle from before torch 1.6, whose header cannot be read "
        "remotely; download it and name its folder"
    )


def test_a_hub_that_serves_no_ranges(hub: Hub, published: str) -> None:
    """The whole of a large file is not taken for a part of it."""
    hub.ranges = False
    with pytest.raises(HubError) as caught:
        inspect(ID)
    assert str(caught.value) == (
        f"{ID}/model.safetensors: the Hub does not serve ranges of it; download the model and name its folder"
    )


def test_a_part_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """No more than the requested bytes are taken, however many are sent."""
    taken: list[int] = []

    class Endless:
        status_code = 206

        def iter_bytes(self) -> Iterator[bytes]:
            for number in range(100):
                taken.append(number)
                yield bytes(1000)

    monkeypatch.setattr(ranges, "_streamed", lambda *_: contextlib.nullcontext(Endless()))
    with pytest.raises(HubError, match="a/b: the Hub sent another range than requested; run this again"):
        ranges._read_range("a/b", "http://127.0.0.1:9", 0, 2500)
    assert taken == [0, 1, 2]


@pytest.mark.parametrize("name", ["model.safetensors", "tf_model.h5", "pytorch_model.bin"])
def test_a_hub_that_fails_is_no_damaged_file(hub: Hub, tmp_path: Path, name: str) -> None:
    folder = {"model.safetensors": FIXTURE, "tf_model.h5": EXPECTED}.get(name)
    if folder is None:
        folder = tf2pt(pt2tf(FIXTURE, tmp_path / "tf").out, tmp_path / "bin", format="bin").out
    hub.add(ID, files_of(FIXTURE, "config.json") | files_of(folder, name))
    hub.fail("GET /cdn/", *[Answer(503)] * 99)
    with pytest.raises(HubError, match=r"the Hub reports an error \(503\)"):
        inspect(ID)
    hub.faults.clear()
    hub.fail("GET /cdn/", *[Answer(206, b"short")] * 99)
    with pytest.raises(HubError, match="another range than requested"):
        inspect(ID)
    hub.faults.clear()
    hub.repositories[ID].gated = True
    with pytest.raises(HubError, match="gated"):
        inspect(ID)


def test_a_header_all_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is fetched is limited, however a file spreads its header."""
    monkeypatch.setattr("converter.checkpoints.remote.MAX_FETCHED_BYTES", 4 * BLOCK_BYTES)
    path = tmp_path / "tf_model.h5"
    with h5py.File(path, "w") as file:
        for number in range(60):
            file.create_dataset(f"x{number}:0", data=np.zeros(BLOCK_BYTES // 2, np.float32))
        file.attrs["layer_names"] = np.array([f"x{number}:0".encode() for number in range(60)])
    assert len(read_header(path).tensors) == 60
    content = path.read_bytes()
    fetches: list[int] = []

    def fetch(start: int, nbytes: int) -> bytes:
        fetches.append(nbytes)
        return content[start : start + nbytes]

    remote = RemoteFile("a/b", len(content), fetch)
    with pytest.raises(ConverterError):
        read_header(remote)
    assert isinstance(remote.failure, SourceError)
    assert str(remote.failure) == (
        f"a/b: its header spans more than {4 * BLOCK_BYTES:,} bytes, too many to read remotely; download it "
        "and name its folder"
    )
    assert sum(fetches) <= 4 * BLOCK_BYTES


def test_a_remote_file_reads_like_a_file(tmp_path: Path) -> None:
    content = np.random.default_rng(1).integers(0, 256, 3 * BLOCK_BYTES + 17, np.uint8).tobytes()
    (tmp_path / "x").write_bytes(content)
    remote = RemoteFile("a/b/x", len(content), lambda start, nbytes: content[start : start + nbytes])
    assert (remote.name, str(remote.parent), str(remote)) == ("x", "a/b", "a/b/x")
    assert remote.is_file()
    assert remote.stat().st_size == len(content)
    with remote.open("rb") as ours, (tmp_path / "x").open("rb") as theirs:
        for offset, whence, count in (
            (0, 0, 5),
            (BLOCK_BYTES - 3, 0, 10),
            (7, 1, 2 * BLOCK_BYTES),
            (-9, 2, 99),
            (0, 2, 1),
        ):
            assert ours.seek(offset, whence) == theirs.seek(offset, whence)
            assert ours.read(count) == theirs.read(count)
    with pytest.raises(ValueError, match="opened with 'rb'"):
        remote.open("wb")

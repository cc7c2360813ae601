"""A bucket as OUT: the manifest last, what is ours replaced, what is not left alone; and killed between any two puts."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest

from converter import combine, convert, inspect, pt2tf, tf2pt, verify
from converter.buckets.marker import NAME as MARKER
from converter.buckets.stores import Store
from converter.errors import BucketError, SourceError, TargetError
from converter.folder.addresses import Address
from tests.buckets.conftest import Bucket
from tests.cli.conftest import Convert
from tests.tiny import FIXTURE

pytest.importorskip("fsspec", reason="fsspec is not installed (extra `cloud`)")
MANIFEST = "conversion.json"


class Killed(BaseException):
    """Nothing that runs afterwards is told of it."""


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What a conversion makes on a disk."""
    out = tmp_path_factory.mktemp("made") / "tf"
    pt2tf(FIXTURE, out)
    return files_of(out)


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name != MANIFEST}


def but_manifest(files: dict[str, bytes]) -> dict[str, bytes]:
    assert MANIFEST in files
    return {name: data for name, data in files.items() if name != MANIFEST}


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every write and removal, in order."""
    seen: list[str] = []
    for method in ("put", "put_new", "remove"):
        real = getattr(Store, method)

        def noting(self: Any, name: str, *rest: Any, _real: Any = real, _method: str = method) -> Any:
            seen.append(f"{_method} {name}")
            return _real(self, name, *rest)

        monkeypatch.setattr(Store, method, noting)
    return seen


def test_out_is_what_it_is_on_a_disk(bucket: Address, held: Bucket, made: dict[str, bytes], writes: list[str]) -> None:
    result = pt2tf(FIXTURE, f"{bucket}/a/tf")
    assert str(result.out) == f"{bucket}/a/tf" and str(result.out / result.weights) == f"{bucket}/a/tf/tf_model.h5"
    assert but_manifest(held.files("a/tf")) == made
    assert json.loads(held.files("a/tf")[MANIFEST])["source"]["path"] == str(FIXTURE)
    assert writes[0] == f"put_new {MARKER}" and writes[-2:] == [f"put_new {MANIFEST}", f"remove {MARKER}"]
    assert inspect(f"{bucket}/a/tf").problem is None


def test_from_bucket_to_bucket_and_back(source: Address, bucket: Address, held: Bucket, convert: Convert) -> None:
    run = convert("pt2tf", source, f"{bucket}/tf")
    assert run.status == 0 and run.out.startswith(f"{source} -> {bucket}/tf/tf_model.h5: matches its source")
    assert f"next: convert verify {bucket}/tf" in run.out
    assert convert("tf2pt", f"{bucket}/tf", f"{bucket}/pt").status == 0
    assert held.files("pt")["model.safetensors"] == held.files("models/tiny")["model.safetensors"]


def test_a_checkpoint_is_not_replaced_unless_asked(bucket: Address, held: Bucket, made: dict[str, bytes]) -> None:
    pt2tf(FIXTURE, f"{bucket}/out", max_shard_size="100KB")
    held.put("out/NOTES.md", b"mine")
    held.put("out/logs/1", b"mine, too")
    before = held.files("out")
    with pytest.raises(
        TargetError, match=f"^{bucket}/out: exists already .*; choose another OUT, or replace its checkpoint"
    ):
        pt2tf(FIXTURE, f"{bucket}/out")
    assert held.files("out") == before
    planned = pt2tf(FIXTURE, f"{bucket}/out", overwrite=True, dry_run=True)
    assert held.files("out") == before and MANIFEST in planned.replaced and planned.kept == 2
    done = pt2tf(FIXTURE, f"{bucket}/out", overwrite=True)
    assert set(done.replaced) == set(before) - {"NOTES.md", "logs/1"} and done.kept == 2
    assert but_manifest(held.files("out")) == {**made, "NOTES.md": b"mine", "logs/1": b"mine, too"}


def test_what_no_manifest_names_stays(bucket: Address, held: Bucket) -> None:
    held.put_folder("out", FIXTURE)
    with pytest.raises(TargetError, match="exists already"):
        pt2tf(FIXTURE, f"{bucket}/out")
    with pytest.raises(TargetError, match=r"holds model.safetensors, which no conversion.json names, so they stay"):
        pt2tf(FIXTURE, f"{bucket}/out", overwrite=True)
    assert held.files("out") == files_of(FIXTURE)
    held.put("other/tokenizer.json", b"{}")
    with pytest.raises(TargetError, match=r"exists already \(tokenizer.json\)"):
        pt2tf(FIXTURE, f"{bucket}/other")


def test_a_manifest_that_is_not_ours(bucket: Address, held: Bucket) -> None:
    held.put(f"out/{MANIFEST}", b'{"format": 2, "files": [{"name": "../x"}]}')
    with pytest.raises(TargetError, match=r"holds a conversion.json that is not ours"):
        pt2tf(FIXTURE, f"{bucket}/out", overwrite=True)


@pytest.mark.parametrize("where", ["models/tiny", "models/tiny/out", "models"])
def test_out_in_its_source(source: Address, bucket: Address, where: str) -> None:
    with pytest.raises(TargetError, match="shares a folder with the source"):
        pt2tf(source, f"{bucket}/{where}", overwrite=True)


def test_combined_and_saved(bucket: Address, held: Bucket, tmp_path: Path) -> None:
    combine(FIXTURE, FIXTURE, f"{bucket}/both")
    combine(FIXTURE, FIXTURE, tmp_path / "both")
    assert but_manifest(held.files("both")) == files_of(tmp_path / "both")


def test_weights_are_verified(source: Address, bucket: Address, held: Bucket, convert: Convert) -> None:
    pt2tf(source, f"{bucket}/tf")
    found = verify(f"{bucket}/tf", weights_only=True, reference=str(source))
    assert found.passed and str(found.folder) == f"{bucket}/tf"
    unsaid = verify(f"{bucket}/tf", weights_only=True)
    assert unsaid.status == "passed"  # by the hashes that the manifest keeps
    data = bytearray(held.files("tf")["tf_model.h5"])
    data[-1] ^= 1
    held.put("tf/tf_model.h5", bytes(data))
    run = convert("verify", f"{bucket}/tf", "--weights-only", "--reference", source)
    assert run.status == 1 and f"{bucket}/tf" in run.out and "scratch" not in run.out
    held.remove("tf/tf_model.h5")
    with pytest.raises(SourceError, match=r"conversion.json names tf_model.h5, which the bucket does not hold"):
        verify(f"{bucket}/tf", weights_only=True)


# --- killed, and two at once ------------------------------------------------------------------------------------------


def dies_before(monkeypatch: pytest.MonkeyPatch, number: int) -> list[str]:
    """Ends the run in place of its write or removal of this number; gives what was done before."""
    done: list[str] = []
    for method in ("put", "put_new", "remove"):
        real = getattr(Store, method)

        def dying(self: Any, name: str, *rest: Any, _real: Any = real) -> Any:
            if len(done) == number:
                raise Killed
            done.append(name)
            return _real(self, name, *rest)

        monkeypatch.setattr(Store, method, dying)
    return done


@pytest.mark.parametrize("overwrite", [False, True])
def test_killed_between_any_two_writes(bucket: Address, held: Bucket, made: dict[str, bytes], overwrite: bool) -> None:
    # A server answers as memory does, and takes ten times as long.
    for number in range(40) if bucket.scheme == "memory" else (0, 2, 4, 40):
        out = f"run-{number}"
        held.put(f"{out}/NOTES.md", b"mine")
        if overwrite:
            convert(FIXTURE, f"{bucket}/{out}", "pt", max_shard_size="200KB")
        before = held.files(out)
        with pytest.MonkeyPatch.context() as patch:
            dies_before(patch, number)
            try:
                pt2tf(FIXTURE, f"{bucket}/{out}", overwrite=overwrite)
                break
            except Killed:
                pass
        left = held.files(out)
        whole = MANIFEST in left
        if whole:  # all of the old, or all of the new
            assert but_manifest(left).keys() - {MARKER} in (
                but_manifest(before).keys() if overwrite else set(),
                {*made, "NOTES.md"},
            )
            assert verify(f"{bucket}/{out}", weights_only=True).passed
        elif MARKER in left:
            with pytest.raises(SourceError, match="a conversion is being put there, or was interrupted"):
                inspect(f"{bucket}/{out}")
        pt2tf(FIXTURE, f"{bucket}/{out}", overwrite=overwrite or whole)
        assert but_manifest(held.files(out)) == {**made, "NOTES.md": b"mine"}
    else:
        pytest.fail("it never ended")
    assert number >= 6 + 4 * overwrite, "it died nowhere"


def test_an_upload_that_is_taken_over(bucket: Address, held: Bucket, made: dict[str, bytes]) -> None:
    """A run that another one takes for dead, while it waits between two of its puts."""
    put = Store.put
    others: list[str] = []

    def then_another(self: Any, name: str, data: Any) -> None:
        put(self, name, data)
        if not others:
            others.append(name)
            pt2tf(FIXTURE, f"{bucket}/out", dtype="float16")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Store, "put", then_another)
        with pytest.raises(
            TargetError, match="another run is writing to it; wait until it ends, or choose another OUT"
        ):
            pt2tf(FIXTURE, f"{bucket}/out")
    assert verify(f"{bucket}/out", weights_only=True).passed
    assert json.loads(held.files("out")[MANIFEST])["options"]["dtype"] == "float16"


def test_a_file_that_another_run_replaces(bucket: Address, held: Bucket) -> None:
    put_new = Store.put
    done: list[str] = []

    def then_write(self: Any, name: str, data: Any) -> None:
        put_new(self, name, data)
        done.append(name)
        if len(done) == 2:
            held.put(f"out/{done[0]}", b"something else")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Store, "put", then_write)
        with pytest.raises(TargetError, match="another run is writing to it"):
            pt2tf(FIXTURE, f"{bucket}/out")
    assert MANIFEST not in held.files("out")


def test_a_manifest_that_another_run_puts_first(bucket: Address, held: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    put_new = Store.put_new

    def too_late(self: Any, name: str, data: bytes) -> bool:
        if name == MANIFEST:
            held.put(f"out/{MANIFEST}", b"theirs")
        return put_new(self, name, data)

    monkeypatch.setattr(Store, "put_new", too_late)
    with pytest.raises(TargetError, match="another run is writing to it"):
        pt2tf(FIXTURE, f"{bucket}/out")
    assert held.files("out")[MANIFEST] == b"theirs"


@pytest.mark.parametrize("bucket", ["memory"], indirect=True)
@pytest.mark.parametrize(
    "raw",
    [
        b"no JSON",
        b"[]",
        b'{"format": 1}',
        b'{"format": 1, "address": "s3://elsewhere", "owner": "x", "files": ["NOTES.md"], "stale": []}',
        b'{"format": 1, "address": "ADDRESS", "owner": "x", "files": ["../NOTES.md"], "stale": []}',
        b'{"format": 1, "address": "ADDRESS", "owner": "x", "files": [], "stale": [".git"]}',
        b'{"format": 1, "address": "ADDRESS", "owner": "x", "files": [7], "stale": []}',
        b'{"format": 1, "address": "ADDRESS", "owner": "x", "files": {}, "stale": []}',
        b'{"format": 1, "address": "ADDRESS", "owner": 7, "files": [], "stale": []}',
    ],
    ids=["no JSON", "a list", "too little", "elsewhere", "upwards", "hidden", "a number", "a dict", "an owner"],
)
def test_a_marker_that_no_upload_wrote(bucket: Address, held: Bucket, raw: bytes) -> None:
    held.put("out/NOTES.md", b"mine")
    held.put(f"out/{MARKER}", raw.replace(b"ADDRESS", f"{bucket}/out".encode()))
    before = held.files("out")
    with pytest.raises(TargetError, match=f"holds a {MARKER} that no upload wrote there"):
        pt2tf(FIXTURE, f"{bucket}/out", overwrite=True)
    assert held.files("out") == before


def test_a_marker_of_gigabytes(bucket: Address, held: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("converter.buckets.marker.MAX_MARKER_BYTES", 100)
    held.put(f"out/{MARKER}", b" " * 101)
    with pytest.raises(BucketError, match="101 bytes, too many for such an object; remove it"):
        pt2tf(FIXTURE, f"{bucket}/out")


def test_a_refused_conversion_puts_nothing(bucket: Address, held: Bucket) -> None:
    with pytest.raises(TargetError):
        tf2pt(FIXTURE, f"{bucket}/out", sha256=True, check=False)
    held.put_folder("bad", FIXTURE)
    held.put("bad/model.safetensors", b"\xff" * 400)
    with pytest.raises(SourceError):
        pt2tf(f"{bucket}/bad", f"{bucket}/out")
    assert held.files("out") == {}

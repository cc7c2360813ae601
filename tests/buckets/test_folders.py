"""Exports and references in a bucket: the file that makes one whole is put last, and what is fetched of it."""

from __future__ import annotations

import copy
import hashlib
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from converter import export, record_reference, verify, verify_export
from converter.buckets.folders import check_new, put_folder
from converter.buckets.marker import NAME as MARKER
from converter.buckets.stores import Store
from converter.errors import OptionError, ParityError, SourceError, TargetError
from converter.exporting.in_buckets import brought, placed
from converter.folder.addresses import Address
from converter.parity.in_buckets import record_into
from converter.parity.runners.golden import read_recording, write_recording
from tests.buckets.conftest import Bucket
from tests.buckets.test_targets import Killed, dies_before
from tests.cli.conftest import Convert
from tests.exporting.test_manifest import PLAIN
from tests.parity.test_golden import recording, taps
from tests.tiny import FIXTURE

pytest.importorskip("fsspec", reason="fsspec is not installed (extra `cloud`)")
MEMORY = pytest.mark.parametrize("bucket", ["memory"], indirect=True)
FILES = {"README.md": b"read", "saved_model/saved_model.pb": b"graph", "saved_model/variables/variables.index": b"i"}


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield
    assert list(folder.iterdir()) == []


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """An export's files, as far as placing them goes."""
    for name, data in {**FILES, "export.json": b"{}"}.items():
        (tmp_path / "made" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "made" / name).write_bytes(data)
    return tmp_path / "made"


def test_killed_between_any_two_writes(bucket: Address, held: Bucket, made: Path) -> None:
    for number in range(12) if bucket.scheme == "memory" else (2, 12):
        out = bucket / f"out-{number}"
        with pytest.MonkeyPatch.context() as patch:
            done = dies_before(patch, number)
            try:
                put_folder(out, made, "export.json")
                break
            except Killed:
                pass
        assert ("export.json" in held.files(out.name)) == ("export.json" in done)
        if "export.json" in done:
            with pytest.raises(TargetError, match=r"exists already \(.*\); choose another folder"):
                check_new(out, "export.json")
            continue
        held.put(f"{out.name}/NOTES.md", b"mine")
        with pytest.raises(TargetError, match=r"exists already \(NOTES.md\); choose another folder"):
            put_folder(out, made, "export.json")
        held.remove(f"{out.name}/NOTES.md")
        put_folder(out, made, "export.json")
        assert held.files(out.name) == {**FILES, "export.json": b"{}"}
    else:
        pytest.fail("it never ended")
    assert len(done) == 3 + len(FILES) and done[0] == MARKER and done[-2:] == ["export.json", MARKER]


@MEMORY
def test_an_upload_that_is_taken_over(
    bucket: Address, held: Bucket, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = Store.put

    def then_another(self: Any, name: str, data: Any) -> None:
        put(self, name, data)
        held.put(f"out/{MARKER}", held.files("out")[MARKER].replace(b'"owner": "', b'"owner": "x'))

    monkeypatch.setattr(Store, "put", then_another)
    with pytest.raises(TargetError, match="another run is writing to it"):
        put_folder(bucket / "out", made, "export.json")
    assert "export.json" not in held.files("out")


@MEMORY
@pytest.mark.parametrize("name", ["../NOTES.md", "a/../../x", ".git", "a/.git/x", "/x", "a//b", "/".join("a" * 9), 7])
def test_a_marker_that_no_upload_wrote(bucket: Address, held: Bucket, made: Path, name: object) -> None:
    said = {"format": 1, "address": f"{bucket}/out", "owner": "x", "files": [name], "stale": []}
    held.put(f"out/{MARKER}", json.dumps(said).encode())
    with pytest.raises(TargetError, match=f"holds a {MARKER} that no upload wrote there"):
        put_folder(bucket / "out", made, "export.json")


def test_an_export_is_placed_and_fetched(
    bucket: Address, held: Bucket, convert: Convert, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Verified where it is fetched to; in words that name the bucket."""
    raw = copy.deepcopy(PLAIN)
    with placed(f"{bucket}/app", FIXTURE) as out:
        for name, data in {"saved_model/saved_model.pb": b"graph", "reference.safetensors": b"golden"}.items():
            entry = raw["golden"] if name.startswith("ref") else raw["exports"][0]["files"][0]
            entry |= {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            (out / name).write_bytes(data)
        (out / "export.json").write_text(json.dumps(raw))
        assert held.files("app") == {}
    assert set(held.files("app")) == {"saved_model/saved_model.pb", "reference.safetensors", "export.json"}
    held.put("app/saved_model/saved_model.pb", b"grapH")
    found = verify_export(f"{bucket}/app")
    assert str(found.folder) == f"{bucket}/app" and found.status == "failed"
    assert "saved_model/saved_model.pb: sha256 differs" in found.findings[0].problems[0]
    held.remove("app/saved_model/saved_model.pb")
    run = convert("verify", f"{bucket}/app")
    assert run.status == 1 and "saved_model/saved_model.pb: not found; copy the whole folder" in run.out
    assert f"{bucket}/app" in run.out and "scratch" not in run.out + run.err
    with pytest.raises(SourceError, match="none: holds no export.json; name a folder that `convert export` made"):
        verify_export(f"{bucket}/none")
    with pytest.raises(TargetError, match=f"{bucket}/app: exists already"):
        export(FIXTURE, f"{bucket}/app")
    held.put_folder("src", FIXTURE)
    with pytest.raises(TargetError, match="shares a folder with the source"):
        export(f"{bucket}/src", f"{bucket}/src/app")


@MEMORY
def test_a_failed_export_puts_nothing(bucket: Address, held: Bucket) -> None:
    with pytest.raises(SourceError, match="^it failed at memory://"), placed(f"{bucket}/app", FIXTURE) as out:
        out.mkdir()
        raise SourceError(f"it failed at {out}")
    assert held.files("app") == {}


def test_samples_in_a_bucket(bucket: Address, held: Bucket) -> None:
    held.put("samples/texts.txt", b"a cat\n")
    held.put("samples/cat.png", b"x")
    held.put("golden.safetensors", b"y")
    with brought(f"{bucket}/samples") as folder, brought(f"{bucket}/golden.safetensors") as file:
        assert folder is not None and file is not None
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == {"texts.txt": b"a cat\n", "cat.png": b"x"}
        assert file.read_bytes() == b"y"
    said = "none: not found; name a golden reference file or a folder"
    with pytest.raises(OptionError, match=said), brought(f"{bucket}/none"):
        pass
    with brought(None) as nothing, brought(FIXTURE) as local:
        assert (nothing, local) == (None, FIXTURE)


def test_a_reference_is_recorded_into_a_bucket(bucket: Address, held: Bucket, tmp_path: Path) -> None:
    out = bucket / "refs" / "golden.safetensors"
    record_into(out, lambda path: write_recording(recording(taps()), path))
    (tmp_path / "x.safetensors").write_bytes(held.files("refs")["golden.safetensors"])
    assert len(read_recording(tmp_path / "x.safetensors").batches) == len(recording(taps()).batches)
    with pytest.raises(ParityError, match=f"{out}: exists already; choose another name"):
        record_reference(FIXTURE, str(out))
    with pytest.raises(OptionError, match=f"^{bucket}/golden.npz: the name of a golden reference file ends in"):
        record_reference(FIXTURE, f"{bucket}/golden.npz")


@MEMORY
@pytest.mark.torture
@pytest.mark.torch
@pytest.mark.tf
def test_all_of_it(bucket: Address, held: Bucket) -> None:
    """With real frameworks: recorded, verified by that, exported and verified again, each of it in the bucket."""
    from converter import pt2tf

    held.put_folder("src", FIXTURE)
    record_reference(f"{bucket}/src", f"{bucket}/golden.safetensors")
    pt2tf(f"{bucket}/src", f"{bucket}/tf")
    assert verify(f"{bucket}/tf", reference=f"{bucket}/golden.safetensors").passed
    found = export(f"{bucket}/src", f"{bucket}/app", reference=f"{bucket}/golden.safetensors")
    assert str(found.folder) == f"{bucket}/app"
    assert {"export.json", "README.md", "reference.safetensors"} < set(held.files("app"))
    assert MARKER not in held.files("app")
    assert verify_export(f"{bucket}/app").status == "passed"

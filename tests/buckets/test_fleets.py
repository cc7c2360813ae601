"""Fleets whose sources are in a bucket."""

from __future__ import annotations

from pathlib import Path

import pytest

from converter import fleet, inspect
from converter.checkpoints.remote import BLOCK_BYTES
from converter.errors import BucketError, OptionError
from converter.fleets import bucket_lists, lists
from converter.fleets.lists import read_tasks
from converter.folder.addresses import Address
from tests.buckets.conftest import Bucket
from tests.buckets.test_fleet_outs import here as here  # a fixture
from tests.tiny import FIXTURE

pytest.importorskip("fsspec", reason="fsspec is not installed (extra `cloud`)")


@pytest.mark.parametrize("bucket", ["s3"], indirect=True)  # workers are processes, which share no memory
def test_a_source_is_converted_again_when_it_changed(bucket: Address, held: Bucket, tmp_path: Path) -> None:
    held.put_folder("models/one", FIXTURE)
    listed = tmp_path / "list.txt"
    listed.write_text(f"{bucket}/models/one\n")
    runs = [fleet(listed, tmp_path / "out", workers=1) for _ in range(2)]
    assert [(run.tasks[0].state, run.tasks[0].unchanged) for run in runs] == [("done", False), ("done", True)]
    held.put("models/one/tokenizer_config.json", b"{}")
    again = fleet(listed, tmp_path / "out", workers=1)
    assert (again.tasks[0].state, again.tasks[0].unchanged) == ("done", False)


def test_no_secret_of_a_list_is_written_down(tmp_path: Path) -> None:
    listed = tmp_path / "list.txt"
    listed.write_text("s3://bucket/x?X-Amz-Signature=secret\n")
    with pytest.raises(OptionError) as caught:
        fleet(listed, tmp_path / "out")
    assert str(caught.value).startswith(
        "line 1: s3://bucket/x: the URL holds a user name, a password, a token or a port"
    )
    assert "secret" not in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.fixture
def prefix(bucket: Address, held: Bucket) -> str:
    """Three checkpoints, one of them two levels down; what is none, what is hidden, what is too deep, and OUTDIR."""
    for name in ("models/a", "models/org/b", "models/org/c", "models/out/made", "models/.hidden/x", "models/1/2/3/4"):
        held.put_folder(name, FIXTURE)
    held.put("models/a/inner/config.json", b"{}")
    held.put("models/notes/README.md", b"nothing")
    held.put("models/config.json", b"{}")
    held.put("elsewhere/config.json", b"{}")
    return f"{bucket}/models"


def test_a_folder_of_checkpoints(prefix: str, bucket: Address) -> None:
    found = read_tasks(prefix, "tf", bucket / "models" / "out")
    size = (FIXTURE / "model.safetensors").stat().st_size
    assert [(task.source, task.label, task.nbytes) for task in found] == [
        (f"{prefix}/{name}", name, size) for name in ("a", "org/b", "org/c")
    ]
    assert [task.label for task in read_tasks(f"{prefix}/", "tf", Path("out"))] == ["a", "org/b", "org/c", "out/made"]
    for nothing in (f"{prefix}/notes", f"{bucket}/none", f"{prefix}/a"):
        if nothing.endswith("/a"):
            assert [task.label for task in read_tasks(nothing, "tf", Path("out"))] == ["inner"]
            continue
        with pytest.raises(OptionError, match=f"{nothing}: holds no checkpoints; name their folder, or a list of them"):
            read_tasks(nothing, "tf", Path("out"))


@pytest.mark.usefixtures("here")
def test_a_dry_run_reads_ranges_alone(prefix: str, bucket: Address, held: Bucket, asked: list[tuple[str, int]]) -> None:
    found = fleet(prefix, f"{prefix}/out", dry_run=True)
    assert {task.name: task.state for task in found.tasks} == dict.fromkeys(("a", "org--b", "org--c"), "convertible")
    assert {task.nbytes for task in found.tasks} == {inspect(FIXTURE).nbytes}
    weights = [nbytes for name, nbytes in asked if name == "model.safetensors"]
    assert weights and max(weights) <= BLOCK_BYTES and sum(weights) <= 2 * 3 * BLOCK_BYTES
    small = {"config.json", "tokenizer_config.json", "model.safetensors"}
    assert {name for name, _ in asked} == small
    assert not [name for name in held.files("models/out") if not name.startswith("made/")]


@pytest.mark.parametrize("bucket", ["memory"], indirect=True)
@pytest.mark.usefixtures("here")
def test_from_a_folder_to_one_below_it(prefix: str, bucket: Address, held: Bucket) -> None:
    for _ in range(2):
        found = fleet(prefix, f"{prefix}/out", verify="none")
        assert {task.name: task.state for task in found.tasks} == dict.fromkeys(("a", "org--b", "org--c"), "done")
    assert all(task.unchanged for task in found.tasks)


def test_a_list_in_a_bucket(bucket: Address, held: Bucket, tmp_path: Path) -> None:
    held.put("lists/x.csv", b"source,name\none,first\norg/two,\n")
    held.put("lists/x.jsonl", b"one\n")
    found = read_tasks(f"{bucket}/lists/x.csv", "tf", tmp_path)
    assert [(task.source, task.asked_name) for task in found] == [("one", "first"), ("org/two", "")]
    with pytest.raises(OptionError, match="line 1: not JSON"):
        read_tasks(f"{bucket}/lists/x.jsonl", "tf", tmp_path)


@pytest.mark.parametrize("bucket", ["memory"], indirect=True)
def test_too_much_of_a_list(prefix: str, bucket: Address, held: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    held.put("list.txt", b"one\n")
    monkeypatch.setattr(lists, "MAX_LIST_BYTES", 3)
    with pytest.raises(OptionError, match="list.txt: larger than 3 bytes, too large for a list; divide it"):
        read_tasks(f"{bucket}/list.txt", "tf", Path("out"))
    monkeypatch.setattr(bucket_lists, "MAX_LISTED_OBJECTS", 5)
    with pytest.raises(BucketError, match=f"{prefix}: holds more than 5 objects; name a smaller folder"):
        read_tasks(prefix, "tf", Path("out"))
    monkeypatch.setattr(lists, "MAX_TASKS", 2)
    monkeypatch.setattr(bucket_lists, "MAX_LISTED_OBJECTS", 500)
    with pytest.raises(OptionError, match="more than 2 checkpoints"):
        read_tasks(prefix, "tf", Path("out"))

"""A checkpoint in a bucket as SRC: by range what has to be known, by parts what is converted, and nothing left here."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from converter import combine, convert, inspect, pt2tf, tf2pt
from converter.buckets.stores import Store
from converter.checkpoints.remote import BLOCK_BYTES
from converter.errors import BucketError, ConverterError, SourceError, TargetError, WrongFramework
from converter.folder.addresses import Address
from converter.folder.files import expanded
from tests.buckets.conftest import Bucket
from tests.cli.conftest import Convert
from tests.tiny import EXPECTED, FIXTURE

pytest.importorskip("fsspec", reason="fsspec is not installed (extra `cloud`)")

MEMORY = pytest.mark.parametrize("bucket", ["memory"], indirect=True)  # of lies it does not matter who tells them


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Temporary folders of the test's own, of which none is left at its end."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert list(folder.iterdir()) == []


def weights(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "conversion.json"}


def test_is_converted_as_a_folder_is(source: Address, tmp_path: Path) -> None:
    here = pt2tf(FIXTURE, tmp_path / "here")
    there = pt2tf(str(source), tmp_path / "there")
    assert weights(tmp_path / "there") == weights(tmp_path / "here")
    assert (there.source, there.commit, there.checked) == (source, None, True)
    recorded = json.loads((tmp_path / "there" / "conversion.json").read_text())["source"]
    assert recorded["path"] == str(source)
    assert recorded["files"] == json.loads((tmp_path / "here" / "conversion.json").read_text())["source"]["files"]
    assert there.left_behind == here.left_behind


@pytest.mark.parametrize("name", ["model.safetensors", ""])
def test_inspect_reads_ranges_alone(source: Address, asked: list[tuple[str, int]], name: str) -> None:
    found = inspect(f"{source}/{name}")
    assert found.problem is None and found.tensors == inspect(FIXTURE).tensors
    assert str(found.source) == f"{source}/{name}".rstrip("/")
    header = sum(nbytes for key, nbytes in asked if key == "model.safetensors")
    # A header of some 12 kB, of a file of 466 kB; beside it small files that say what they are.
    assert header == BLOCK_BYTES
    assert {key for key, _ in asked} == {"model.safetensors", "config.json", "tokenizer_config.json"}


def test_a_problem_is_told_of_the_bucket(source: Address, held: Bucket) -> None:
    held.put("models/tiny/config.json", b'{"model_type": "gpt2"}')
    problem = inspect(str(source)).problem
    assert problem is not None and problem.startswith(f"{source}/config.json: expected a model with two towers")


def test_a_dry_run_reads_ranges_alone(source: Address, asked: list[tuple[str, int]], tmp_path: Path) -> None:
    planned = pt2tf(str(source), tmp_path / "out", dry_run=True)
    assert planned.tensors == inspect(FIXTURE).tensors and not (tmp_path / "out").exists()
    assert sum(nbytes for _, nbytes in asked) < BLOCK_BYTES + 3000


def test_hdf5_and_back(bucket: Address, held: Bucket, tmp_path: Path) -> None:
    held.put_folder("tf", EXPECTED)
    for name in ("config.json", "tokenizer.json"):
        held.put(f"tf/{name}", (FIXTURE / name).read_bytes())
    assert inspect(f"{bucket}/tf").framework == "tf"
    assert tf2pt(f"{bucket}/tf", tmp_path / "pt").checked
    assert convert(f"{bucket}/tf", tmp_path / "flax", "flax").checked
    with pytest.raises(WrongFramework, match=f"{bucket}/tf: holds TensorFlow weights"):
        pt2tf(f"{bucket}/tf", tmp_path / "out")


def test_shards(bucket: Address, held: Bucket, tmp_path: Path) -> None:
    convert(FIXTURE, tmp_path / "shards", "pt", max_shard_size="100KB")
    held.put_folder("shards", tmp_path / "shards")
    assert inspect(f"{bucket}/shards").nbytes == inspect(tmp_path / "shards").nbytes
    pt2tf(f"{bucket}/shards", tmp_path / "out")
    pt2tf(FIXTURE, tmp_path / "whole")
    assert (tmp_path / "out" / "tf_model.h5").read_bytes() == (tmp_path / "whole" / "tf_model.h5").read_bytes()
    held.remove("shards/model-00002-of-00005.safetensors")
    with pytest.raises(SourceError, match=r"names model-00002-of-00005.safetensors, which is not in the bucket"):
        pt2tf(f"{bucket}/shards", tmp_path / "other")


def test_modules_and_chat_templates(bucket: Address, held: Bucket, tmp_path: Path) -> None:
    held.put_folder("st/0_CLIPModel", FIXTURE)
    held.put("st/0_CLIPModel/additional_chat_templates/tool.jinja", b"{{ messages }}")
    held.put("st/modules.json", b'[{"idx": 0, "name": "0", "path": "0_CLIPModel", "type": "x"}]')
    pt2tf(f"{bucket}/st", tmp_path / "out")
    assert (tmp_path / "out" / "additional_chat_templates" / "tool.jinja").read_bytes() == b"{{ messages }}"


def test_towers_are_combined(source: Address, tmp_path: Path) -> None:
    combine(str(source), str(source), tmp_path / "out")
    combine(FIXTURE, FIXTURE, tmp_path / "here")
    assert weights(tmp_path / "out") == weights(tmp_path / "here")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "nothing",
            "{bucket}/nothing: nothing is there; name a folder of a bucket that save_pretrained's files lie in",
        ),
        (
            "empty",
            "{bucket}/empty: holds no weights of PyTorch that can be read (files that look like weights: none)",
        ),
    ],
)
def test_nothing_to_read(bucket: Address, held: Bucket, tmp_path: Path, name: str, words: str) -> None:
    held.put("empty/config.json", b"{}")
    with pytest.raises(SourceError) as caught:
        pt2tf(f"{bucket}/{name}", tmp_path / "out")
    assert str(caught.value).startswith(words.format(bucket=bucket))


def test_an_unsound_file_is_told_of_by_its_address(bucket: Address, held: Bucket, tmp_path: Path) -> None:
    held.put_folder("bad", FIXTURE)
    held.put("bad/model.safetensors", b"\xff" * 400)
    with pytest.raises(ConverterError, match=f"^{bucket}/bad/model.safetensors: ") as caught:
        pt2tf(f"{bucket}/bad", tmp_path / "out")
    assert "scratch" not in str(caught.value)


def test_a_bucket_that_is_not_there(convert: Convert, s3_bucket: Address) -> None:
    run = convert("inspect", "s3://no-such-bucket-anywhere/model")
    assert run.status == 1 and run.err.startswith("convert: s3://no-such-bucket-anywhere/model: nothing is there")


def test_an_endpoint_that_does_not_answer(
    convert: Convert, s3_bucket: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    import s3fs

    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://someone:a-password@127.0.0.1:1")
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    s3fs.S3FileSystem.clear_instance_cache()
    try:
        run = convert("inspect", f"{s3_bucket}/model")
    finally:
        s3fs.S3FileSystem.clear_instance_cache()
    assert run.status == 1 and f"{s3_bucket}/model: cannot be reached, or refuses (" in run.err
    assert "a-password" not in run.err and "a-secret-that-nobody-may-see" not in run.err


@MEMORY
def test_a_bucket_that_refuses(source: Address, tmp_path: Path, lie: Any) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError("Forbidden: https://me:secret@box.example/x?sig=secret")

    lie(info=refuse)
    with pytest.raises(BucketError) as caught:
        pt2tf(source, tmp_path / "out")
    assert str(caught.value) == (
        f"{source}: the bucket refuses (PermissionError: Forbidden: https://box.example/x); set the credentials of its "
        "library, and check what they may do"
    )
    assert caught.value.__cause__ is None


# --- what a bucket says is not believed -------------------------------------------------------------------------------


class Lying:
    """A file system that says of objects what it is told to."""

    def __init__(self, system: Any, **answers: Any) -> None:
        self._system, self._answers = system, answers

    def __getattr__(self, name: str) -> Any:
        return self._answers.get(name) or getattr(self._system, name)


@pytest.fixture
def lie(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Has every store answer as it is told."""
    from converter.buckets import stores

    honest = stores.file_system

    def use(**answers: Any) -> None:
        def lying(address: Address) -> Any:
            system = honest(address)
            return Lying(system, **{name: lambda *a, _f=f, **k: _f(system, *a, **k) for name, f in answers.items()})

        monkeypatch.setattr(stores, "file_system", lying)

    return use


def listed(*extra: str, **changes: Any) -> Any:
    """A listing with more in it, or other figures."""

    def ls(system: Any, path: str, detail: bool = True) -> list[dict[str, Any]]:
        found = [{**entry, **changes} if entry["type"] == "file" else entry for entry in system.ls(path, detail=True)]
        root = path.rstrip("/")
        return [*found, *({"name": name.format(root=root), "size": 1, "type": "file"} for name in extra)]

    return ls


@MEMORY
@pytest.mark.parametrize(
    "name",
    [
        "{root}/..",
        "{root}/.",
        "/etc/passwd",
        "{root}/../../x",
        "elsewhere/model.safetensors",
        "{root}/a\\b",
        "{root}/\x1b[31m",
    ],
)
def test_a_name_that_leads_elsewhere(source: Address, tmp_path: Path, lie: Any, name: str) -> None:
    lie(ls=listed(name))
    with pytest.raises(BucketError, match=r"which is not a plain name in it; rename or remove that object"):
        pt2tf(source, tmp_path / "out")


@MEMORY
def test_too_many_objects(source: Address, tmp_path: Path, lie: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("converter.buckets.stores.MAX_OBJECTS", 100)
    lie(ls=listed(*(f"{{root}}/{number}" for number in range(101))))
    with pytest.raises(BucketError, match="holds more than 100 objects, more than any checkpoint"):
        pt2tf(source, tmp_path / "out")


@MEMORY
@pytest.mark.parametrize("size", [-1, None, "many", True])
def test_a_size_that_is_none(source: Address, tmp_path: Path, lie: Any, size: Any) -> None:
    lie(ls=listed(size=size))
    with pytest.raises(BucketError, match="its size is .*; write it again"):
        pt2tf(source, tmp_path / "out")


@MEMORY
def test_a_config_of_gigabytes(source: Address, tmp_path: Path, lie: Any) -> None:
    lie(ls=listed(size=2**40))
    with pytest.raises(SourceError, match="1,099,511,627,776 bytes, too many for such a file; name another model"):
        pt2tf(source, tmp_path / "out")


@MEMORY
def test_weights_that_the_disk_has_no_room_for(source: Address, tmp_path: Path, lie: Any) -> None:
    def ls(system: Any, path: str, detail: bool = True) -> Any:
        found = system.ls(path, detail=True)
        return [{**one, "size": 2**60} if one["name"].endswith("model.safetensors") else one for one in found]

    lie(ls=ls)
    with pytest.raises(TargetError, match=r"1,152,921,504,607 MB are needed in .*; free some space, or set TMPDIR"):
        pt2tf(source, tmp_path / "out")


@MEMORY
def test_a_size_that_lies(source: Address, tmp_path: Path, lie: Any) -> None:
    lie(ls=listed(size=300))
    with pytest.raises(BucketError, match="changed in the bucket while it was being read"):
        pt2tf(source, tmp_path / "out")


@MEMORY
def test_a_range_that_is_too_short(source: Address, tmp_path: Path, lie: Any) -> None:
    lie(cat_file=lambda system, path, start=0, end=0: system.cat_file(path, start=start, end=end)[:-1])
    with pytest.raises(BucketError, match=r"bytes came instead of [\d,]+; run this again"):
        pt2tf(source, tmp_path / "out")


@pytest.mark.parametrize("dry_run", [False, True])
def test_an_object_that_changes_meanwhile(
    source: Address, held: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dry_run: bool
) -> None:
    read = Store.read

    def then_write(self: Any, name: str, start: int, nbytes: int) -> bytes:
        data = read(self, name, start, nbytes)
        if name == "model.safetensors":  # as long as it was, and another
            held.put(f"models/tiny/{name}", bytes(reversed((FIXTURE / name).read_bytes())))
        return data

    monkeypatch.setattr(Store, "read", then_write)
    with pytest.raises(BucketError, match="model.safetensors: changed in the bucket while it was being read"):
        pt2tf(source, tmp_path / "out", dry_run=dry_run)
    assert not (tmp_path / "out").exists()


# --- what a URL may be ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("s3://user:secret@bucket/x", "s3://bucket/x"),
        ("s3://secret@bucket/x", "s3://bucket/x"),
        ("s3://bucket/x?X-Amz-Signature=secret", "s3://bucket/x"),
        ("az://box/x?sv=2024&sig=secret", "az://box/x"),
        ("gs://bucket/x#secret", "gs://bucket/x#secret"),
        ("file://user:secret@host/x", "file://host/x"),
    ],
)
def test_no_secret_is_taken_or_told(url: str, shown: str, convert: Convert, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for arguments in (
        ("inspect", url),
        ("pt2tf", url, out),
        ("pt2tf", FIXTURE, url),
        ("verify", url),
        ("push", url, "a/b"),
    ):
        run = convert(*arguments)
        assert run.status in (1, 3) and f"{shown}: the URL holds a user name, a password, a token or a port" in run.err
        if "#" not in url:
            assert "secret" not in run.err + run.out
    assert not out.exists()


@pytest.mark.parametrize(
    "url", ["s3://", "s3:///x", "s3://b/../x", "s3://b//x", "s3://b/./x", "s3://b/\n", "s3://b/a\\b", "s3://-b/x"]
)
def test_not_an_address(url: str) -> None:
    with pytest.raises(
        SourceError, match=r"not the address of a folder in a bucket; one is written s3://BUCKET/FOLDER"
    ):
        expanded(url)


def test_an_address_of_a_megabyte() -> None:
    with pytest.raises(SourceError, match="longer than 2,048 characters"):
        expanded("s3://b/" + "x" * 2**20)


def test_a_file_here_is_a_path(tmp_path: Path) -> None:
    shutil.copytree(FIXTURE, tmp_path / "src")
    pt2tf(f"file://{tmp_path}/src", f"file://{tmp_path}/out")
    assert (tmp_path / "out" / "tf_model.h5").is_file()


def test_without_the_extra(tmp_path: Path) -> None:
    program = """if True:
        import sys
        from converter import pt2tf
        for name in ("s3fs", "fsspec"):
            sys.modules[name] = None
            try:
                pt2tf("s3://bucket/x", sys.argv[1])
            except Exception as error:
                print(type(error).__name__, error)
    """
    command = [sys.executable, "-c", program, str(tmp_path / "out")]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    said = "BucketError s3://bucket/x: s3:// needs fsspec and s3fs; pip install 'dual-encoder-converter[cloud]'"
    assert run.stdout.splitlines() == [said, said]

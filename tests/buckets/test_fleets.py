"""Fleets whose sources are in a bucket."""

from __future__ import annotations

from pathlib import Path

import pytest

from converter import fleet
from converter.errors import OptionError
from converter.folder.addresses import Address
from tests.buckets.conftest import Bucket
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

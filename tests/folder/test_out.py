"""Which output folders are refused before anything is read."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from converter import pt2tf, verify
from converter.errors import TargetError
from converter.folder.files import out_folder
from converter.folder.staging import check_out
from tests.tiny import FIXTURE


def refusal(out: Path, source: Path | None = None, overwrite: bool = False) -> str:
    with pytest.raises(TargetError) as caught:
        check_out(out, source, overwrite)
    return str(caught.value)


def old_checkpoint(out: Path) -> Path:
    out.mkdir()
    (out / "config.json").write_text("old")
    return out


def test_a_fresh_folder_is_fine(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    check_out(tmp_path / "out", tmp_path / "src", False)
    check_out(tmp_path / "deep" / "out", None, False)


def test_existing(tmp_path: Path) -> None:
    out = old_checkpoint(tmp_path / "out")
    assert refusal(out) == f"{out}: exists already; choose another folder, or replace its checkpoint with --overwrite"
    check_out(out, None, overwrite=True)


def test_existing_with_files_of_others(tmp_path: Path) -> None:
    """They stay, so that there is no reason to refuse it."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.tex").write_text("years")
    check_out(out, None, overwrite=True)
    (out / "model.safetensors").mkdir()
    assert refusal(out, overwrite=True) == (
        f"{out / 'model.safetensors'}: a folder in the place of a file; move it, or choose another OUT"
    )


@pytest.mark.parametrize("kind", ["file", "link to a folder", "link to nowhere"])
def test_not_a_folder(tmp_path: Path, kind: str) -> None:
    out = tmp_path / "out"
    if kind == "file":
        out.write_text("x")
    else:
        out.symlink_to(old_checkpoint(tmp_path / "there") if kind == "link to a folder" else tmp_path / "nowhere")
    said = "exists and is not a folder; choose another"
    if kind == "link to a folder":
        said = f"a link to a folder, which is not replaced; name the folder itself, {tmp_path / 'there'}"
    assert refusal(out, overwrite=True) == f"{out}: {said}"


@pytest.mark.parametrize(
    ("source", "out", "where"),
    [
        ("src", "src", "is"),
        ("src", "src/out", "lies inside"),
        ("src", "src/deep/out", "lies inside"),
        ("src", "other/../src/out", "lies inside"),
        ("src/inner", "src", "holds"),
        ("src/model.safetensors", "src", "is"),
        ("src/model.safetensors", "src/out", "lies inside"),
        ("link", "src/out", "lies inside"),
        ("src", "link", "is"),
    ],
)
def test_source_and_output_share_nothing(tmp_path: Path, source: str, out: str, where: str) -> None:
    (tmp_path / "src" / "inner").mkdir(parents=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "src" / "model.safetensors").touch()
    (tmp_path / "link").symlink_to(tmp_path / "src")
    home = tmp_path / ("src/inner" if "inner" in source else "src")
    assert refusal(tmp_path / out, tmp_path / source, overwrite=True) == (
        f"{tmp_path / out}: {where} the source {home}; choose a folder beside it"
    )


def test_a_name_that_begins_alike_is_apart(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    check_out(tmp_path / "src-tf", tmp_path / "src", False)


@pytest.mark.parametrize("name", ["", "/"])
def test_a_folder_without_a_name(name: str) -> None:
    assert refusal(out_folder(name), overwrite=True) == f"{Path(name)}: not a folder name; choose one, such as out"


@pytest.mark.parametrize("name", [".", "./", "..", "sub/..", "../here", "sub/../../here/."])
def test_the_folder_where_the_command_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """As ``save_pretrained(".")`` of transformers takes it; what else is there stays."""
    source, here = Path(shutil.copytree(FIXTURE, tmp_path / "src")), tmp_path / "place" / "here"
    (here / "sub").mkdir(parents=True)
    monkeypatch.chdir(here)
    out = here.parent if name == ".." else here
    assert pt2tf(source, name, overwrite=True).out.resolve() == out
    assert verify(out, weights_only=True).passed
    assert Path.cwd() == here
    assert (here / "sub").is_dir()
    assert [path.name for path in here.parent.iterdir() if path.name.startswith(".")] == []
    with pytest.raises(TargetError, match="exists already; choose another folder"):
        pt2tf(source, name)


def test_where_a_file_system_is_mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a volume in a container: a folder that is there and empty, and cannot be renamed."""
    (tmp_path / "out").mkdir()
    monkeypatch.setattr(os.path, "ismount", lambda path: path == tmp_path / "out")
    for overwrite in (False, True):
        assert refusal(tmp_path / "out", overwrite=overwrite) == (
            f"{tmp_path / 'out'}: a mount point, which cannot be replaced; choose a folder in it"
        )
    check_out(tmp_path / "out" / "tf", None, False)

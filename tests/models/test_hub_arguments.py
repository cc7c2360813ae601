"""What from_pretrained is told of the Hub: taken with transformers' meaning, with a path as with an id."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from converter.checkpoints.detect import open_source
from converter.errors import ConverterError, ModelError, SourceError
from converter.hub.ids import Access
from converter.hub.obtaining import obtain
from converter.models.asking import hub_arguments
from converter.names.configs import config_beside
from tests.hub.conftest import ID, cache, fetched, files_of, hub, offline, published  # noqa: F401 - fixtures
from tests.hub.loopback import TOKEN, Hub
from tests.tiny import FIXTURE

pytest.importorskip("keras")
pytestmark = pytest.mark.tf


def test_all_are_taken_out() -> None:
    said = {"token": "a", "use_auth_token": "b", "cache_dir": Path("c"), "local_files_only": True, "projection_dim": 3}
    said |= {"force_download": True, "subfolder": "d", "revision": "e", "resume_download": True, "proxies": None}
    assert hub_arguments("org/name", said) == ("e", Access("a", "c", True, True, "d"))
    assert said == {"projection_dim": 3}
    assert hub_arguments("/tmp", {"revision": "main", "use_auth_token": "b"}) == (None, Access("b"))


@pytest.mark.parametrize(("name", "variable"), [("proxies", "HTTPS_PROXY"), ("mirror", "HF_ENDPOINT")])
def test_what_is_said_by_other_means(name: str, variable: str) -> None:
    with pytest.raises(ModelError) as caught:
        hub_arguments("org/name", {name: "x"})
    assert str(caught.value) == (f"from_pretrained no longer takes {name}. Leave it out, and set {variable}.")


def test_a_token_is_not_shown() -> None:
    assert "secret" not in repr(Access("secret"))


def test_subfolder_of_a_path(tmp_path: Path) -> None:
    shutil.copytree(FIXTURE, tmp_path / "a" / "b c")
    assert obtain(str(tmp_path), None, None, Access(subfolder="a/b c")).path == tmp_path / "a" / "b c"
    for out in ("../x", "/etc/..", "a/../../x"):
        with pytest.raises(SourceError, match="leads out of the model; name a folder in it"):
            obtain(str(tmp_path), None, None, Access(subfolder=out))


def test_subfolder_on_the_hub(hub: Hub, offline: Any, cache: Path) -> None:  # noqa: F811
    """Also from the cache alone."""
    hub.add(ID, {f"deep/er/{name}": data for name, data in files_of(FIXTURE).items()} | {"config.json": b"{}"})
    held = obtain(ID, None, None, Access(subfolder="deep/er/"))
    assert held.path.relative_to(held.path.parents[2]).as_posix() == "deep/er/model.safetensors"
    assert held.path.read_bytes() == (FIXTURE / "model.safetensors").read_bytes()
    offline()
    assert obtain(ID, None, None, Access(subfolder="deep/er")).path == held.path
    checkpoint, folder = open_source(held.path, None)  # its files are links to the blobs, four levels up
    checkpoint.close()
    assert config_beside(folder, checkpoint.files).is_file()
    with pytest.raises(ConverterError, match="nor complete in the Hub"):
        obtain(ID, None, None, Access(subfolder="other"))


def test_subfolder_that_is_not_there(hub: Hub, published: str) -> None:  # noqa: F811
    with pytest.raises(SourceError) as caught:
        obtain(published, None, None, Access(subfolder="nosuch"))
    assert str(caught.value) == (
        f"{published}: has no nosuch/config.json, so it is not a model that save_pretrained wrote; name one that is"
    )


def test_local_files_only(hub: Hub, published: str) -> None:  # noqa: F811
    with pytest.raises(ConverterError) as caught:
        obtain(published, None, None, Access(local_files_only=True))
    assert str(caught.value) == (
        f"{published}: not a file or folder here, nor complete in the Hub's cache, and "
        "local_files_only is set; correct the name, or unset local_files_only once to download it"
    )
    assert not hub.asked(".*")
    path = obtain(published, "pt").path
    before = len(hub.asked(".*"))
    assert obtain(published, "pt", None, Access(local_files_only=True)).path == path
    assert len(hub.asked(".*")) == before


def test_cache_dir(hub: Hub, published: str, cache: Path, tmp_path: Path) -> None:  # noqa: F811
    path = obtain(published, "pt", None, Access(cache_dir=str(tmp_path / "elsewhere"))).path
    assert path.is_relative_to(tmp_path / "elsewhere")
    assert not cache.exists()
    assert (
        obtain(published, "pt", None, Access(cache_dir=str(tmp_path / "elsewhere"), local_files_only=True)).path == path
    )


def test_force_download(hub: Hub, published: str) -> None:  # noqa: F811
    path = obtain(published, "pt").path
    path.resolve().write_bytes(b"damaged")
    held = obtain(published, "pt", None, Access(force_download=True)).path
    assert held.read_bytes() == (FIXTURE / "model.safetensors").read_bytes()


def test_token(hub: Hub, published: str) -> None:  # noqa: F811
    obtain(published, "pt", None, Access(token=TOKEN))
    sent = {request.headers.get("authorization") for request in hub.asked("GET .*")}
    assert sent <= {f"Bearer {TOKEN}", None}
    assert f"Bearer {TOKEN}" in sent
    with pytest.raises(ConverterError, match="token= holds characters that no token has"):
        obtain(published, "pt", None, Access(token="two words"))


def test_from_pretrained(tmp_path: Path) -> None:
    from converter import TFVisionTextDualEncoderModel

    shutil.copytree(FIXTURE, tmp_path / "sub")
    model = TFVisionTextDualEncoderModel.from_pretrained(
        tmp_path, subfolder="sub", token="x", cache_dir=tmp_path / "cache", local_files_only=True, revision="main"
    )
    assert model.built

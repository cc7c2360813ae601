"""huggingface_hub itself, led to a Hub on this machine: its endpoint, an empty cache, and no waiting between attempts."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub.hf_api  # noqa: F401 - its constants are set below
import pytest

from tests.cli.conftest import convert  # noqa: F401 - a fixture
from tests.hub.loopback import Hub, serving
from tests.tiny import EXPECTED, FIXTURE

ID = "org/clip-tiny"


def files_of(folder: Path, *names: str) -> dict[str, bytes]:
    """Files of a folder, and of those in it, by name; all of them if none is named."""
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in found.items() if not names or name in names}


def set_constants(monkeypatch: pytest.MonkeyPatch, **values: Any) -> None:
    """Sets constants of huggingface_hub, which it reads when it is imported and hands on by value."""
    for name, value in values.items():
        for module in list(sys.modules.values()):
            if getattr(module, "__name__", "").startswith("huggingface_hub") and name in vars(module):
                monkeypatch.setattr(module, name, value)
    forget_sessions()


def point_at(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    """Leads huggingface_hub to a Hub, as HF_ENDPOINT does where it is set before."""
    template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    set_constants(monkeypatch, ENDPOINT=endpoint, HUGGINGFACE_CO_URL_TEMPLATE=template)


def forget_sessions() -> None:
    """Closes the connections that huggingface_hub keeps, whose settings are those of another test."""
    from huggingface_hub.utils import _http

    for name in ("reset_sessions", "close_session"):  # before 1.0, and since
        if hasattr(_http, name):
            getattr(_http, name)()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """An empty Hub that this process' huggingface_hub talks to."""
    with serving() as served:
        cache = str(tmp_path / "cache")
        set_constants(
            monkeypatch,
            HF_HUB_OFFLINE=False,
            HF_HUB_CACHE=cache,
            HUGGINGFACE_HUB_CACHE=cache,
            HF_TOKEN_PATH=str(tmp_path / "token"),
            DOWNLOAD_CHUNK_SIZE=2**16,
            HF_HUB_DISABLE_XET=True,
            HF_HUB_DISABLE_PROGRESS_BARS=True,
        )
        point_at(monkeypatch, served.endpoint)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        monkeypatch.delenv("HUGGING_FACE_HUB_TOKEN", raising=False)
        monkeypatch.setattr(time, "sleep", lambda _: None)
        yield served
        forget_sessions()


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sets HF_HUB_OFFLINE when it is called."""
    return lambda: set_constants(monkeypatch, HF_HUB_OFFLINE=True)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """The cache of huggingface_hub."""
    return tmp_path / "cache"


@pytest.fixture
def published(hub: Hub) -> str:
    """The shipped PyTorch checkpoint on the Hub, with what must not be fetched beside it; its id."""
    files = files_of(FIXTURE)
    hub.add(ID, {
        **files, "README.md": b"# Tiny\n", "pytorch_model.bin": b"PK\x03\x04 twice the weights",
        "flax_model.msgpack": b"flax", "tf_model.h5": EXPECTED.joinpath("tf_model.h5").read_bytes(),
        "onnx/model.onnx": b"onnx", "modeling_evil.py": b"raise SystemExit",
    })  # fmt: skip
    return ID


def fetched(hub: Hub) -> set[str]:
    """Names of the files that were downloaded whole."""
    trees = [tree for repository in hub.repositories.values() for tree in repository.commits.values()]
    large = {file.sha256: name for tree in trees for name, file in tree.items() if file.large}
    whole = [request for request in hub.asked("GET .*/(resolve|cdn)/") if request.range is None]
    names = {request.path.rpartition("/")[2] for request in whole}
    return {large.get(name, name) for name in names if name in large or name not in large.values()}

"""Models in OpenCLIP's layout on the Hub: alone, beside transformers' files, and published."""

from __future__ import annotations

import filecmp
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from converter import combine, convert, inspect, pt2tf, push
from converter.errors import SourceError, UnsupportedOption
from converter.folder.proof import write_proof
from converter.publishing.card import metadata
from tests.conversion.test_open_clip import changed, source
from tests.hub.conftest import fetched, files_of
from tests.hub.loopback import Hub
from tests.hub.test_push import token, verification  # noqa: F401 - a fixture
from tests.tiny import write_tiny

# huggingface_hub 1.x and 2.x upload so.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload raw bytes:DeprecationWarning")
ID = "org/open-clip"
CONFIG, WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    source(tmp_path / "src")
    return tmp_path / "src"


def same(far: Any, near: Any) -> None:
    assert vars(far) | {"source": "", "commit": ""} == vars(near) | {"source": "", "commit": ""}
    assert (far.family, far.problem) == ("clip", None)


def test_alone(hub: Hub, folder: Path, tmp_path: Path, offline: Any) -> None:
    hub.add(ID, {**files_of(folder), "README.md": b"#"})
    same(inspect(ID), inspect(folder))
    assert fetched(hub) == {CONFIG}
    assert not list((tmp_path / "cache").rglob("*.safetensors"))
    pt2tf(ID, tmp_path / "far")
    assert fetched(hub) == {CONFIG, WEIGHTS}
    pt2tf(folder, tmp_path / "near")
    for name in ("tf_model.h5", "config.json", "preprocessor_config.json"):
        assert filecmp.cmp(tmp_path / "far" / name, tmp_path / "near" / name, shallow=False), name
    combine(ID, ID, tmp_path / "both")
    offline()
    pt2tf(ID, tmp_path / "again")
    assert filecmp.cmp(tmp_path / "far/tf_model.h5", tmp_path / "again/tf_model.h5", shallow=False)


def test_a_pickle(hub: Hub, folder: Path, tmp_path: Path) -> None:
    torch_file = convert(folder, tmp_path / "bin", "pt", format="bin", layout="open_clip").out
    hub.add(ID, files_of(torch_file))
    same(inspect(ID), inspect(torch_file))
    assert fetched(hub) == {CONFIG}
    convert(ID, tmp_path / "back", "pt", layout="open_clip")
    convert(folder, tmp_path / "near", "pt", layout="open_clip")
    assert filecmp.cmp(tmp_path / "back" / WEIGHTS, tmp_path / "near" / WEIGHTS, shallow=False)


def test_beside_transformers_files(hub: Hub, folder: Path, tmp_path: Path) -> None:
    """Theirs are taken; the config.json of something else does not hide OpenCLIP's model."""
    write_tiny(tmp_path / "clip", family="clip")
    both = {**files_of(folder), **files_of(tmp_path / "clip")}
    hub.add(ID, both)
    pt2tf(ID, tmp_path / "tf")
    assert fetched(hub) == {"config.json", "model.safetensors"}
    hub.add("org/other", {**files_of(folder), "config.json": b'{"architecture": "vit_base_patch16_siglip_224"}'})
    same(inspect("org/other"), inspect(folder))
    assert pt2tf("org/other", tmp_path / "other").family == "clip"


def test_what_is_refused(hub: Hub, folder: Path, tmp_path: Path) -> None:
    hub.add(ID, {**files_of(folder), CONFIG: json.dumps(changed("", multimodal_cfg={"width": 3})).encode()})
    with pytest.raises(UnsupportedOption, match="CoCa"):
        pt2tf(ID, tmp_path / "out")


def test_a_config_of_terabytes(hub: Hub, folder: Path) -> None:
    hub.add(ID, files_of(folder)).siblings = [{"rfilename": CONFIG, "size": 2**40}, {"rfilename": WEIGHTS, "size": 10}]
    with pytest.raises(SourceError) as error:
        inspect(ID)
    assert str(error.value) == f"{ID}: {CONFIG} has {2**40:,} bytes, too many for a config; name another model"
    assert fetched(hub) == set()


def test_published(hub: Hub, folder: Path, token: str, tmp_path: Path) -> None:  # noqa: F811
    """Into a repository with transformers' files too, which OpenCLIP does not take; the card says who loads it."""
    convert(folder, tmp_path / "pt", "pt")
    out = convert(tmp_path / "pt", tmp_path / "out", "pt", layout="open_clip").out
    shutil.rmtree(folder)
    write_proof(out, verification(out).to_json())
    hub.add("me/open-clip", {"model.safetensors": (tmp_path / "pt/model.safetensors").read_bytes()})
    push(out, "me/open-clip", create_pr=False)
    held = hub.repositories["me/open-clip"].files()
    assert {CONFIG, WEIGHTS, "model.safetensors", "conversion.json"} <= set(held)
    card = held["README.md"].decode()
    assert 'open_clip.create_model_from_pretrained("hf-hub:me/open-clip")\n' in card
    assert "\nconvert to pt SOURCE out --format safetensors --layout open_clip\n" in card
    assert metadata(card)["library_name"] == "open_clip"

"""Whole CLIP models on the Hub, in the root of a repository and in the folder that modules.json leads to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from converter import combine, inspect, pt2tf, push, tf2pt, verify
from converter.checkpoints.modules import MAX_MODULES_BYTES
from converter.errors import ConfigError, ConverterError, HubError, SourceError
from converter.folder.files import MAX_CONFIG_BYTES
from converter.folder.proof import write_proof
from tests.checkpoints.test_modules import MODEL, SMALL, module
from tests.cli.conftest import Convert
from tests.compat.towers import FAMILIES
from tests.hub.conftest import fetched, files_of, set_constants
from tests.hub.loopback import Answer, Hub
from tests.hub.test_push import token, verification  # noqa: F401 - a fixture
from tests.tiny import assert_same, load, write_tiny

# huggingface_hub 1.x and 2.x upload so.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload raw bytes:DeprecationWarning")

WHOLE, WITHIN = "org/whole", "org/in-a-folder"
BESIDE = {
    "README.md": b"# CLIP\n", "config_sentence_transformers.json": b"{}", f"{MODEL}/README.md": b"#\n",
    f"{MODEL}/flax_model.msgpack": b"flax", f"{MODEL}/onnx/model.onnx": b"onnx", "1_Pooling/config.json": b"{}",
    "pytorch_model.safetensors": b"another", f"{MODEL}/evil.py": b"raise SystemExit",
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A CLIP model with small files."""
    write_tiny(tmp_path / "clip", family="clip")
    for name, text in SMALL.items():
        (tmp_path / "clip" / name).write_text(text, "utf-8")
    return tmp_path / "clip"


def in_a_folder(files: dict[str, bytes], *modules: Any) -> dict[str, bytes]:
    """As sentence-transformers 2 lays a model out, with what must not be fetched."""
    listed = json.dumps(modules or [module(MODEL), module("1_Pooling", 1)]).encode()
    return {"modules.json": listed, **BESIDE, **{f"{MODEL}/{name}": content for name, content in files.items()}}


@pytest.fixture
def within(hub: Hub, folder: Path) -> str:
    """The same in the folder of a repository; its id."""
    hub.add(WITHIN, in_a_folder(files_of(folder)))
    return WITHIN


@pytest.mark.parametrize("family", FAMILIES)
def test_every_container_of_a_family(hub: Hub, tmp_path: Path, family: str) -> None:
    tensors = write_tiny(tmp_path / "pt", family=family)
    ways: dict[str, dict[str, Any]] = {
        "h5": {}, "tf": {"format": "safetensors"}, "h5-shards": {"max_shard_size": "40KB"},
    }  # fmt: skip
    made = {
        "pt": tmp_path / "pt",
        **{name: pt2tf(tmp_path / "pt", tmp_path / name, **way).out for name, way in ways.items()},
    }
    made["bin"] = tf2pt(made["h5"], tmp_path / "bin", format="bin").out
    for name, place in made.items():
        for repository, files in (
            (f"org/{name}", files_of(place)),
            (f"org/{name}-within", in_a_folder(files_of(place))),
        ):
            hub.add(repository, files)
            far, near = inspect(repository), inspect(place)
            assert vars(far) | {"source": "", "commit": ""} == vars(near) | {"source": "", "commit": ""}
            assert (far.family, far.problem, far.framework) == (family, None, near.framework)
            assert not list((tmp_path / "cache").rglob("*.safetensors"))
    for name, place in made.items():
        for repository in (f"org/{name}", f"org/{name}-within"):
            out = tmp_path / "out" / repository.replace("/", "-")
            if inspect(place).framework == "pt":
                pt2tf(repository, out, check=False)
                out = tf2pt(out, tmp_path / "back" / repository.replace("/", "-")).out
            else:
                tf2pt(repository, out)
            assert_same(load(out / "model.safetensors"), tensors)


def test_nothing_else_is_fetched(hub: Hub, within: str, tmp_path: Path) -> None:
    made = pt2tf(within, tmp_path / "tf")
    assert fetched(hub) == {"modules.json", "config.json", f"{MODEL}/model.safetensors", *SMALL}
    assert {request.path.partition("/resolve/")[2].partition("/")[2] for request in hub.asked("GET .*/resolve/")} <= {
        "modules.json", *(f"{MODEL}/{name}" for name in ("config.json", "model.safetensors", *SMALL)),
    }  # fmt: skip
    commit = hub.repositories[WITHIN].refs["main"]
    assert (made.family, made.commit) == ("clip", commit)
    source = json.loads((tmp_path / "tf" / "conversion.json").read_text("utf-8"))["source"]
    assert (source["path"], source["hub"], source["commit"]) == (f"{WITHIN}@{commit}", WITHIN, commit)
    assert {name: (tmp_path / "tf" / name).read_text("utf-8") for name in SMALL} == SMALL


def test_it_is_as_the_model_alone(hub: Hub, within: str, folder: Path, tmp_path: Path) -> None:
    pt2tf(within, tmp_path / "far")
    pt2tf(folder, tmp_path / "near")
    for name in ("tf_model.h5", "config.json", *SMALL):
        assert (tmp_path / "far" / name).read_bytes() == (tmp_path / "near" / name).read_bytes()


def test_shards_in_a_folder(hub: Hub, folder: Path, tmp_path: Path) -> None:
    pt2tf(folder, tmp_path / "tf")
    tf2pt(tmp_path / "tf", tmp_path / "pt", max_shard_size="40KB")
    hub.add(WITHIN, in_a_folder(files_of(tmp_path / "pt")))
    assert inspect(WITHIN).problem is None
    assert len(list((tmp_path / "cache").rglob("*.safetensors"))) == 0
    tf2pt(pt2tf(WITHIN, tmp_path / "again").out, tmp_path / "back")
    assert_same(load(tmp_path / "back" / "model.safetensors"), load(folder / "model.safetensors"))


def test_without_a_network(hub: Hub, within: str, folder: Path, tmp_path: Path, offline: Any) -> None:
    pt2tf(within, tmp_path / "one")
    offline()
    asked = len(hub.requests)
    pt2tf(within, tmp_path / "two")
    assert inspect(within).tensors == inspect(folder).tensors
    assert len(hub.requests) == asked
    manifests = [
        json.loads((tmp_path / out / "conversion.json").read_text("utf-8"))["source"] for out in ("one", "two")
    ]
    assert manifests[0] == manifests[1]


def test_chat_templates_in_a_folder(hub: Hub, folder: Path, tmp_path: Path, offline: Any) -> None:
    hub.add(WITHIN, in_a_folder(files_of(folder) | {"additional_chat_templates/rag.jinja": b"rag"}))
    for turn in ("far", "near"):
        pt2tf(WITHIN, tmp_path / turn)
        assert (tmp_path / turn / "additional_chat_templates" / "rag.jinja").read_bytes() == b"rag"
        offline()


def test_a_network_that_goes_away(hub: Hub, within: str, tmp_path: Path) -> None:
    pt2tf(within, tmp_path / "one")
    hub.fail("GET /api/models", Answer(503))
    assert pt2tf(within, tmp_path / "two").family == "clip"


def test_never_seen_and_without_a_network(hub: Hub, within: str, tmp_path: Path, offline: Any) -> None:
    offline()
    with pytest.raises(HubError) as caught:
        pt2tf(within, tmp_path / "out")
    assert str(caught.value) == (
        f"{WITHIN}: not a file or folder here, nor complete in the Hub's cache, and HF_HUB_OFFLINE is set; correct "
        "the name, or unset HF_HUB_OFFLINE once to download it"
    )


def test_a_revision(hub: Hub, within: str, tmp_path: Path) -> None:
    first = hub.repositories[WITHIN].refs["v1"] = hub.repositories[WITHIN].refs["main"]
    hub.repositories[WITHIN].commit({"modules.json": b"[]"})
    assert pt2tf(f"{WITHIN}@v1", tmp_path / "tf").commit == first
    assert inspect(WITHIN, revision="v1").commit == first


def test_verify_finds_it_in_the_cache(hub: Hub, within: str, tmp_path: Path) -> None:
    pt2tf(within, tmp_path / "tf")
    hub.requests.clear()
    weights = verify(tmp_path / "tf", weights_only=True).findings[1]
    assert weights.against.endswith(f"/{MODEL}/model.safetensors, bit for bit")
    cached = next((tmp_path / "cache").rglob("snapshots/*/modules.json"))
    cached.unlink()
    cached.write_text('[{"path": ".."}]', "utf-8")
    weights = verify(tmp_path / "tf", weights_only=True).findings[1]
    assert weights.against == "the hashes in the manifest, as the source is gone"
    assert hub.requests == []


def test_towers_of_it(hub: Hub, within: str, folder: Path, tmp_path: Path) -> None:
    assert combine(within, within, tmp_path / "both").made_new == ()
    found, tensors = load(tmp_path / "both" / "model.safetensors"), load(folder / "model.safetensors")
    for name in ("visual_projection.weight", "text_projection.weight", "logit_scale"):
        assert found[name].tobytes() == tensors[name].tobytes()


def test_what_was_made_of_it_is_published(hub: Hub, within: str, token: str, tmp_path: Path) -> None:  # noqa: F811
    pt2tf(within, tmp_path / "tf")
    write_proof(tmp_path / "tf", verification(tmp_path / "tf").to_json())
    push(tmp_path / "tf", "me/clip-tf")
    held = hub.repositories["me/clip-tf"].files()
    commit = hub.repositories[WITHIN].refs["main"]
    assert {"tf_model.h5", "config.json", "conversion.json", *SMALL} <= set(held)
    assert f"base_model: {WITHIN}\n" in held["README.md"].decode()
    assert f"{WITHIN}@{commit}" in held["README.md"].decode()


def test_the_command_line(hub: Hub, within: str, tmp_path: Path, convert: Convert) -> None:
    said = convert("inspect", within)
    assert (said.status, said.err) == (0, "")
    commit = hub.repositories[WITHIN].refs["main"]
    assert said.out.startswith(f"{WITHIN} (commit {commit[:12]}): can be converted\n")
    assert convert("pt2tf", within, str(tmp_path / "tf"), "--quiet").status == 0


# --- what is refused --------------------------------------------------------------------------------------------------


def refused(out: Path, kind: type[ConverterError]) -> str:
    said = []
    for call in (lambda: pt2tf(WITHIN, out), lambda: inspect(WITHIN)):
        with pytest.raises(ConverterError) as caught:
            call()
        assert type(caught.value) is kind
        said.append(str(caught.value))
    assert said[0] == said[1]
    assert said[0].isprintable()
    assert not out.exists()
    return said[0]


@pytest.mark.parametrize("path", ["..", "../..", "/etc", "a/b", "", ".", "a\\b", "\x1b", 3, None, "*"])
def test_a_path_that_leads_elsewhere(hub: Hub, folder: Path, tmp_path: Path, path: Any) -> None:
    files = in_a_folder(files_of(folder), module(path)) | {"a/b/config.json": b"{}"}
    hub.add(WITHIN, files)
    if path in ("", "*", "\x1b"):
        names = {"": "it names no folder", "\x1b": r"\x1b"}.get(path, path)
        assert refused(tmp_path / "out", SourceError) == (
            f"{WITHIN}/modules.json: none of its modules has a config.json ({names}); download the whole model, or name "
            "the folder that holds config.json"
        )
    else:
        assert refused(tmp_path / "out", ConfigError) == (
            f"{WITHIN}/modules.json: a module lies in {path!r}, expected the name of a folder beside modules.json; restore "
            "it from the original"
        )
    assert fetched(hub) == {"modules.json"}


@pytest.mark.parametrize(
    ("name", "size", "what"),
    [
        (
            "modules.json",
            MAX_MODULES_BYTES + 1,
            "modules.json has 1,048,577 bytes, too many for such a file; name another model",
        ),
        (
            f"{MODEL}/config.json",
            MAX_CONFIG_BYTES + 1,
            "config.json has 8,388,609 bytes, too many for a config; name another model",
        ),
        (
            f"{MODEL}/vocab.txt",
            2**40,
            "vocab.txt has 1,099,511,627,776 bytes, too many for such a file; name another model",
        ),
    ],
    ids=["modules.json", f"{MODEL}/config.json", f"{MODEL}/vocab.txt"],
)
def test_files_too_large(hub: Hub, within: str, tmp_path: Path, name: str, size: int, what: str) -> None:
    repository = hub.repositories[WITHIN]
    repository.siblings = [
        {"rfilename": held, "size": size if held == name else len(content)}
        for held, content in repository.files().items()
    ]
    with pytest.raises(SourceError) as caught:
        pt2tf(WITHIN, tmp_path / "out")
    assert str(caught.value) == f"{WITHIN}: {what}"
    assert name.rpartition("/")[2] not in fetched(hub)


@pytest.mark.parametrize("text", [b"", b"{}", b"[", b"[" * 90 + b"]" * 90])
def test_a_modules_json_that_is_none(hub: Hub, within: str, tmp_path: Path, text: bytes) -> None:
    hub.repositories[WITHIN].commit({"modules.json": text})
    assert "/modules.json: " in refused(tmp_path / "out", ConfigError)


def test_a_model_without_weights(hub: Hub, within: str, tmp_path: Path) -> None:
    repository = hub.repositories[WITHIN]
    kept = [name for name in repository.files() if not name.endswith((".safetensors", ".msgpack"))]
    repository.siblings = [{"rfilename": name, "size": 9} for name in kept]
    with pytest.raises(SourceError) as caught:
        pt2tf(WITHIN, tmp_path / "out")
    assert str(caught.value) == (
        f"{WITHIN}: holds no weights of PyTorch that can be read (files that look like weights: none); name a model that "
        "save_pretrained wrote"
    )


def test_a_listing_that_leads_out_of_the_folder(hub: Hub, within: str, tmp_path: Path) -> None:
    repository = hub.repositories[WITHIN]
    listed = [f"{MODEL}/../../evil", f"{MODEL}//etc/passwd", f"{MODEL}/tokenizer.json\0", f"{MODEL}/"]
    repository.siblings = [{"rfilename": n, "size": len(c)} for n, c in repository.files().items()]
    repository.siblings += [{"rfilename": name, "size": 10} for name in listed]
    pt2tf(WITHIN, tmp_path / "out")
    assert fetched(hub) == {"modules.json", "config.json", f"{MODEL}/model.safetensors", *SMALL}


def test_whole_models_in_the_root(hub: Hub, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Newer versions write a modules.json too, and the model beside it, which is read without it."""
    hub.add(WHOLE, files_of(folder) | {"modules.json": b"not read"})
    made = pt2tf(WHOLE, tmp_path / "tf")
    assert (made.family, made.source) == ("clip", Path(WHOLE))
    assert fetched(hub) == {"config.json", "model.safetensors", *SMALL}
    set_constants(monkeypatch, HF_HUB_OFFLINE=True)
    assert inspect(WHOLE).family == "clip"

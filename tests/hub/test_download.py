"""A model on the Hub as a source: which files are fetched, which commit is recorded, what is in the cache afterwards."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import time
from pathlib import Path
from typing import Any

import blake3
import pytest
from safetensors.numpy import load as load_bytes

from converter import combine, inspect, pt2tf, tf2pt
from converter.errors import ConverterError, HubError, SourceError, WrongFramework
from converter.folder.manifest import read_manifest
from converter.parity.sources import find_source
from tests.hub.conftest import ID, fetched, files_of, forget_sessions, point_at, set_constants
from tests.hub.loopback import TOKEN, Answer, Hub
from tests.hub.repositories import Repository
from tests.tiny import FIXTURE, assert_same, config_of, load, tensors_of, write_checkpoint

SIDECARS = {"config.json", "processor_config.json", "tokenizer.json", "tokenizer_config.json"}


TEMPLATES = "additional_chat_templates"


def manifest(out: Path) -> Any:
    return json.loads((out / "conversion.json").read_text("utf-8"))


def test_only_what_is_needed(hub: Hub, published: str, tmp_path: Path) -> None:
    result = pt2tf(published, tmp_path / "tf")
    assert fetched(hub) == SIDECARS | {"model.safetensors"}
    commit = hub.repositories[ID].refs["main"]
    assert (str(result.source), result.commit) == (ID, commit)
    source = manifest(tmp_path / "tf")["source"]
    assert source["hub"] == ID
    assert source["commit"] == commit
    assert source["path"] == f"{ID}@{commit}"
    assert [file["name"] for file in source["files"]] == ["model.safetensors"]
    tf2pt(str(tmp_path / "tf"), tmp_path / "pt")
    assert_same(load(tmp_path / "pt" / "model.safetensors"), load(FIXTURE / "model.safetensors"))


def test_what_the_tokenizer_config_names_is_fetched_too(hub: Hub, tmp_path: Path) -> None:
    said = {"vocab_file": "my.words", "merges_file": "modeling_evil.py", "spm_file": "not there.model"}
    own = {"my.words": b"a", "b.tiktoken": b"Yg== 0", "other.words": b"b", "modeling_evil.py": b"raise SystemExit"}
    hub.add(ID, {**files_of(FIXTURE), **own, "tokenizer_config.json": json.dumps(said).encode()})
    pt2tf(ID, tmp_path / "out")
    assert fetched(hub) == SIDECARS | {"model.safetensors", "my.words", "b.tiktoken"}
    assert (tmp_path / "out" / "my.words").read_bytes() == b"a"
    recorded = read_manifest(tmp_path / "out")
    assert recorded is not None
    assert {"my.words", "b.tiktoken"} <= set(recorded.files)


def test_chat_templates_are_fetched_too(hub: Hub, tmp_path: Path, offline: Any) -> None:
    """From the network, and what lies in the cache afterwards; nothing else of their folder, or of one that is like it."""
    templates = {f"{TEMPLATES}/rag.jinja": b"rag", f"{TEMPLATES}/tool use.jinja": b"tool"}
    others = {f"{TEMPLATES}/README.md": b"x", f"{TEMPLATES}/old/a.jinja": b"x", f"old/{TEMPLATES}/a.jinja": b"x"}
    hub.add(ID, {**files_of(FIXTURE), **templates, **others})
    for turn in ("far", "near"):
        done = pt2tf(ID, tmp_path / turn)
        assert {name: (tmp_path / turn / name).read_bytes() for name in templates} == templates
        assert {path.name for path in (tmp_path / turn / TEMPLATES).iterdir()} == {"rag.jinja", "tool use.jinja"}
        recorded = read_manifest(tmp_path / turn)
        assert recorded is not None
        assert set(templates) <= set(recorded.files)
        assert done.left_behind == ((f"{TEMPLATES}/README.md",) if turn == "far" else ())
        offline()
    assert fetched(hub) == SIDECARS | {"model.safetensors", "rag.jinja", "tool%20use.jinja"}


def test_tensorflow_weights(hub: Hub, published: str, tmp_path: Path) -> None:
    tf2pt(published, tmp_path / "pt")
    assert fetched(hub) == SIDECARS | {"tf_model.h5"}
    assert not hub.asked("GET .*model.safetensors")


def test_tensorflow_safetensors_are_told_by_their_header(hub: Hub, tmp_path: Path) -> None:
    pt2tf(FIXTURE, tmp_path / "tf", format="safetensors")
    hub.add(ID, files_of(tmp_path / "tf"))
    tf2pt(ID, tmp_path / "pt")
    assert "model.safetensors" in fetched(hub)
    first = hub.asked("GET /cdn/")[0]
    assert first.range == "bytes=0-65535"


def test_the_other_frameworks_safetensors_are_passed_over(hub: Hub, tmp_path: Path) -> None:
    """PyTorch's weights are a .bin beside TensorFlow's model.safetensors."""
    pt2tf(FIXTURE, tmp_path / "tf", format="safetensors")
    tf2pt(tmp_path / "tf", tmp_path / "bin", format="bin")
    hub.add(ID, files_of(tmp_path / "tf") | files_of(tmp_path / "bin", "pytorch_model.bin"))
    pt2tf(ID, tmp_path / "again")
    assert fetched(hub) == SIDECARS | {"pytorch_model.bin"}


@pytest.mark.parametrize("format", ["safetensors", "bin"])
def test_shards(hub: Hub, tmp_path: Path, format: Any) -> None:
    pt2tf(FIXTURE, tmp_path / "tf")
    tf2pt(tmp_path / "tf", tmp_path / "pt", format=format, max_shard_size="40KB")
    files = files_of(tmp_path / "pt")
    hub.add(ID, files)
    pt2tf(ID, tmp_path / "again")
    weights = {name for name in files if "model" in name}
    assert len(weights) > 3
    assert weights <= fetched(hub)


def test_revision(hub: Hub, published: str, tmp_path: Path) -> None:
    first = hub.repositories[ID].refs["main"]
    hub.repositories[ID].refs["v1"] = first
    hub.repositories[ID].refs["refs/pr/1"] = first
    second = hub.repositories[ID].commit({"README.md": b"changed"})
    for number, (source, revision, commit) in enumerate([
        (ID, None, second), (f"{ID}@v1", None, first), (ID, "v1", first), (f"{ID}@{first}", None, first),
        (f"{ID}@refs/pr/1", None, first), (f"{ID}@v1", "v1", first),
    ]):  # fmt: skip
        result = pt2tf(source, tmp_path / f"{number}", revision=revision)
        assert result.commit == commit, source
        assert manifest(tmp_path / f"{number}")["source"]["path"] == f"{ID}@{commit}"


def test_the_cache_is_shared_and_used(hub: Hub, published: str, tmp_path: Path, offline: Any) -> None:
    """What another program fetched is not fetched again; nothing is, without a network."""
    from huggingface_hub import hf_hub_download

    hf_hub_download(ID, "model.safetensors", endpoint=hub.endpoint)
    before = len(hub.asked("GET /cdn/"))
    pt2tf(ID, tmp_path / "one")
    assert len(hub.asked("GET /cdn/")) == before
    offline()
    asked = len(hub.requests)
    pt2tf(ID, tmp_path / "two")
    assert len(hub.requests) == asked
    assert manifest(tmp_path / "one")["source"] == manifest(tmp_path / "two")["source"]


def test_a_path_wins(hub: Hub, published: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tensors = tensors_of(config_of())
    write_checkpoint(tmp_path / ID, config_of(), tensors)
    write_checkpoint(tmp_path / f"{ID}@v1", config_of(), tensors)
    assert pt2tf(ID, "one").towers == ("vit", "bert")
    assert pt2tf(f"{ID}@v1", "two").commit is None
    assert hub.requests == []


@pytest.mark.parametrize(
    "source", ["./org/clip", "/org/clip", "../clip", "org/clip/", "a/b/c", "clip.safetensors", "~/x"]
)
def test_what_looks_like_a_path_is_never_asked_for(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SourceError) as caught:
        pt2tf(source, tmp_path / "out")
    assert str(caught.value) == (
        f"{Path(source).expanduser()}: not found; name a folder that save_pretrained wrote, or a weights file in one"
    )
    with pytest.raises(SourceError, match="not found; name a folder"):
        pt2tf(Path("org/clip"), tmp_path / "out")
    assert hub.requests == []


@pytest.mark.parametrize(
    ("source", "revision", "message"),
    [
        ("./x", "main", "./x: a path, which has no revision; leave --revision out, or name a Hub id"),
        ("a/b@v1", "v2", "a/b@v1: --revision says v2; give one of the two"),
        ("a/b@../../x", None, "'../../x' is not a revision; name a branch, a tag or a commit"),
        ("a/b@", None, "'' is not a revision; name a branch, a tag or a commit"),
        ("a/b", "refs//x", "'refs//x' is not a revision; name a branch, a tag or a commit"),
    ],
)
def test_revisions_that_are_none(hub: Hub, tmp_path: Path, source: str, revision: str | None, message: str) -> None:
    with pytest.raises(SourceError) as caught:
        pt2tf(source, tmp_path / "out", revision=revision)
    assert str(caught.value) == message
    assert hub.requests == []


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("https://huggingface.co/org/clip", "the model by its id, org/clip"),
        ("https://huggingface.co/org/clip/tree/main", "the model by its id, org/clip"),
        ("https://huggingface.co/org/clip/blob/v1/model.safetensors?x=1", "the model by its id, org/clip@v1"),
        ("https://me:secret@huggingface.co/org/clip?token=secret", "the model by its id, org/clip"),
        ("ftp://host/clip", "a model on the Hub by its id, NAMESPACE/NAME"),
    ],
)
def test_addresses(hub: Hub, tmp_path: Path, source: str, told: str) -> None:
    with pytest.raises(SourceError) as caught:
        pt2tf(source, tmp_path / "out")
    shown = source.replace("me:secret@", "").partition("?")[0]
    assert str(caught.value) == f"{shown}: a URL; name {told}"
    assert hub.requests == []


@pytest.mark.parametrize("name", [f"hf://{ID}", f"hf://{ID}@main", f"hf://{ID}@v1/"])
def test_a_url_of_the_hub_is_an_id(hub: Hub, published: str, tmp_path: Path, name: str) -> None:
    hub.repositories[ID].refs["v1"] = hub.repositories[ID].refs["main"]
    found = inspect(name)
    assert (str(found.source), found.problem) == (name.removeprefix("hf://").rstrip("/"), None)
    result = pt2tf(name, tmp_path / "out")
    assert str(result.source) == str(found.source) and manifest(result.out)["source"]["hub"] == ID


def test_a_folder_of_a_model_by_url(hub: Hub, tmp_path: Path) -> None:
    hub.add(ID, {f"inner/{name}": data for name, data in files_of(FIXTURE).items()})
    pt2tf(f"hf://{ID}/inner", tmp_path / "out")
    pt2tf(FIXTURE, tmp_path / "here")
    assert (tmp_path / "out" / "tf_model.h5").read_bytes() == (tmp_path / "here" / "tf_model.h5").read_bytes()


@pytest.mark.parametrize(
    ("source", "revision", "message"),
    [
        (
            "hf://org/clip/tf_model.h5",
            None,
            "hf://org/clip/tf_model.h5: a file of a model; name the model by its id, org/clip",
        ),
        ("hf://org/clip@v1", "v2", "hf://org/clip@v1: --revision says v2; give one of the two"),
        ("hf://org/cl--ip", None, "hf://org/cl--ip: not a model on the Hub; one is written hf://NAMESPACE/NAME"),
        ("hf://org/clip@..", None, "'..' is not a revision; name a branch, a tag or a commit"),
        ("hf://me:secret@org/clip", None, "hf://org/clip: the URL holds a user name, a password, a token or a port"),
    ],
)
def test_urls_of_the_hub_that_are_refused(
    hub: Hub, tmp_path: Path, source: str, revision: str | None, message: str
) -> None:
    with pytest.raises(SourceError) as caught:
        pt2tf(source, tmp_path / "out", revision=revision)
    assert str(caught.value).startswith(message)
    assert hub.requests == []


def test_an_empty_name(hub: Hub, tmp_path: Path) -> None:
    """Of a variable of the shell that is not set; it is not this folder."""
    with pytest.raises(SourceError, match="^the source has an empty name; name a folder, "):
        pt2tf("", tmp_path / "out")


def test_out_is_refused_before_anything_is_asked(hub: Hub, published: str, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(Exception, match="exists already"):
        pt2tf(ID, tmp_path / "out")
    with pytest.raises(Exception, match="exists already"):
        combine(ID, ID, tmp_path / "out")
    assert hub.requests == []


def test_combine(hub: Hub, published: str, tmp_path: Path) -> None:
    combine(ID, f"{ID}@main", tmp_path / "joined")
    pinned = f"{ID}@{hub.repositories[ID].refs['main']}"
    assert manifest(tmp_path / "joined")["source"]["path"] == f"{pinned} + {pinned}"
    assert (tmp_path / "joined" / "tokenizer.json").is_file()


def test_verify_finds_the_source_in_the_cache(hub: Hub, published: str, tmp_path: Path) -> None:
    pt2tf(ID, tmp_path / "tf")
    asked = len(hub.requests)
    recorded = read_manifest(tmp_path / "tf")
    found = find_source(tmp_path / "tf", recorded, [])
    assert found is not None
    assert found.name == "model.safetensors"
    assert len(hub.requests) == asked
    found.unlink()
    assert find_source(tmp_path / "tf", recorded, []) is None


def test_a_token_is_sent_to_the_hub_only(hub: Hub, published: str, tmp_path: Path, monkeypatch: Any) -> None:
    hub.repositories[ID].private = True
    with pytest.raises(HubError):
        pt2tf(ID, tmp_path / "out")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    pt2tf(ID, tmp_path / "out")
    assert hub.asked("GET /cdn/")
    assert not any("authorization" in request.headers for request in hub.asked("GET /cdn/"))


# --- what goes wrong ----------------------------------------------------------------------------------------------

_MISSING = (
    "not a file or folder here, nor a public model on the Hub; correct the name, or log in with `hf "
    "auth login` or set HF_TOKEN"
)
_OFFLINE = (
    "not a file or folder here, nor complete in the Hub's cache, and HF_HUB_OFFLINE is set; correct the name, "
    "or unset HF_HUB_OFFLINE once to download it"
)


def refused(source: str, out: Path, kind: type[Exception] = HubError) -> str:
    with pytest.raises(kind) as caught:
        pt2tf(source, out)
    assert not out.exists()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_missing(hub: Hub, tmp_path: Path) -> None:
    assert refused("org/nothing", tmp_path / "out") == f"org/nothing: {_MISSING}"
    assert refused("nothing", tmp_path / "out") == f"nothing: {_MISSING}"


def test_missing_revision(hub: Hub, published: str, tmp_path: Path) -> None:
    assert refused(f"{ID}@v9", tmp_path / "out") == (
        f"{ID}@v9: has no revision v9 on the Hub; name a branch, a tag or a commit of it"
    )


def test_gated(hub: Hub, published: str, tmp_path: Path) -> None:
    hub.repositories[ID].gated = True
    assert refused(ID, tmp_path / "out") == (
        f"{ID}: a gated model, to which its owner grants access; ask for access on its page, then log in with "
        "`hf auth login` or set HF_TOKEN"
    )


def test_offline(hub: Hub, published: str, tmp_path: Path, offline: Any) -> None:
    offline()
    assert refused(ID, tmp_path / "out") == f"{ID}: {_OFFLINE}"
    assert hub.requests == []


def test_offline_with_weights_missing(hub: Hub, published: str, tmp_path: Path, offline: Any) -> None:
    from huggingface_hub import hf_hub_download

    hf_hub_download(ID, "config.json", endpoint=hub.endpoint)
    offline()
    assert refused(ID, tmp_path / "out") == f"{ID}: {_OFFLINE}"


def test_no_weights(hub: Hub, tmp_path: Path) -> None:
    config = files_of(FIXTURE, "config.json")
    hub.add(ID, config | {"model.onnx": b"x", "model.gguf": b"x"})
    assert refused(ID, tmp_path / "out", SourceError) == (
        f"{ID}: holds no weights of PyTorch that can be read (files that look like weights: model.gguf, model.onnx); "
        "name a model that "
        "save_pretrained wrote"
    )
    hub.add("org/tf", config | {"tf_model.h5": b"x"})
    assert refused("org/tf", tmp_path / "out", WrongFramework) == (
        "org/tf: holds TensorFlow weights, expected PyTorch; use `convert tf2pt`"
    )
    hub.add("org/none", {"README.md": b"x"})
    assert refused("org/none", tmp_path / "out", SourceError) == (
        "org/none: has no config.json, so it is not a model that save_pretrained wrote; name one that is"
    )
    assert not hub.asked("GET /cdn/")


@pytest.mark.parametrize("status", [429, 500, 503])
@pytest.mark.parametrize("where", ["HEAD .*/resolve/", "GET /api/models/", "GET /cdn/"])
def test_the_hub_is_not_well(hub: Hub, published: str, tmp_path: Path, status: int, where: str) -> None:
    forever = [Answer(status, b"{}", {"Retry-After": "0"})] * 200
    hub.fail(where, *forever)
    said = refused(ID, tmp_path / "out")
    if status == 429:
        assert said == (
            f"{ID}: the Hub's rate limit is reached (429); wait some minutes and run this again, or log in "
            "with `hf auth login`; downloads resume"
        )
    else:
        assert said == f"{ID}: the Hub reports an error ({status}); run this again later; downloads resume"
    hub.faults.clear()
    pt2tf(ID, tmp_path / "out")


def test_no_network(hub: Hub, published: str, tmp_path: Path, monkeypatch: Any) -> None:
    point_at(monkeypatch, "http://127.0.0.1:9")
    said = refused(ID, tmp_path / "out")
    assert said.startswith(f"{ID}: no file or folder here, and cannot reach the Hub (Connect")
    assert said.endswith("; check the network or HTTPS_PROXY and run this again; downloads resume")


def test_no_network_is_told_at_once(hub: Hub, tmp_path: Path, monkeypatch: Any) -> None:
    """Not after huggingface_hub has tried six times to fetch a file of a model whose listing was out of reach."""
    waited: list[float] = []
    monkeypatch.setattr(time, "sleep", waited.append)
    point_at(monkeypatch, "http://127.0.0.1:9")
    refused(ID, tmp_path / "out")
    assert sum(waited) <= 5


@pytest.mark.parametrize("status", [500, 503])
def test_a_listing_that_fails_once(hub: Hub, published: str, tmp_path: Path, status: int) -> None:
    """huggingface_hub asks for it once only."""
    hub.fail("GET /api/models/", Answer(status, b"{}"), Answer(status, b"{}"))
    pt2tf(ID, tmp_path / "out")
    assert len(hub.asked(f"GET /api/models/{ID}$")) == 3


def test_a_token_that_the_hub_does_not_know(hub: Hub, published: str, tmp_path: Path, monkeypatch: Any) -> None:
    """It refuses even what needs no token."""
    monkeypatch.setenv("HF_TOKEN", "hf_expired")
    said = refused(ID, tmp_path / "out")
    assert "HF_TOKEN" in said
    assert "hf_expired" not in said


@pytest.mark.parametrize("token", ["hf_\x01x", "hf_\u00e9", "hf_a b"])
def test_a_token_that_is_none(hub: Hub, published: str, tmp_path: Path, monkeypatch: Any, token: str) -> None:
    """It is not sent: an HTTP client complains of it by printing it."""
    monkeypatch.setenv("HF_TOKEN", token)
    for look in (lambda: pt2tf(ID, tmp_path / "out"), lambda: inspect(ID)):
        with pytest.raises(HubError) as caught:
            look()
        assert str(caught.value) == (
            "the Hub token holds characters that no token has; copy it into HF_TOKEN again, or log in with `hf auth "
            "login`"
        )
        assert caught.value.__cause__ is None
    assert hub.requests == []


@pytest.mark.parametrize(
    ("name", "value"),
    [("HTTP_PROXY", "foo://me:secret@x"), ("SSL_CERT_FILE", "/none"), ("REQUESTS_CA_BUNDLE", "/none")],
)
def test_a_network_that_cannot_be_set_up(hub: Hub, tmp_path: Path, monkeypatch: Any, name: str, value: str) -> None:
    for other in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(other, raising=False)
    forget_sessions()
    monkeypatch.setenv(name, value)
    try:
        said = refused("org/nothing", tmp_path / "out")
    finally:
        monkeypatch.delenv(name)
        forget_sessions()
    # Not every client reads every one of these.
    assert (
        "check HTTPS_PROXY and SSL_CERT_FILE" in said or "check the network or HTTPS_PROXY" in said or _MISSING in said
    )
    assert "secret" not in said


@pytest.mark.parametrize("kind", ["file", "none"])
def test_a_cache_that_cannot_be_there(hub: Hub, published: str, tmp_path: Path, monkeypatch: Any, kind: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    place = {"file": str(tmp_path / "file" / "hub"), "none": "/proc/none/hub"}[kind]
    set_constants(monkeypatch, HF_HUB_CACHE=place, HUGGINGFACE_HUB_CACHE=place)
    said = refused(ID, tmp_path / "out")
    assert said.startswith(f"{ID}: cannot write to the cache ([Errno ")
    assert said.endswith("; set HF_HOME to a folder that you may write to")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]


def test_a_token_that_cannot_be_read(hub: Hub, published: str, tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "file").write_bytes(b"")
    set_constants(monkeypatch, HF_TOKEN_PATH=str(tmp_path / "file" / "token"))
    said = refused(ID, tmp_path / "out")
    assert said.startswith("cannot read the Hub token ([Errno 20] Not a directory: ")


def test_no_network_but_a_cache(hub: Hub, published: str, tmp_path: Path, monkeypatch: Any, caplog: Any) -> None:
    pt2tf(ID, tmp_path / "one")
    point_at(monkeypatch, "http://127.0.0.1:9")
    with caplog.at_level(logging.WARNING, "converter.hub"):
        pt2tf(ID, tmp_path / "two")
    assert f"{ID}: cannot reach the Hub; using the cache" in caplog.text
    assert manifest(tmp_path / "one")["source"] == manifest(tmp_path / "two")["source"]


def test_a_broken_download_resumes(hub: Hub, published: str, tmp_path: Path) -> None:
    """The connection closes in the middle; the client asks for the rest, and the file is whole."""
    weights = (FIXTURE / "model.safetensors").read_bytes()
    cut = 3 * 2**16
    hub.faults.append(lambda request: _cut(hub, request, weights, cut))
    pt2tf(ID, tmp_path / "out")
    whole = [request for request in hub.asked("GET /cdn/") if request.range != "bytes=0-65535"]
    assert [request.range for request in whole] == [None, f"bytes={cut}-"]
    assert_same(load(_blob(tmp_path, "model.safetensors")), load(FIXTURE / "model.safetensors"))


def _cut(hub: Hub, request: Any, weights: bytes, cut: int) -> Answer | None:
    if request.method != "GET" or not request.path.startswith("/cdn/") or request.range is not None:
        return None
    return Answer(200, weights, {"ETag": '"x"'}, cut=cut)


def _blob(tmp_path: Path, name: str) -> Path:
    return next((tmp_path / "cache").glob(f"models--*/snapshots/*/{name}"))


def test_a_download_that_stays_broken(hub: Hub, published: str, tmp_path: Path) -> None:
    weights = (FIXTURE / "model.safetensors").read_bytes()
    hub.faults.append(lambda r: Answer(200, weights, cut=0) if r.path.startswith("/cdn/") and not r.range else None)
    said = refused(ID, tmp_path / "out")
    assert said.startswith(f"{ID}: ")
    assert said.endswith("run this again; downloads resume")
    hub.faults.clear()
    forget_sessions()
    pt2tf(ID, tmp_path / "out")


def test_a_slow_hub(hub: Hub, published: str, tmp_path: Path) -> None:
    hub.fail("GET .*tokenizer.json", Answer(200, (FIXTURE / "tokenizer.json").read_bytes(), slow=0.3))
    pt2tf(ID, tmp_path / "out")


# --- hostile repositories -----------------------------------------------------------------------------------------


def hostile(hub: Hub, names: list[str]) -> Repository:
    repository = hub.add(ID, files_of(FIXTURE))
    listed = [{"rfilename": name, "size": 10} for name in names]
    repository.siblings = [{"rfilename": n, "size": len(c)} for n, c in repository.files().items()] + listed
    return repository


def test_names_that_lead_elsewhere_are_not_fetched(hub: Hub, tmp_path: Path) -> None:
    hostile(hub, ["../../evil", "/etc/passwd", "a/../../b", "tokenizer.json\0", "conversion.json", "\x1b[31m"])
    listed = hub.repositories[ID].siblings
    for name in ("../x.jinja", "a/x.jinja", "..\\x.jinja", "\x1b[31m.jinja", ".x.jinja", "x.py", "x" * 300 + ".jinja"):
        listed += [{"rfilename": f"{TEMPLATES}/{name}", "size": 10}]
    pt2tf(ID, tmp_path / "out")
    assert fetched(hub) == SIDECARS | {"model.safetensors"}


@pytest.mark.parametrize("name", ["../x.safetensors", "/x.safetensors", "a/b.safetensors", "..", "x\\y", "*"])
def test_shards_that_lie_elsewhere(hub: Hub, tmp_path: Path, name: str) -> None:
    files = files_of(FIXTURE)
    del files["model.safetensors"]
    files["model.safetensors.index.json"] = json.dumps({"weight_map": {"logit_scale": name}}).encode()
    hub.add(ID, files)
    before = sorted(path for path in tmp_path.rglob("*") if "cache" not in path.parts)
    said = refused(ID, tmp_path / "out", SourceError)
    assert "not a file in its folder" in said or said.endswith("which is not on the Hub; tell the model's owner")
    assert sorted(path for path in tmp_path.rglob("*") if "cache" not in path.parts) == before


def test_a_star_is_a_letter(hub: Hub, tmp_path: Path) -> None:
    """What is downloaded is named by patterns: a shard called ``*`` means no other file."""
    files = files_of(FIXTURE)
    files["*"] = files.pop("model.safetensors")
    names = dict.fromkeys(load_bytes(files["*"]), "*")
    hub.add(ID, {**files, "model.safetensors.index.json": json.dumps({"weight_map": names}).encode(), "evil.py": b"x"})
    with contextlib.suppress(ConverterError):
        pt2tf(ID, tmp_path / "out")
    assert "evil.py" not in fetched(hub)
    assert not list((tmp_path / "cache").rglob("evil.py"))


def test_a_commit_that_is_none(hub: Hub, published: str, tmp_path: Path) -> None:
    hub.repositories[ID].resolved = "v1"
    assert refused(ID, tmp_path / "out") == (
        f"{ID}: the Hub calls its commit v1, which is not a commit; check HF_ENDPOINT"
    )


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("tokenizer.json", "such a file"),
        ("a.tiktoken", "such a file"),
        (f"{TEMPLATES}/a.jinja", "such a file"),
        ("config.json", "a config"),
        ("model.safetensors.index.json", "an index"),
    ],
)
def test_files_too_large(hub: Hub, tmp_path: Path, name: str, what: str) -> None:
    repository = hostile(hub, [name] if name.endswith((".index.json", ".tiktoken", ".jinja")) else [])
    assert repository.siblings is not None
    for entry in repository.siblings:
        if entry["rfilename"] == name:
            entry["size"] = 2**40
    if name.endswith(".index.json"):
        repository.siblings = [entry for entry in repository.siblings if entry["rfilename"] != "model.safetensors"]
    assert refused(ID, tmp_path / "out", SourceError) == (
        f"{ID}: {name} has 1,099,511,627,776 bytes, too many for {what}; name another model"
    )
    assert name not in fetched(hub)


def test_a_branch_that_moves(hub: Hub, published: str, tmp_path: Path) -> None:
    """Everything is of one commit, that of config.json."""
    first = hub.repositories[ID].refs["main"]

    def moves(request: Any) -> None:
        if request.method == "HEAD" and request.path.endswith("config.json") and len(hub.repositories[ID].commits) == 1:
            hub.repositories[ID].commit({"special_tokens_map.json": b"{}", "tokenizer.json": b"{}"})

    hub.faults.append(moves)
    pt2tf(ID, tmp_path / "out")
    second = hub.repositories[ID].refs["main"]
    assert manifest(tmp_path / "out")["source"]["commit"] == second != first
    assert (tmp_path / "out" / "tokenizer.json").read_bytes() == b"{}"
    assert (tmp_path / "out" / "special_tokens_map.json").is_file()


def test_what_the_hub_has_recorded_is_compared(hub: Hub, published: str, tmp_path: Path) -> None:
    """A file that changed in the cache is not converted as if it were the Hub's."""
    pt2tf(ID, tmp_path / "one")
    blob = _blob(tmp_path, "model.safetensors").resolve()
    content = bytearray(blob.read_bytes())
    (source,) = manifest(tmp_path / "one")["source"]["files"]
    assert source["sha256"] == hashlib.sha256(content).hexdigest()
    assert source["blake3"] == blake3.blake3(content).hexdigest()
    content[-1] ^= 1
    blob.write_bytes(content)
    with pytest.raises(SourceError, match="its sha256 differs from the Hub's"):
        pt2tf(ID, tmp_path / "two")
    assert not (tmp_path / "two").exists()

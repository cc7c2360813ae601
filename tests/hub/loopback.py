"""The Hub's HTTP interface on this machine, as far as huggingface_hub 0.23 to 2.x ask for it, and no further.

Written after the client: huggingface_hub's hf_api.py, file_download.py, _commit_api.py, lfs.py and community.py, and the
LFS batch API (git-lfs/docs/api/batch.md). Large files are redirected to a second port, as the Hub does to its CDN.
"""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

from tests.hub.repositories import LARGE, File, PullRequest, Repository, sha256

USER, TOKEN = "me", "hf_loopback"
_TOKENS = (f"Bearer {TOKEN}", f"Bearer {TOKEN}-granted")
_WHEN = "2026-01-01T00:00:00.000Z"


@dataclass(frozen=True)
class Request:
    """A request as it came."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes

    @property
    def range(self) -> str | None:
        """The requested bytes."""
        return self.headers.get("range")


@dataclass
class Answer:
    """What is sent back. ``cut`` closes the connection after this many bytes of the body; ``slow`` waits before it."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None
    slow: float = 0.0


@dataclass
class Hub:
    """The Hub.

    Attributes:
        repositories: by id.
        requests: every request so far.
        stored: large files by sha256, whether a commit names them or not.
        faults: called first with each request; an answer of theirs is sent instead.
        ranges: whether the CDN serves parts of files.
        part_size: in how large parts a file that is larger is to be uploaded; None takes each whole.
        ignored: names of files that a .gitignore keeps out.
        parts: of uploads that are not complete, by sha256 and number.
    """

    repositories: dict[str, Repository] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    stored: dict[str, bytes] = field(default_factory=dict)
    faults: list[Callable[[Request], Answer | None]] = field(default_factory=list)
    ranges: bool = True
    part_size: int | None = None
    ignored: set[str] = field(default_factory=set)
    parts: dict[str, dict[int, bytes]] = field(default_factory=dict)
    endpoint: str = ""
    cdn: str = ""

    def add(self, repo: str, files: dict[str, bytes], **flags: Any) -> Repository:
        """Makes a repository with one commit."""
        repository = self.repositories.setdefault(repo, Repository(repo, **flags))
        repository.commit({".gitattributes": b"*.h5 filter=lfs\n", **files})
        return repository

    def asked(self, pattern: str) -> list[Request]:
        """The requests so far whose method and path match."""
        return [request for request in self.requests if re.search(pattern, f"{request.method} {request.path}")]

    def fail(self, pattern: str, *answers: Answer) -> None:
        """Answers matching requests with these, one after the other, then as usual; the last may hold forever."""
        left = list(answers)

        def fault(request: Request) -> Answer | None:
            if not left or not re.search(pattern, f"{request.method} {request.path}"):
                return None
            return left.pop(0)

        self.faults.append(fault)

    def answer(self, request: Request) -> Answer:
        """What the Hub says to a request."""
        self.requests.append(request)
        for fault in self.faults:
            if (said := fault(request)) is not None:
                return said
        if "/cdn/" not in request.path and request.headers.get("authorization") not in (None, *_TOKENS):
            return _error(401, "", "Invalid credentials in Authorization header")
        for method, pattern, respond in _ROUTES:
            match = re.fullmatch(pattern, request.path)
            if request.method == method and match:
                return respond(self, request, *map(unquote, match.groups()))
        return Answer(404, b'{"error":"no such route"}')

    def large(self, digest: str) -> bytes | None:
        """A large file by its sha256."""
        if digest in self.stored:
            return self.stored[digest]
        trees = (tree for repository in self.repositories.values() for tree in repository.commits.values())
        return next((file.content for tree in trees for file in tree.values() if file.sha256 == digest), None)


def _json(value: Any, status: int = 200, **headers: str) -> Answer:
    return Answer(status, json.dumps(value).encode(), {"Content-Type": "application/json", **headers})


def _error(status: int, code: str, message: str = "") -> Answer:
    return _json({"error": message or code}, status, **{"X-Error-Code": code, "X-Error-Message": message or code})


def _found(hub: Hub, request: Request, repo: str, revision: str) -> tuple[Repository, str] | Answer:
    repository = hub.repositories.get(repo)
    told = request.headers.get("authorization") == f"Bearer {TOKEN}"
    if repository is None or (repository.private and not told):
        # Whether it is missing or private is not told.
        return _error(404 if told else 401, "RepoNotFound", "Repository not found")
    commit = repository.at(revision)
    if commit is None:
        return _error(404, "RevisionNotFound", f"Invalid rev repo: {revision}")
    return repository, commit


def _described(file: File) -> dict[str, Any]:
    described: dict[str, Any] = {"size": len(file.content)}
    if file.large:
        described["lfs"] = {"size": len(file.content), "pointerSize": 134}
    return described


def _models(hub: Hub, request: Request) -> Answer:
    """Models of an author, one a page."""
    author, after = request.query["author"][0], int(request.query.get("cursor", ["0"])[0])
    ids = sorted(name for name in hub.repositories if name.startswith(f"{author}/"))
    link = f'<{hub.endpoint}/api/models?author={author}&cursor={after + 1}>; rel="next"'
    more = {"Link": link} if ids[after + 1 :] else {}
    own = {"private": False, "downloads": 0, "likes": 0, "tags": []}
    told = [{"_id": name, "id": name, "modelId": name, **own} for name in ids[after : after + 1]]
    return _json(told, **more)


def _model_info(hub: Hub, request: Request, repo: str, revision: str = "main") -> Answer:
    found = _found(hub, request, repo, revision)
    if isinstance(found, Answer):
        return found
    repository, commit = found
    siblings: list[dict[str, Any]] = []
    for name, file in sorted(repository.commits[commit].items()):
        entry: dict[str, Any] = {"rfilename": name}
        if "blobs" in request.query:
            entry |= _described(file) | {"blobId": file.oid}
            if file.large:
                entry["lfs"]["sha256"] = file.sha256
        siblings.append(entry)
    info = {
        "_id": "1",
        "id": repo,
        "modelId": repo,
        "sha": commit,
        "private": repository.private,
        "gated": repository.gated,
    }
    told = siblings if repository.siblings is None else repository.siblings
    info |= _card_data(repository.commits[commit])
    return _json({**info, "siblings": told, "tags": [], "downloads": 0, "likes": 0, "createdAt": _WHEN})


def _card_data(files: dict[str, Any]) -> dict[str, Any]:
    """The metadata of the model card, which the Hub reads as YAML."""
    text = files["README.md"].content.decode("utf-8", "replace") if "README.md" in files else ""
    block = re.match(r"\A\s*---\n(.*?)^---$", text, re.DOTALL | re.MULTILINE)
    try:
        found = yaml.safe_load(block[1]) if block else None
    except yaml.YAMLError:
        return {}
    return {"cardData": found} if isinstance(found, dict) else {}


def _tree(hub: Hub, request: Request, repo: str, revision: str) -> Answer:
    found = _found(hub, request, repo, revision)
    if isinstance(found, Answer):
        return found
    repository, commit = found
    entries = []
    for name, file in sorted(repository.commits[commit].items()):
        entry = {"type": "file", "oid": file.oid, "path": name, **_described(file)}
        if file.large:
            entry["lfs"]["oid"] = file.sha256
        entries.append(entry)
    return _json(entries)


def _resolve(hub: Hub, request: Request, repo: str, revision: str, name: str) -> Answer:
    found = _found(hub, request, repo, revision)
    if isinstance(found, Answer):
        return found
    repository, commit = found
    if repository.gated and request.headers.get("authorization") != f"Bearer {TOKEN}-granted":
        return _error(403, "GatedRepo", f"Access to model {repo} is restricted")
    headers = {"X-Repo-Commit": repository.resolved or commit, "Accept-Ranges": "bytes"}
    file = repository.commits[commit].get(name)
    if file is None:
        return Answer(404, b"Entry not found", headers | {"X-Error-Code": "EntryNotFound"})
    headers |= {"ETag": f'"{file.etag}"'}
    if file.large:
        linked = {"X-Linked-Size": str(len(file.content)), "X-Linked-ETag": f'"{file.etag}"'}
        return Answer(302, b"", headers | linked | {"Location": f"{hub.cdn}/cdn/{file.sha256}?signature=x"})
    return _content(request, file.content, headers)


def _cdn(hub: Hub, request: Request, digest: str) -> Answer:
    content = hub.large(digest)
    if content is None or "authorization" in request.headers:
        return Answer(403, b"signed addresses take no token")
    return _content(request, content, {"ETag": f'"{digest}"'}, hub.ranges)


def _content(request: Request, content: bytes, headers: dict[str, str], ranges: bool = True) -> Answer:
    asked = re.fullmatch(r"bytes=(\d+)-(\d*)", request.range or "")
    if not asked or not ranges:
        return Answer(200, content, headers)
    start, stop = int(asked[1]), min(int(asked[2] or len(content) - 1), len(content) - 1)
    if start >= len(content):
        return Answer(416, b"", headers | {"Content-Range": f"bytes */{len(content)}"})
    return Answer(206, content[start : stop + 1], headers | {"Content-Range": f"bytes {start}-{stop}/{len(content)}"})


def _needs_token(request: Request) -> Answer | None:
    if request.headers.get("authorization") != f"Bearer {TOKEN}":
        return _json({"error": "Invalid username or password."}, 401)
    return None


def _whoami(hub: Hub, request: Request) -> Answer:
    return _needs_token(request) or _json({"type": "user", "name": USER, "orgs": [], "auth": {"type": "access_token"}})


def _create(hub: Hub, request: Request) -> Answer:
    asked = json.loads(request.body)
    repo = f"{asked.get('organization') or USER}/{asked['name']}"
    if refused := _needs_token(request):
        return refused
    if repo in hub.repositories:
        return _json({"error": "You already created this model repo", "url": f"{hub.endpoint}/{repo}"}, 409)
    private = asked.get("visibility") == "private" or bool(asked.get("private"))
    hub.repositories[repo] = Repository(repo, private=private)
    hub.repositories[repo].commit({".gitattributes": b"*.h5 filter=lfs\n"}, message="initial commit")
    return _json({"url": f"{hub.endpoint}/{repo}", "name": repo, "id": "1"})


def _validate(hub: Hub, request: Request) -> Answer:
    return _json({"errors": [], "warnings": []})


def _preupload(hub: Hub, request: Request, repo: str, revision: str) -> Answer:
    found = _found(hub, request, repo, revision)
    if isinstance(found, Answer):
        return found
    files = hub.repositories[repo].commits[found[1]]
    told = []
    for file in json.loads(request.body)["files"]:
        name = file["path"]
        entry = {
            "path": name,
            "shouldIgnore": name in hub.ignored,
            "uploadMode": "lfs" if File(b"", _large(name)).large else "regular",
        }
        told.append(entry | ({"oid": files[name].etag} if name in files else {}))
    return _needs_token(request) or _json({"files": told})


def _large(name: str) -> bool:
    return name.endswith(LARGE)


def _batch(hub: Hub, request: Request, repo: str) -> Answer:
    objects = []
    for item in json.loads(request.body)["objects"]:
        entry = {"oid": item["oid"], "size": item["size"]}
        if hub.large(item["oid"]) is None:
            upload: dict[str, Any] = {"href": f"{hub.cdn}/upload/{item['oid']}"}
            if hub.part_size is not None and item["size"] > hub.part_size:
                hub.parts[item["oid"]] = {}
                numbers = range(1, -(-item["size"] // hub.part_size) + 1)
                parts = {f"{number:05}": f"{hub.cdn}/upload/{item['oid']}/{number}" for number in numbers}
                upload = {
                    "href": f"{hub.cdn}/complete/{item['oid']}",
                    "header": {"chunk_size": str(hub.part_size), **parts},
                }
            entry["actions"] = {"upload": upload, "verify": {"href": f"{hub.endpoint}/verify"}}
        objects.append(entry)
    return _needs_token(request) or _json({"transfer": "basic", "objects": objects})


def _upload(hub: Hub, request: Request, digest: str) -> Answer:
    if sha256(request.body) != digest:
        return Answer(400, b"another content")
    hub.stored[digest] = request.body
    return Answer(200)


def _upload_part(hub: Hub, request: Request, digest: str, number: str) -> Answer:
    hub.parts[digest][int(number)] = request.body
    return Answer(200, b"", {"ETag": f'"{sha256(request.body)}"'})


def _complete(hub: Hub, request: Request, digest: str) -> Answer:
    """Puts an upload together, of the parts that the client says it has sent."""
    parts = hub.parts.pop(digest)
    told = {part["partNumber"]: part["etag"].strip('"') for part in json.loads(request.body)["parts"]}
    content = b"".join(parts[number] for number in sorted(parts))
    if told != {number: sha256(part) for number, part in parts.items()} or sha256(content) != digest:
        return Answer(400, b"other parts")
    hub.stored[digest] = content
    return Answer(200)


def _verify(hub: Hub, request: Request) -> Answer:
    return Answer(200 if json.loads(request.body)["oid"] in hub.stored else 404)


def _commit(hub: Hub, request: Request, repo: str, revision: str) -> Answer:
    found = _found(hub, request, repo, revision)
    if isinstance(found, Answer):
        return found
    if refused := _needs_token(request):
        return refused
    repository, parent = found
    lines = [json.loads(line) for line in request.body.splitlines()]
    header = next(line["value"] for line in lines if line["key"] == "header")
    if header.get("parentCommit") not in (None, parent):
        return _json({"error": "A commit has happened since"}, 412)
    files = {}
    for line in lines:
        value = line["value"]
        if line["key"] == "file":
            files[value["path"]] = File(base64.b64decode(value["content"]), large=False)
        elif line["key"] == "lfsFile":
            content = hub.large(value["oid"])
            if content is None:
                return _json({"error": f"LFS object {value['oid']} is not there"}, 400)
            files[value["path"]] = File(content, large=True)
    branch, pull = revision, None
    if "create_pr" in request.query:
        pull = PullRequest(len(repository.pulls) + 1, header["summary"], header.get("description", ""), USER)
        repository.pulls.append(pull)
        branch = f"refs/pr/{pull.num}"
    gone = [line["value"]["path"] for line in lines if line["key"] == "deletedFile"]
    commit = repository.commit_tree(files, branch, header["summary"], gone)
    told: dict[str, Any] = {"success": True, "commitOid": commit, "commitUrl": f"{hub.endpoint}/{repo}/commit/{commit}"}
    if pull is not None:
        told["pullRequestUrl"] = f"{hub.endpoint}/{repo}/discussions/{pull.num}"
    return _json(told)


def _brief(repository: Repository, pull: PullRequest) -> dict[str, Any]:
    return {
        "num": pull.num, "title": pull.title, "status": pull.status, "isPullRequest": pull.is_pull_request,
        "author": {"name": pull.author}, "createdAt": _WHEN, "repo": {"name": repository.id, "type": "model"},
    }  # fmt: skip


def _discussions(hub: Hub, request: Request, repo: str) -> Answer:
    found = _found(hub, request, repo, "main")
    if isinstance(found, Answer):
        return found
    page, size = int(request.query.get("p", ["0"])[0]), 2
    told = [_brief(found[0], pull) for pull in found[0].pulls]
    return _json({"discussions": told[page * size : (page + 1) * size], "count": len(told), "start": page * size})


def _discussion(hub: Hub, request: Request, repo: str, num: str) -> Answer:
    repository = hub.repositories[repo]
    pull = repository.pulls[int(num) - 1]
    return _json(
        _brief(repository, pull)
        | {"changes": {"base": "refs/heads/main"}, "filesWithConflicts": False, "diff": "", "events": [_event(pull)]}
    )


def _event(pull: PullRequest) -> dict[str, Any]:
    data = {"edited": False, "hidden": False, "latest": {"raw": pull.body}}
    return {"id": "ab12", "type": "comment", "author": {"name": pull.author}, "createdAt": _WHEN, "data": data}


def _edit(hub: Hub, request: Request, repo: str, num: str) -> Answer:
    pull = hub.repositories[repo].pulls[int(num) - 1]
    pull.body = json.loads(request.body)["content"]
    return _needs_token(request) or _json({"updatedComment": _event(pull)})


_ID = r"/?((?:[\w.-]+/)?[\w.-]+)"
_ROUTES: tuple[tuple[str, str, Callable[..., Answer]], ...] = (
    ("GET", r"/api/models", _models),
    ("GET", rf"/api/models{_ID}", _model_info),
    ("GET", rf"/api/models{_ID}/revision/([^/]+)", _model_info),
    ("GET", rf"/api/models{_ID}/tree/([^/]+)", _tree),
    ("GET", rf"{_ID}/resolve/([^/]+)/(.+)", _resolve),
    ("HEAD", rf"{_ID}/resolve/([^/]+)/(.+)", _resolve),
    ("GET", r"/cdn/(\w+)", _cdn),
    ("GET", r"/api/whoami-v2", _whoami),
    ("POST", r"/api/repos/create", _create),
    ("POST", r"/api/validate-yaml", _validate),
    ("POST", rf"/api/models{_ID}/preupload/([^/]+)", _preupload),
    ("POST", rf"{_ID}\.git/info/lfs/objects/batch", _batch),
    ("PUT", r"/upload/(\w+)", _upload),
    ("PUT", r"/upload/(\w+)/(\d+)", _upload_part),
    ("POST", r"/complete/(\w+)", _complete),
    ("POST", r"/verify", _verify),
    ("POST", rf"/api/models{_ID}/commit/([^/]+)", _commit),
    ("GET", rf"/api/models{_ID}/discussions", _discussions),
    ("GET", rf"/api/models{_ID}/discussions/(\d+)", _discussion),
    ("POST", rf"/api/models{_ID}/discussions/(\d+)/comment/ab12/edit", _edit),
)


@contextmanager
def serving() -> Iterator[Hub]:
    """Serves a Hub on two ports of the loopback interface."""
    hub = Hub()
    servers = [_server(hub), _server(hub)]
    hub.endpoint, hub.cdn = (f"http://127.0.0.1:{server.server_port}" for server in servers)
    threads = [threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True) for server in servers]
    for thread in threads:
        thread.start()
    try:
        yield hub
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()
        for thread in threads:
            thread.join()


def _server(hub: Hub) -> ThreadingHTTPServer:
    waiting = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 5
        disable_nagle_algorithm = True  # or headers and body wait 40 ms for each other

        def _answer(self) -> None:
            parts = urlsplit(self.path)
            length = int(self.headers.get("Content-Length") or 0)
            headers = {name.lower(): value for name, value in self.headers.items()}
            body, query = self.rfile.read(length), parse_qs(parts.query, keep_blank_values=True)
            answer = hub.answer(Request(self.command, parts.path, query, headers, body))
            waiting.wait(answer.slow)
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(answer.body if answer.cut is None else answer.body[: answer.cut])
            if answer.cut is not None:
                self.close_connection = True

        do_GET = do_HEAD = do_POST = do_PUT = _answer  # noqa: N815 - as http.server asks for them

        def log_message(self, format: str, *args: Any) -> None:
            """Says nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: Any) -> None:
            """A client that goes away is no error."""

    return Server(("127.0.0.1", 0), Handler)

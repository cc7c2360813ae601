"""Publishing: what is refused, what is uploaded, the pull request that is found again, and the model card."""

from __future__ import annotations

import hashlib
import json
import shutil
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from converter import convert, inspect, pt2tf, push, tf2pt
from converter.errors import HubError, SourceError, TargetError
from converter.folder.manifest import VERSION
from converter.folder.proof import read_proof, write_proof
from converter.hub.explained import UPLOADED, explained
from converter.names.families import JOINED, family
from converter.parity.comparison import ParityReport, TapComparison, Tolerance
from converter.parity.finding import Finding
from converter.parity.verify import Verification
from converter.publishing import pushing, repository
from converter.publishing.card import BEGIN, END, metadata
from tests.cli.conftest import Convert
from tests.cli.schemas import validated
from tests.compat.towers import ALL_VISION
from tests.hub.conftest import ID, files_of, set_constants
from tests.hub.loopback import TOKEN, USER, Answer, Hub
from tests.hub.repositories import PullRequest
from tests.tiny import FIXTURE, OF_FAMILIES, config_of, load, tensors_of, write_checkpoint

# huggingface_hub 1.x and 2.x upload so.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload raw bytes:DeprecationWarning")

CARD = """---
# The licence was chosen by the authors.
license: "apache-2.0"
tags:
- clip
- vision   # kept
model-index:
- name: tiny
  results: []
language: [it]
---

# Tiny

Text that stays.
"""


def verification(folder: Path, passed: bool = True) -> Verification:
    """What verify finds, without running a model."""
    taps = tuple(
        TapComparison(name, 0, (2, 3), "F32", compared=6, exceeding=0 if passed else 1, greatest_absolute=value)
        for name, value in (
            ("vision.layers.0", 1e-7),
            ("vision.layers.1", 3e-6),
            ("logits_per_image", 2e-5),
        )
    )
    run = {"framework": "pt|evil", "dtype": "float32", "device": "cpu"}
    report = ParityReport(Tolerance(1e-4), run, run, ("a batch",), taps)
    status: Any = "passed" if passed else "failed"
    findings = tuple(Finding(part, status, 3) for part in ("files", "weights", "outputs"))
    return Verification(folder, findings, report)


@pytest.fixture
def token(monkeypatch: pytest.MonkeyPatch) -> str:
    """The token of the Hub's one user, where everybody looks for it."""
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    return TOKEN


@pytest.fixture
def out(hub: Hub, published: str, token: str, tmp_path: Path) -> Path:
    """The model on the Hub converted to TensorFlow, and verified; its tokenizer has a second chat template."""
    hub.repositories[ID].commit({"additional_chat_templates/rag.jinja": b"{{ messages }}"})
    pt2tf(published, tmp_path / "tf")
    write_proof(tmp_path / "tf", verification(tmp_path / "tf").to_json())
    hub.requests.clear()
    return tmp_path / "tf"


def writes(hub: Hub) -> list[str]:
    return [f"{request.method} {request.path}" for request in hub.asked("^(POST|PUT|DELETE|PATCH)")]


def test_a_new_repository(hub: Hub, out: Path) -> None:
    result = push(out, f"{USER}/clip-tf", private=True)
    made = hub.repositories[f"{USER}/clip-tf"]
    assert (result.action, result.creates, result.revision, result.verified) == ("commit", True, "main", True)
    assert made.private
    assert made.pulls == []
    held = made.files()
    assert {name: held[name] for name in files_of(out)} == files_of(out)
    assert {change.name: change.action for change in result.changes} == dict.fromkeys(
        [*files_of(out), "README.md"], "add"
    )
    assert result.commit == made.refs["main"]
    assert result.url == f"{hub.endpoint}/{USER}/clip-tf/commit/{result.commit}"
    assert json.loads(json.dumps(result.to_json()))["changes"][0] == {
        "name": "tf_model.h5", "action": "add", "size": (out / "tf_model.h5").stat().st_size,
    }  # fmt: skip


def test_the_card(hub: Hub, out: Path) -> None:
    push(out, f"{USER}/clip-tf")
    card = hub.repositories[f"{USER}/clip-tf"].files()["README.md"].decode()
    commit = hub.repositories[ID].refs["main"]
    assert metadata(card) == {
        "library_name": "dual-encoder-converter", "tags": ["vision-text-dual-encoder", "tf"], "base_model": ID,
    }  # fmt: skip
    assert (
        card[card.index(BEGIN) :]
        == f"""{BEGIN}
## TensorFlow weights

Converted from [`{ID}`](https://huggingface.co/{ID}) at commit `{commit}` by `dual-encoder-converter {VERSION}`.

All tensors match the source bit for bit, and all layer outputs are within tolerance: 18 values, 3 layer outputs of \
1 batches, atol 0.0001, rtol 0 (pt\\|evil, float32, cpu (reference) against pt\\|evil, float32, cpu (candidate)). \
`parity.json` has all figures.

| output | max abs diff | values compared |
|---|---:|---:|
| vision tower | 3.0e-06 | 12 |
| logits per image | 2.0e-05 | 6 |

To reproduce them:

```console
convert pt2tf {ID}@{commit} out --format h5
convert verify out
```

To load them:

```python
from converter import TFVisionTextDualEncoderModel  # or from transformers 4.x

model = TFVisionTextDualEncoderModel.from_pretrained("{USER}/clip-tf")
```
{END}
"""
    )


LICENCE = {"license": "other", "license_name": "my-licence", "license_link": "https://a.b/LICENSE"}


def test_the_card_has_the_licence_of_the_source(hub: Hub, published: str, token: str, tmp_path: Path) -> None:
    """Of a model on the Hub as the Hub tells it; of a folder from its card; of what was converted before from its manifest."""
    text = "---\n" + "".join(f"{name}: {value}\n" for name, value in LICENCE.items()) + "---\n# Tiny\n"
    hub.repositories[ID].commit({"README.md": text.encode()})
    pt2tf(published, tmp_path / "tf")
    recorded = json.loads((tmp_path / "tf" / "conversion.json").read_text())["source"]
    assert recorded["license"] == LICENCE
    tf2pt(tmp_path / "tf", tmp_path / "pt")
    shutil.copytree(FIXTURE, tmp_path / "here")
    (tmp_path / "here" / "README.md").write_text("---\nlicense: mit\n---\n")
    pt2tf(tmp_path / "here" / "model.safetensors", tmp_path / "from-here")
    for name, licence in {"tf": LICENCE, "pt": LICENCE, "from-here": {"license": "mit"}}.items():
        push(tmp_path / name, f"{USER}/{name}", allow_unverified=True)
        found = metadata(hub.repositories[f"{USER}/{name}"].files()["README.md"].decode())
        assert {field: value for field, value in found.items() if field.startswith("license")} == licence
    hub.add(f"{USER}/held", {"README.md": b"---\nlicense: gpl-3.0\n---\n"})
    push(tmp_path / "tf", f"{USER}/held", allow_unverified=True, create_pr=False)
    found = metadata(hub.repositories[f"{USER}/held"].files()["README.md"].decode())
    assert found["license"] == "gpl-3.0"
    assert "license_name" not in found


def test_a_manifest_cannot_write_a_card(hub: Hub, out: Path) -> None:
    """What is no licence in a manifest of strangers does not reach the card."""
    manifest = json.loads((out / "conversion.json").read_text())
    manifest["source"]["license"] = {"license": "mit\ntags: [evil]", "license_name": "x"}
    (out / "conversion.json").write_text(json.dumps(manifest))
    done = push(out, f"{USER}/made", allow_unverified=True, dry_run=True)
    assert "evil" not in done.card_diff
    assert "license" not in done.card_diff


@pytest.mark.parametrize(
    ("to", "there", "library"),
    [
        ("tf", {}, "dual-encoder-converter"),
        ("tf", {"tf_model.h5": b"older"}, "dual-encoder-converter"),
        ("tf", {"pytorch_model.bin": b"weights"}, None),
        ("tf", {"model.safetensors": b"weights"}, None),
        ("tf", {"README.md": b"---\nlibrary_name: mine\n---\n"}, "mine"),
        ("pt", {}, "transformers"),
        ("flax", {}, "transformers"),
    ],
)
def test_the_library_is_one_that_loads_the_weights(
    hub: Hub, token: str, tmp_path: Path, to: Any, there: dict[str, bytes], library: str | None
) -> None:
    """transformers 5 has no TensorFlow; of a repository with PyTorch's weights the Hub knows the library by itself."""
    convert(FIXTURE, tmp_path / "out", to)
    hub.add(f"{USER}/made", {".gitattributes": b"", **there})
    push(tmp_path / "out", f"{USER}/made", allow_unverified=True, create_pr=False)
    card = hub.repositories[f"{USER}/made"].files()["README.md"].decode()
    assert metadata(card).get("library_name") == library


def test_how_to_load_is_said_of_what_can_be_loaded(hub: Hub, token: str, out: Path, tmp_path: Path) -> None:
    config = config_of(fields={"vision_config": {"model_type": "dinov2", **ALL_VISION["dinov2"]}})
    write_checkpoint(tmp_path / "source", config, tensors_of(config))
    pt2tf(tmp_path / "source", tmp_path / "dinov2")
    done = push(tmp_path / "dinov2", f"{USER}/dinov2", allow_unverified=True, dry_run=True)
    assert "\nfrom converter import TFVisionTextDualEncoderModel\n" in done.description
    tf2pt(out, tmp_path / "flat", names="v5")
    done = push(tmp_path / "flat", f"{USER}/flat", allow_unverified=True, dry_run=True)
    assert "\nfrom transformers import VisionTextDualEncoderModel  # 5.6 or later\n" in done.description


@pytest.mark.parametrize("name", sorted(OF_FAMILIES))
def test_the_card_of_a_family_names_its_classes(hub: Hub, token: str, tmp_path: Path, name: str) -> None:
    config, of = OF_FAMILIES[name], family(name)
    write_checkpoint(tmp_path / "source", config, tensors_of(config))
    pt2tf(tmp_path / "source", tmp_path / "tf")
    tf2pt(tmp_path / "tf", tmp_path / "pt", names="v5")
    later = "  # 5.6 or later" if name == JOINED else "  # 5.x" if name == "altclip" else ""
    for folder, home, kind, of_version in (
        ("tf", "converter", of.classes["tf"], "  # or from transformers 4.x" if "tf" in of.in_transformers_4 else ""),
        ("pt", "transformers", of.classes["pt"], later),
    ):
        done = push(tmp_path / folder, f"{USER}/made", allow_unverified=True, dry_run=True)
        assert f"\nfrom {home} import {kind}{of_version}\n\nmodel = {kind}.from_pretrained(" in done.description
        assert f"+- {name}\n" in done.card_diff


def test_flax_is_published_and_fetched(hub: Hub, token: str, tmp_path: Path) -> None:
    """The card names transformers 4's class, the tag is Flax's, and the Hub's choice of files takes the weights back."""
    convert(FIXTURE, tmp_path / "flax", "flax")
    done = push(tmp_path / "flax", f"{USER}/made", allow_unverified=True)
    files = hub.repositories[f"{USER}/made"].files()
    assert metadata(files["README.md"].decode())["tags"] == ["vision-text-dual-encoder", "jax"]
    kind = "FlaxVisionTextDualEncoderModel"
    assert f"\nfrom transformers import {kind}  # transformers 4.x\n\nmodel = {kind}." in files["README.md"].decode()
    assert done.action == "commit"
    back = pt2tf(f"{USER}/made", tmp_path / "tf")
    assert (back.direction, back.container) == ("flax2tf", "Flax msgpack")
    assert inspect(f"{USER}/made").framework == "flax"


@pytest.mark.parametrize("said", ["blip", "../clip", ["clip"], None, 3])
def test_a_family_that_is_none_is_refused(hub: Hub, token: str, out: Path, said: Any) -> None:
    manifest = json.loads((out / "conversion.json").read_text())
    (out / "conversion.json").write_text(json.dumps(manifest | {"family": said}))
    with pytest.raises(SourceError, match="conversion.json names an unknown family: "):
        push(out, f"{USER}/made", allow_unverified=True, dry_run=True)


def test_sources_that_have_no_sums(hub: Hub, token: str, tmp_path: Path) -> None:
    """Two models of one shape are two, and nobody is told to convert what is not there any more."""
    said = {}
    for seed in (1, 2):
        weights = {name: np.asarray(value + seed) for name, value in load(FIXTURE / "model.safetensors").items()}
        config = json.loads((FIXTURE / "config.json").read_text())
        for kind, options in (("memory", {}), ("unchecked", {"check": False})):
            source: Any = weights if kind == "memory" else tmp_path / f"source-{seed}"
            if kind == "unchecked":
                source.mkdir()
                save_file(weights, source / "model.safetensors", metadata={"format": "pt"})
                (source / "config.json").write_text(json.dumps(config))
            folder = tmp_path / f"{kind}-{seed}"
            pt2tf(source, folder, **({"config": config} if kind == "memory" else {}), **options)  # type: ignore[arg-type]
            done = push(folder, f"{USER}/new", allow_unverified=True, dry_run=True)
            said[kind, seed] = done.description
    marks = {key: text.rstrip().splitlines()[-1] for key, text in said.items()}
    assert marks["memory", 1] != marks["memory", 2]
    assert marks["unchecked", 1] != marks["unchecked", 2]
    assert "To reproduce" not in said["memory", 1]
    assert "Made from weights in memory" in said["memory", 1]
    assert "convert pt2tf SOURCE out" in said["unchecked", 1]
    assert "Converted from files without recorded sums by `" in said["unchecked", 1]


def test_the_rest_of_a_card_is_not_touched(hub: Hub, out: Path) -> None:
    hub.add(f"{USER}/clip-tf", {"README.md": CARD.encode()})
    push(out, f"{USER}/clip-tf", create_pr=False)
    card = hub.repositories[f"{USER}/clip-tf"].files()["README.md"].decode()
    kept = CARD.replace("- clip\n- vision   # kept\n", "").replace("tags:\n", "")
    assert [line for line in kept.splitlines() if line not in card.splitlines()] == []
    assert metadata(card) == metadata(CARD) | {
        "tags": ["clip", "vision", "vision-text-dual-encoder", "tf"], "library_name": "dual-encoder-converter",
        "base_model": ID,
    }  # fmt: skip
    again = push(out, f"{USER}/clip-tf", create_pr=False)
    assert again.action == "nothing"
    assert hub.repositories[f"{USER}/clip-tf"].files()["README.md"].decode() == card


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_metadata_in_many_spellings(hub: Hub, out: Path, ending: str) -> None:
    for number, (before, tags) in enumerate([
        ("tags: clip\n", ["clip"]), ('"tags": [clip]\n', ["clip"]), ("tags:\n  - clip\n  - x\n", ["clip", "x"]),
        ("base_model:\n- a/b\n\n# above\nlicense: mit\n", []), ("", []), ("base_model: a/b\n", []),
    ]):  # fmt: skip
        name = f"{USER}/card{number}"
        text = f"---\n{before}---\nText\n".replace("\n", ending)
        hub.add(name, {"README.md": text.encode()})
        push(out, name, create_pr=False)
        card = hub.repositories[name].files()["README.md"].decode()
        found = metadata(card)
        assert found["tags"] == [*tags, "vision-text-dual-encoder", "tf"], before
        assert found["base_model"] == (["a/b", ID] if "a/b" in before else ID), before
        assert ("Text" + ending) in card
        assert ("# above" in before) == ("# above" in card)


def test_a_pull_request(hub: Hub, out: Path) -> None:
    """To the repository that the weights came from: what it has already is not uploaded."""
    before = hub.repositories[ID].files()
    result = push(out, ID, message="TensorFlow, please")
    repository = hub.repositories[ID]
    assert (result.action, result.revision, result.creates) == ("pull request", "refs/pr/1", False)
    assert result.url == f"{hub.endpoint}/{ID}/discussions/1"
    assert repository.files() == before
    actions = {change.name: change.action for change in result.changes}
    assert actions["tokenizer.json"] == "same"
    assert actions["tf_model.h5"] == "replace"
    assert actions["README.md"] == "replace"
    pull = repository.pulls[0]
    assert pull.title == "TensorFlow, please"
    assert pull.body == result.description
    assert "| vision tower | 3.0e-06 | 12 |" in pull.body
    sent = {n for n, c in repository.files("refs/pr/1").items() if before.get(n) != c}
    assert sent == {name for name, action in actions.items() if action != "same"}
    assert repository.files("refs/pr/1")["model.safetensors"] == before["model.safetensors"]
    assert "base_model" not in metadata(repository.files("refs/pr/1")["README.md"].decode())


def test_large_files_that_are_there_are_not_uploaded(hub: Hub, out: Path) -> None:
    hub.add(f"{USER}/clip-tf", {"tf_model.h5": (out / "tf_model.h5").read_bytes()})
    result = push(out, f"{USER}/clip-tf")
    assert {c.name: c.action for c in result.changes}["tf_model.h5"] == "same"
    assert not hub.asked("PUT /upload/")


def test_the_second_push_finds_the_first(hub: Hub, out: Path) -> None:
    """Open, ours, of the same source: skipped where it holds all of it, updated otherwise; others are left alone."""
    repository = hub.repositories[ID]
    first = push(out, ID)
    marker = repository.pulls[0].body
    again = push(out, ID)
    assert (again.action, again.revision) == ("nothing", "refs/pr/1")
    assert len(repository.pulls) == 1
    record = json.loads((out / "parity.json").read_text())
    record["report"]["taps"][0]["greatest_absolute"] = 0.5
    (out / "parity.json").write_text(json.dumps(record))
    updated = push(out, ID)
    assert (updated.action, updated.revision, updated.url) == ("update", "refs/pr/1", first.url)
    assert {c.name for c in updated.changes if c.action != "same"} == {"parity.json", "README.md"}
    assert "5.0e-01" in repository.pulls[0].body
    assert len(repository.pulls) == 1
    repository.pulls[0].status = "closed"
    assert push(out, ID).revision == "refs/pr/2"
    repository.pulls[1].author = "somebody"
    assert push(out, ID).revision == "refs/pr/3"
    repository.pulls[2].body = "another text"
    assert push(out, ID).revision == "refs/pr/4"
    repository.pulls[3] = PullRequest(4, "a discussion", marker, USER, is_pull_request=False)
    assert push(out, ID).revision == "refs/pr/5"
    repository.commit({"README.md": b"# Newer\n"})
    pt2tf(ID, out.with_name("newer"), overwrite=True)
    write_proof(out.with_name("newer"), verification(out).to_json())
    assert push(out.with_name("newer"), ID).revision == "refs/pr/6"


def test_large_files_go_up_in_parts(hub: Hub, out: Path) -> None:
    """As those of more than 5 GB do."""
    hub.part_size = 100_000
    push(out, f"{USER}/clip-tf")
    assert hub.repositories[f"{USER}/clip-tf"].files()["tf_model.h5"] == (out / "tf_model.h5").read_bytes()
    assert len({request.path for request in hub.asked("PUT /upload/")}) == 6


def test_a_push_that_was_interrupted(hub: Hub, out: Path) -> None:
    """The repository was made, and is empty: it gets the commit that it was made for, not a pull request."""
    hub.fail("POST .*/commit/", *[Answer(503, b"{}", {"Retry-After": "0"})] * 50)
    with pytest.raises(HubError):
        push(out, f"{USER}/clip-tf", private=True)
    hub.faults.clear()
    sent = len(hub.asked("PUT /upload/"))
    result = push(out, f"{USER}/clip-tf")
    assert (result.action, result.creates, result.revision) == ("commit", False, "main")
    assert len(hub.asked("PUT /upload/")) == sent == 1
    assert push(out, f"{USER}/clip-tf").action == "nothing"


def test_what_the_repository_ignores(hub: Hub, out: Path) -> None:
    """huggingface_hub leaves such a file out and says nothing."""
    hub.ignored = {"tf_model.h5"}
    with pytest.raises(HubError) as caught:
        push(out, f"{USER}/clip-tf")
    assert str(caught.value) == (
        f"{USER}/clip-tf: not at main as sent: tf_model.h5; check whether its .gitignore lists it, and run this again"
    )


def test_to_a_pull_request(hub: Hub, out: Path) -> None:
    """For example of another user."""
    hub.repositories[ID].refs["refs/pr/7"] = hub.repositories[ID].refs["main"]
    result = push(out, ID, revision="refs/pr/7")
    assert (result.action, result.revision) == ("commit", "refs/pr/7")
    assert hub.repositories[ID].files("refs/pr/7")["conversion.json"] == (out / "conversion.json").read_bytes()
    assert hub.repositories[ID].pulls == []
    hub.requests.clear()
    assert refused(hub, out, revision="refs/pr/7", create_pr=True) == (
        "refs/pr/7 is a pull request already; leave --create-pr out to commit to it"
    )


def test_nothing_is_printed(
    hub: Hub, out: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The client's progress bars are for terminals; they are as they were before, afterwards."""
    from huggingface_hub.utils import are_progress_bars_disabled

    set_constants(monkeypatch, HF_HUB_DISABLE_PROGRESS_BARS=None)
    push(out, f"{USER}/clip-tf")
    assert capfd.readouterr() == ("", "")
    assert not are_progress_bars_disabled()


def test_of_two_pushes_the_first_to_end_brings_no_bars_back(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub.utils import are_progress_bars_disabled

    set_constants(monkeypatch, HF_HUB_DISABLE_PROGRESS_BARS=None)
    first, second = ExitStack(), ExitStack()
    for push_under_way in (first, second):
        push_under_way.enter_context(pushing._bars_on_terminals())
    first.close()
    assert are_progress_bars_disabled()
    second.close()
    assert not are_progress_bars_disabled()


def test_to_a_branch(hub: Hub, out: Path) -> None:
    hub.repositories[ID].refs["tf"] = hub.repositories[ID].refs["main"]
    before = hub.repositories[ID].files()
    result = push(out, ID, revision="tf", create_pr=False)
    assert (result.action, result.revision) == ("commit", "tf")
    assert hub.repositories[ID].files() == before
    assert hub.repositories[ID].files("tf")["conversion.json"] == (out / "conversion.json").read_bytes()


def test_dry_run(hub: Hub, out: Path, convert: Convert) -> None:
    result = push(out, ID, dry_run=True)
    assert (result.action, result.dry_run, result.revision) == ("pull request", True, "")
    done = convert("push", out, ID, "--dry-run")
    assert (done.status, done.err) == (0, "")
    assert done.out.startswith(f"{ID}: would open a pull request\n  replace tf_model.h5 (")
    assert "\n+<!-- dual-encoder-converter: begin -->\n" in done.out
    assert "\ntitle: Add TensorFlow weights\n" in done.out
    new = convert("push", out, f"{USER}/new", "--dry-run")
    assert new.out.startswith(
        f"{USER}/new: would create the repository and would commit to main\n  add     tf_model.h5 ("
    )
    assert "\n\ntitle: Add TensorFlow weights\n\n--- README.md\n" in new.out
    found = validated(convert("push", out, ID, "--dry-run", "--json").out, "publication")
    assert (found["out"], found["changes"][0]["action"]) == (str(out), "replace")
    assert convert("push", out, ID, "--dry-run", "--quiet") == (0, "", "")
    assert writes(hub) == []
    assert f"{USER}/new" not in hub.repositories
    assert json.loads(convert("push", out, ID, "--dry-run", "--json").out)["description"] == result.description


# --- what is refused ----------------------------------------------------------------------------------------------


def refused(hub: Hub, folder: Path, repository: str = ID, kind: type[Exception] = TargetError, **options: Any) -> str:
    with pytest.raises(kind) as caught:
        push(folder, repository, **options)
    assert writes(hub) == []
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_not_verified(hub: Hub, out: Path) -> None:
    ending = f"; run `convert verify {out}`, or push it anyway with --allow-unverified"
    start = f"{out}: not verified against its source: "
    record = json.loads((out / "parity.json").read_text())
    for change, why in (
        ({"passed": False}, "parity.json records a failed verification"),
        ({"report": None}, "parity.json records a failed verification"),
        ({"report": {**record["report"], "passed": False}}, "parity.json records a failed verification"),
        ({"manifest_sha256": "0" * 64}, "parity.json belongs to another conversion.json"),
        ({"format": 3}, "parity.json was written by another version"),
        ({"findings": record["findings"][:2]}, "parity.json does not record that files, weights and outputs passed"),
        ({"findings": 7}, "parity.json was not written by `convert verify` ('int' object is not iterable)"),
    ):
        (out / "parity.json").write_text(json.dumps(record | change))
        assert refused(hub, out) == f"{start}{why}{ending}"
    write_proof(out, verification(out, passed=False).to_json())
    assert refused(hub, out) == f"{start}parity.json records a failed verification{ending}"
    (out / "parity.json").unlink()
    assert refused(hub, out) == f"{start}no parity.json{ending}"
    result = push(out, ID, allow_unverified=True)
    assert not result.verified
    assert "**Not verified**: published without comparing it with its source." in hub.repositories[ID].pulls[0].body
    assert "parity.json" not in {change.name for change in result.changes}


def test_the_proof_of_other_weights_does_not_stay(hub: Hub, out: Path) -> None:
    push(out, ID, create_pr=False)
    assert "parity.json" in hub.repositories[ID].files()
    (out / "parity.json").unlink()
    before = set(hub.repositories[ID].files())
    planned = push(out, ID, create_pr=False, allow_unverified=True, dry_run=True)
    assert [(change.name, change.action) for change in planned.changes if change.action != "same"] == [
        ("README.md", "replace"), ("parity.json", "delete"),
    ]  # fmt: skip
    done = push(out, ID, create_pr=False, allow_unverified=True)
    assert done.changes == planned.changes
    assert set(hub.repositories[ID].files()) == before - {"parity.json"}
    assert push(out, ID, create_pr=False, allow_unverified=True).action == "nothing"


def test_not_what_the_manifest_says(hub: Hub, out: Path) -> None:
    content = bytearray((out / "tf_model.h5").read_bytes())
    content[-1] ^= 1
    (out / "tf_model.h5").write_bytes(content)
    assert refused(hub, out) == (
        f"{out}: does not match its conversion.json: tf_model.h5 has a BLAKE3 sum that differs from the manifest; "
        "convert again, or push it anyway with --allow-unverified"
    )


@pytest.mark.parametrize("written_in", [1, 2])
def test_unchecked_files_are_held_to_what_was_verified(
    hub: Hub, published: str, token: str, tmp_path: Path, written_in: int
) -> None:
    """A manifest of --no-check has sizes only; parity.json has the sums, those of format 1 sha256's."""
    folder = tmp_path / "unchecked"
    pt2tf(published, folder, check=False)
    write_proof(folder, verification(folder).to_json())
    if written_in == 1:
        record = json.loads((folder / "parity.json").read_text())
        sums = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in record["files"]}
        assert len(sums) == 5
        assert sums != record["files"]
        (folder / "parity.json").write_text(json.dumps(record | {"format": 1, "files": sums}))
    push(folder, f"{USER}/one")
    content = bytearray((folder / "tf_model.h5").read_bytes())
    content[-1] ^= 1
    (folder / "tf_model.h5").write_bytes(content)
    hub.requests.clear()
    assert "tf_model.h5 differs from the file that parity.json describes" in refused(hub, folder, f"{USER}/two")


def test_a_source_that_is_none(hub: Hub, out: Path) -> None:
    """What a manifest says goes into the card of a model that others read."""
    manifest = json.loads((out / "conversion.json").read_text())
    manifest["source"]["hub"] = "a/b](https://evil"
    (out / "conversion.json").write_text(json.dumps(manifest))
    assert refused(hub, out, kind=SourceError, allow_unverified=True) == (
        f"{out}: conversion.json names a source that is not a Hub model: a/b](https://evil@"
        f"{manifest['source']['commit']}; convert again"
    )


def test_not_a_conversion(hub: Hub, token: str) -> None:
    assert refused(hub, FIXTURE, kind=SourceError) == (
        f"{FIXTURE}: no conversion made this folder (no conversion.json); convert first, then push"
    )
    assert refused(hub, FIXTURE / "none", kind=SourceError) == (
        f"{FIXTURE / 'none'}: not found; name the folder that a conversion made"
    )
    for name in ("a/b/c", "model", "../x"):
        assert refused(hub, FIXTURE, name, SourceError) == (
            f"{name}: not the id of a repository; one is written NAMESPACE/NAME"
        )


def test_weights_of_the_other_framework_are_not_replaced(hub: Hub, out: Path, tmp_path: Path) -> None:
    folder = tmp_path / "tf-safetensors"
    pt2tf(ID, folder, format="safetensors")
    write_proof(folder, verification(folder).to_json())
    hub.requests.clear()
    said = "its {name} is PyTorch's, which TensorFlow's would replace; convert again with --format h5, which can lie beside it"
    assert refused(hub, folder) == f"{ID}: " + said.format(name="model.safetensors")
    assert refused(hub, folder, allow_unverified=True) == f"{ID}: " + said.format(name="model.safetensors")
    tf2pt(out, tmp_path / "shards", max_shard_size="40KB")
    hub.add("org/shards", files_of(tmp_path / "shards"))
    assert refused(hub, folder, "org/shards") == "org/shards: " + said.format(name="model.safetensors.index.json")
    push(folder, f"{USER}/fresh")
    tf2pt(out, tmp_path / "pt")
    write_proof(tmp_path / "pt", verification(tmp_path / "pt").to_json())
    hub.requests.clear()
    assert refused(hub, tmp_path / "pt", f"{USER}/fresh") == (
        f"{USER}/fresh: its model.safetensors is TensorFlow's, which PyTorch's would replace; convert again with --format "
        "bin, which can lie beside it"
    )


@pytest.mark.parametrize(
    ("there", "options", "written"),
    [
        ({"tf_model.h5": b"old"}, {"max_shard_size": "200KB"}, "tf_model.h5.index.json"),
        ({"tf_model.h5": b"old"}, {"format": "safetensors"}, "model.safetensors"),
        ({"tf_model.h5.index.json": b"{}"}, {"format": "safetensors"}, "model.safetensors"),
    ],
)
def test_weights_that_nobody_would_load(
    hub: Hub, published: str, token: str, tmp_path: Path, there: dict[str, bytes], options: Any, written: str
) -> None:
    folder = tmp_path / "tf"
    pt2tf(published, folder, **options)
    write_proof(folder, verification(folder).to_json())
    hub.add("org/old", there)
    hub.requests.clear()
    name = next(iter(there))
    assert refused(hub, folder, "org/old") == (
        f"org/old: its {name} would be loaded instead of {written}; convert again so that {name} is written, which replaces "
        "it, delete it on the Hub first, or push to a repository of its own"
    )


def test_a_pickle_beside_safetensors(hub: Hub, out: Path, tmp_path: Path) -> None:
    tf2pt(out, tmp_path / "bin", format="bin")
    write_proof(tmp_path / "bin", verification(tmp_path / "bin").to_json())
    hub.add("org/old", files_of(FIXTURE))
    hub.requests.clear()
    assert refused(hub, tmp_path / "bin", "org/old").startswith(
        "org/old: its model.safetensors would be loaded instead of pytorch_model.bin; "
    )
    pt2tf(tmp_path / "bin", tmp_path / "tf5", format="safetensors")
    hub.add("org/tensorflow", files_of(tmp_path / "tf5"))
    assert push(tmp_path / "bin", "org/tensorflow").action == "pull request"  # whose readers tell the two apart


def test_one_file_instead_of_shards(hub: Hub, out: Path) -> None:
    hub.add("org/old", {"tf_model.h5.index.json": b"{}"})
    assert push(out, "org/old").action == "pull request"


def test_no_token(hub: Hub, out: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.delenv("HF_TOKEN")
    assert refused(hub, out, kind=HubError) == (
        "publishing needs a token with write access; log in with `hf auth login`, or set HF_TOKEN"
    )
    assert push(out, ID, dry_run=True).action == "pull request"
    assert "without a token, private models and your open pull requests are invisible; log in first" in caplog.text
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert "token" in refused(hub, out, kind=HubError)
    monkeypatch.setenv("HF_TOKEN", "hf_s\u00e9cret")
    assert refused(hub, out, kind=HubError) == (
        "the Hub token holds characters that no token has; copy it into HF_TOKEN again, or log in with `hf auth login`"
    )


def test_a_pull_request_to_nothing(hub: Hub, out: Path) -> None:
    assert refused(hub, out, f"{USER}/none", HubError, create_pr=True) == (
        f"{USER}/none: does not exist, or is private. A pull request needs a repository; leave --create-pr out to create it"
    )


def test_a_card_of_gigabytes(hub: Hub, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repository, "MAX_CARD_BYTES", 100)
    hub.add(f"{USER}/long", {"README.md": b"x" * 101})
    assert refused(hub, out, f"{USER}/long") == f"{USER}/long: its README.md is larger than 100 bytes; shorten it first"


def test_a_card_that_is_not_yaml(hub: Hub, out: Path) -> None:
    hub.add(f"{USER}/bad", {"README.md": b"---\n{[\n---\n"})
    said = refused(hub, out, f"{USER}/bad", SourceError)
    assert said.startswith("README.md: its metadata cannot be read: ")
    assert said.endswith("; correct it on the Hub first")


@pytest.mark.parametrize(
    "before",
    [
        "base_model: &b a/b\nx: *b\n",
        "{tags: [clip], license: no}\n",
        "tags: [clip,\nvision]\n",
        "tags: [a]\ntags: [b]\n",
    ],
)
def test_metadata_that_cannot_be_added_to(hub: Hub, out: Path, before: str) -> None:
    """Writing all of it again would lose comments, and turn the language `no` into `false`."""
    hub.add(f"{USER}/odd", {"README.md": f"---\n{before}---\n".encode()})
    said = refused(hub, out, f"{USER}/odd", SourceError)
    assert said.startswith(
        "README.md: its metadata cannot be changed without touching other fields; set these on the Hub first: "
    )
    assert f'"{ID}"' in said


@pytest.mark.parametrize(
    ("before", "tags"), [("tags: 7\n", [7]), ("tags:\n", []), ("\n", []), ("language: no\ntags: [a, è]\n", ["a", "è"])]
)
def test_metadata_that_is_unusual(hub: Hub, out: Path, before: str, tags: list[Any]) -> None:
    hub.add(f"{USER}/odd", {"README.md": f"\ufeff---\n{before}---\nText\n".encode()})
    push(out, f"{USER}/odd", create_pr=False)
    card = hub.repositories[f"{USER}/odd"].files()["README.md"].decode()
    assert metadata(card)["tags"] == [*tags, "vision-text-dual-encoder", "tf"]
    assert card.startswith("---\n")
    assert ("language: no\n" in before) == ("language: no\n" in card)


def test_a_mark_of_ours_in_the_text_is_not_the_section(hub: Hub, out: Path) -> None:
    text = f"An example:\n{BEGIN}\nText that stays.\n"
    hub.add(f"{USER}/marks", {"README.md": text.encode()})
    push(out, f"{USER}/marks", create_pr=False)
    assert push(out, f"{USER}/marks", create_pr=False).action == "nothing"
    assert text in hub.repositories[f"{USER}/marks"].files()["README.md"].decode()


@pytest.mark.parametrize(
    ("where", "status", "said"),
    [
        ("POST .*/commit/", 403, "the Hub refuses (403"),
        ("POST .*/commit/", 412, "changed on the Hub meanwhile (412); run this again"),
        ("POST .*/commit/", 500, f"the Hub reports an error (500); run this again later; {UPLOADED}"),
        ("PUT /upload/", 500, f"the Hub reports an error (500); run this again later; {UPLOADED}"),
        ("POST .*objects/batch", 429, "the Hub's rate limit is reached (429)"),
    ],
)
def test_an_upload_that_fails(hub: Hub, out: Path, where: str, status: int, said: str) -> None:
    pt2tf(FIXTURE, out.with_name("other"), dtype="float16")
    write_proof(out.with_name("other"), verification(out).to_json())
    hub.fail(where, *[Answer(status, b"{}", {"Retry-After": "0"})] * 50)
    with pytest.raises(HubError) as caught:
        push(out.with_name("other"), ID)
    assert str(caught.value).startswith(f"{ID}: {said}")
    assert hub.repositories[ID].pulls == []
    hub.faults.clear()
    assert push(out.with_name("other"), ID).revision == "refs/pr/1"


@pytest.mark.parametrize("kind", [RuntimeError, ConnectionError, ValueError])
def test_xet_storage_that_fails(kind: type[Exception]) -> None:
    """hf_xet raises Python's own exceptions, from Rust."""
    frame: dict[str, Any] = {"__name__": "huggingface_hub._commit_api", "kind": kind}
    exec("def _upload_xet_files(): raise kind('no token')", frame)
    with pytest.raises(HubError) as caught, explained(ID, kept=UPLOADED):
        frame["_upload_xet_files"]()
    assert str(caught.value) == (
        f"{ID}: cannot reach the Hub's Xet storage ({kind.__name__}: no token); run this again, or set "
        f"HF_HUB_DISABLE_XET=1 to do without it; {UPLOADED}"
    )


def test_nothing_of_this_machine_is_published(hub: Hub, token: str, tmp_path: Path) -> None:
    """Neither the path of the source nor the names of folders; what was published counts where it is downloaded."""
    home = tmp_path / "home" / "alice" / "secret-project"
    config = {**config_of(), "_name_or_path": str(home / "run-7")}
    config["text_config"]["_name_or_path"] = "C:\\Users\\alice\\bert"
    config["vision_config"]["_name_or_path"] = "google/vit-base-patch16-224"
    write_checkpoint(home / "src", config, tensors_of(config))
    (home / "src" / "tokenizer_config.json").write_text(json.dumps({"name_or_path": str(home), "do_lower_case": True}))
    (home / "src" / "notes of alice.txt").touch()
    out = tmp_path / "made" / "tf"
    assert pt2tf(home / "src", out).left_behind == ("notes of alice.txt",)
    found = verification(out)
    assert found.report is not None
    run = {**found.report.reference, "source": "secret-project"}
    found = replace(found, report=replace(found.report, reference=run, candidate=run))
    write_proof(out, found.to_json())
    assert "secret-project" in (out / "conversion.json").read_text()  # by which it is verified here
    result = push(out, f"{USER}/clip-tf")
    held = hub.repositories[f"{USER}/clip-tf"].files()
    for name, content in held.items():
        assert not [word for word in (b"alice", b"secret", b"/home", str(tmp_path).encode()) if word in content], name
    assert json.loads(held["conversion.json"])["source"]["path"] == "SOURCE"
    assert json.loads(held["config.json"])["vision_config"]["_name_or_path"] == "google/vit-base-patch16-224"
    assert result.description == "" or "alice" not in result.description
    assert push(out, f"{USER}/clip-tf").action == "nothing"
    copy = tmp_path / "copy"
    copy.mkdir()
    for name, content in held.items():
        (copy / name).write_bytes(content)
    assert not isinstance(read_proof(copy), str)
    (copy / "README.md").unlink()
    assert push(copy, f"{USER}/clip-tf").action == "nothing"

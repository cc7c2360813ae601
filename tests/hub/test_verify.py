"""verify and reference with a model on the Hub, and the record that verify leaves for push."""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from converter import pt2tf, tf2pt, verify
from converter.conversion.streams import open_tensors
from converter.errors import HubError
from converter.folder.proof import Proof, read_proof
from converter.parity import verify as module
from converter.parity.finding import Finding
from converter.parity.runners.golden import Recording
from converter.parity.sums import canonical_hashes, sum_of
from tests.hub.conftest import ID, fetched
from tests.hub.loopback import Hub
from tests.hub.test_push import verification
from tests.tiny import FIXTURE


def test_the_source_by_its_id(hub: Hub, published: str, tmp_path: Path) -> None:
    pt2tf(FIXTURE, tmp_path / "tf")
    found = verify(tmp_path / "tf", reference=f"{ID}@main", weights_only=True)
    assert found.passed
    assert found.findings[1].against.endswith("/model.safetensors, bit for bit")
    assert "tf_model.h5" not in fetched(hub)


def test_the_reference_is_of_the_other_framework(hub: Hub, published: str, tmp_path: Path) -> None:
    tf2pt(ID, tmp_path / "pt")
    found = verify(tmp_path / "pt", reference=ID, weights_only=True)
    assert found.passed
    assert found.findings[1].against.endswith("/tf_model.h5, bit for bit")
    with pytest.raises(HubError, match="nor a public model on the Hub"):
        verify(tmp_path / "pt", reference="org/none", weights_only=True)


def test_another_source_is_told(hub: Hub, published: str, tmp_path: Path) -> None:
    pt2tf(FIXTURE, tmp_path / "tf", dtype="float16")
    found = verify(tmp_path / "tf", reference=ID, weights_only=True)
    assert found.passed
    manifest = json.loads((tmp_path / "tf" / "conversion.json").read_text())
    manifest["options"]["dtype"] = "keep"
    (tmp_path / "tf" / "conversion.json").write_text(json.dumps(manifest))
    assert not verify(tmp_path / "tf", reference=ID, weights_only=True).passed


def test_without_a_reference_the_cache_is_enough(hub: Hub, published: str, tmp_path: Path) -> None:
    pt2tf(ID, tmp_path / "tf")
    hub.requests.clear()
    found = verify(tmp_path / "tf", weights_only=True)
    assert found.findings[1].against.endswith("/model.safetensors, bit for bit")
    shutil.rmtree(tmp_path / "cache")
    found = verify(tmp_path / "tf", weights_only=True)
    assert found.findings[1].against == "the hashes in the manifest, as the source is gone"
    outputs = verify(tmp_path / "tf").findings[2]
    assert outputs == Finding("outputs", "not checked", problems=(
        "the source is not in the cache; download it with --reference "
        f"{ID}@{hub.repositories[ID].refs['main']}",
    ))  # fmt: skip
    assert hub.requests == []


@pytest.mark.parametrize("hub_id", ["../../x", "a/b/c", "", 7, "a/b@c", "/etc"])
def test_a_manifest_that_names_no_model(hub: Hub, published: str, tmp_path: Path, hub_id: Any) -> None:
    pt2tf(ID, tmp_path / "tf")
    hub.requests.clear()
    manifest = json.loads((tmp_path / "tf" / "conversion.json").read_text())
    for change in ({"hub": hub_id}, {"commit": "main"}, {"commit": None}, {"commit": "../" * 13 + "a"}):
        source = manifest["source"] | change
        (tmp_path / "tf" / "conversion.json").write_text(json.dumps(manifest | {"source": source}))
        found = verify(tmp_path / "tf", weights_only=True)
        assert found.findings[1].against == "the hashes in the manifest, as the source is gone"
    assert hub.requests == []


def test_reference_runs_what_was_fetched(hub: Hub, published: str, tmp_path: Path, monkeypatch: Any) -> None:
    ran: list[Path] = []
    monkeypatch.setattr(module, "start_reference", lambda *_: contextlib.nullcontext())
    monkeypatch.setattr(module, "all_batches", lambda *_: ((), ""))
    monkeypatch.setattr(module, "ask_run", lambda worker, path, *_: ran.append(path) or Recording({}, ()))
    monkeypatch.setattr(module, "write_recording", lambda *_, **__: None)
    recording = module.record_reference(ID, tmp_path / "golden.safetensors", revision="main")
    assert [(path.parent.name, path.name) for path in ran] == [(hub.repositories[ID].refs["main"], "model.safetensors")]
    with open_tensors(FIXTURE, "pt") as tensors:
        assert json.loads(recording.metadata["weights"]) == asdict(sum_of(canonical_hashes(tensors)))
    assert "tf_model.h5" not in fetched(hub)


# --- parity.json --------------------------------------------------------------------------------------------------


@pytest.fixture
def compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A conversion whose outputs are found to be equal, without a framework."""
    pt2tf(FIXTURE, tmp_path / "tf")
    monkeypatch.setattr(module, "Outputs", EqualOutputs)
    return tmp_path / "tf"


class EqualOutputs(contextlib.nullcontext[None]):
    """Stands where both frameworks would run."""

    trial = None

    def __init__(self, folder: Path, *_: object) -> None:
        super().__init__()
        self.folder = folder

    def compare(self) -> tuple[tuple[Finding, ...], Any]:
        found = (Finding("outputs", "passed", 18, "PyTorch"), Finding("samples", "not checked", problems=("none",)))
        return found, verification(self.folder).report


def test_a_verification_is_recorded(compared: Path) -> None:
    assert verify(compared).passed
    assert read_proof(compared) == "no parity.json"
    assert verify(compared, record=True, weights_only=True).passed
    assert read_proof(compared) == "no parity.json"
    found = verify(compared, record=True)
    held = read_proof(compared)
    assert isinstance(held, Proof)
    assert held.report == json.loads(json.dumps(found.to_json()))["report"]
    again = verify(compared, record=True)  # parity.json itself is no reason to fail
    assert again.findings == found.findings
    (compared / "parity.json").rename(compared / "other.json")
    (compared / "parity.json").symlink_to("other.json")
    assert read_proof(compared) == "no parity.json"


def test_a_folder_that_may_only_be_read(compared: Path, caplog: pytest.LogCaptureFixture) -> None:
    (compared / "parity.json").mkdir()  # root may write anywhere, but not over a folder
    with caplog.at_level(logging.WARNING, "converter.parity"):
        assert verify(compared, record=True).passed
    assert caplog.messages == [
        f"not recorded: {compared}/parity.json: cannot be written: Is a directory; keep the figures with --report "
        "FILE.json instead"
    ]


def test_what_is_converted_back_leaves_it_behind(compared: Path, tmp_path: Path) -> None:
    verify(compared, record=True)
    tf2pt(compared, tmp_path / "pt")
    assert not (tmp_path / "pt" / "parity.json").exists()

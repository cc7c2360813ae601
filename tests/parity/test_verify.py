"""``verify`` end to end: both frameworks in processes of their own, on the shipped checkpoint, and with what must fail."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from converter import pt2tf, tf2pt
from converter.parity.verify import VerifyOptions, record_reference, verify

pytestmark = [pytest.mark.torch, pytest.mark.tf, pytest.mark.slow]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tiny = Path(__file__).resolve().parents[2] / "fixtures" / "clip-bert-tiny"
    folder = tmp_path_factory.mktemp("verify")
    shutil.copytree(tiny, folder / "pt")
    pt2tf(folder / "pt", folder / "tf")
    return folder


def statuses(found) -> dict[str, str]:
    return {finding.part: finding.status for finding in found.findings}


ALL = {"files": "passed", "weights": "passed", "outputs": "passed"}


def test_there_and_back(pair):
    found = verify(pair / "tf", options=VerifyOptions(atol=1e-5))
    assert (statuses(found), found.passed) == (ALL, True)
    assert found.report is not None
    assert found.report.compared > 100_000
    json.dumps(found.to_json())
    tf2pt(pair / "tf", pair / "back")
    found = verify(pair / "back", options=VerifyOptions(atol=1e-10, float64=True))
    assert (statuses(found), found.passed) == (ALL, True)


def test_against_a_golden_reference_when_the_source_is_gone(pair, tmp_path):
    golden = tmp_path / "reference.safetensors"
    record_reference(pair / "pt", golden)
    pt2tf(pair / "pt", tmp_path / "tf")
    shutil.move(pair / "pt", pair / "elsewhere")
    try:
        found = verify(tmp_path / "tf", reference=golden, options=VerifyOptions(atol=1e-5))
        assert (statuses(found), found.passed) == (ALL, True)
        found = verify(tmp_path / "tf")
        assert statuses(found) == {**ALL, "outputs": "not checked"}
        assert not found.passed
    finally:
        shutil.move(pair / "elsewhere", pair / "pt")


@pytest.mark.parametrize(
    ("field", "value", "where"),
    [
        ("layer_norm_eps", 1e-3, "text tower, embeddings"),
        ("hidden_act", "relu", "text tower, layer 0"),
    ],
)
def test_a_config_that_changes_the_graph_shows_in_the_outputs_alone(pair, tmp_path, field, value, where):
    shutil.copytree(pair / "tf", tmp_path / "tf")
    config = json.loads((tmp_path / "tf" / "config.json").read_text())
    config["text_config"][field] = value
    (tmp_path / "tf" / "config.json").write_text(json.dumps(config))
    found = verify(tmp_path / "tf", reference=pair / "pt")
    assert statuses(found) == {"files": "failed", "weights": "passed", "outputs": "failed"}
    assert found.report is not None
    assert found.report.first_failure_in("vision") is None
    first = found.report.first_failure_in("text")
    assert first is not None
    assert first.where == where

"""``verify`` end to end: both frameworks in processes of their own, on the shipped checkpoint, and with what must fail."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from converter import pt2tf, tf2pt
from converter.errors import ParityError
from converter.parity.options import VerifyOptions
from converter.parity.samples import is_of_samples
from converter.parity.verify import record_reference, verify
from tests.tiny import config_of, tensors_of, write_checkpoint
from tests.towers import config_of_tower

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


ALL = {"files": "passed", "weights": "passed", "outputs": "passed", "samples": "passed"}
PICTURES = Path(__file__).resolve().parents[2] / "fixtures" / "pictures"


def test_there_and_back(pair, tmp_path):
    found = verify(pair / "tf", options=VerifyOptions(atol=1e-5))
    assert (statuses(found), found.passed) == (ALL, True)
    assert found.report is not None
    assert found.report.compared > 100_000
    json.dumps(found.to_json())
    tf2pt(pair / "tf", pair / "back")
    texts = tmp_path / "texts.txt"
    texts.write_text("due strisce nere\nuna croce verde\n", "utf-8")
    options = VerifyOptions(atol=1e-10, float64=True, texts=texts, images=(PICTURES,))
    found = verify(pair / "back", options=options)
    assert (statuses(found), found.passed) == (ALL, True)
    assert found.report is not None
    assert found.report.batches[-1] == "given texts and pictures through the processor"
    shapes = {tap.name: tap.shape for tap in found.report.comparisons if tap.batch == len(found.report.batches) - 1}
    assert shapes["logits_per_image"] == (3, 2)


def test_without_a_processor_samples_are_not_checked_and_those_named_fail(pair, tmp_path):
    for name in ("config.json", "model.safetensors"):
        (tmp_path / "pt").mkdir(exist_ok=True)
        shutil.copy(pair / "pt" / name, tmp_path / "pt" / name)
    pt2tf(tmp_path / "pt", tmp_path / "tf")
    found = verify(tmp_path / "tf", options=VerifyOptions(images=(PICTURES,)))
    assert (statuses(found), found.passed) == ({**ALL, "samples": "failed"}, False)
    assert found.findings[-1].problems == (
        f"{tmp_path}/tf: no tokenizer or image processor, so texts and pictures were not run",
    )
    (tmp_path / "tf" / "tokenizer_config.json").write_text("{}")
    found = verify(tmp_path / "tf")
    assert (statuses(found), found.passed) == ({**ALL, "samples": "not checked"}, True)
    assert (
        found.findings[-1]
        .problems[0]
        .startswith(f"PyTorch reference: the tokenizer of {tmp_path}/tf cannot be loaded: ")
    )


def test_against_a_golden_reference_when_the_source_is_gone(pair, tmp_path):
    golden = tmp_path / "reference.safetensors"
    recording = record_reference(pair / "pt", golden)
    assert is_of_samples(recording.batches[-1].title)
    pt2tf(pair / "pt", tmp_path / "tf")
    shutil.move(pair / "pt", pair / "elsewhere")
    try:
        found = verify(tmp_path / "tf", reference=golden, options=VerifyOptions(atol=1e-5))
        assert (statuses(found), found.passed) == (ALL, True)
        found = verify(tmp_path / "tf")
        assert statuses(found) == {**ALL, "outputs": "not checked", "samples": "not checked"}
        with pytest.raises(ParityError, match="pass texts and images to 'convert reference'$"):
            verify(tmp_path / "tf", reference=golden, options=VerifyOptions(images=(PICTURES,)))
        assert not found.passed
    finally:
        shutil.move(pair / "elsewhere", pair / "pt")


@pytest.mark.parametrize(
    ("field", "value", "where"),
    [
        ("layer_norm_eps", 1e-3, "text tower, embeddings"),
        ("hidden_act", "relu", "text tower, layer 0, MLP output"),
    ],
)
def test_a_config_that_changes_the_graph_shows_in_the_outputs_alone(pair, tmp_path, field, value, where):
    shutil.copytree(pair / "tf", tmp_path / "tf")
    config = json.loads((tmp_path / "tf" / "config.json").read_text())
    config["text_config"][field] = value
    (tmp_path / "tf" / "config.json").write_text(json.dumps(config))
    found = verify(tmp_path / "tf", reference=pair / "pt")
    assert statuses(found) == {"files": "failed", "weights": "passed", "outputs": "failed", "samples": "failed"}
    assert found.report is not None
    assert found.report.first_failure_in("vision") is None
    first = found.report.first_failure_in("text")
    assert first is not None
    assert first.where == where


def test_a_weights_file_of_any_name_is_the_one_that_runs(pair, tmp_path):
    shutil.copytree(pair / "pt", tmp_path / "pt")
    (tmp_path / "pt" / "model.safetensors").rename(tmp_path / "pt" / "step-1000.safetensors")
    other = pt2tf(pair / "pt", tmp_path / "rounded", dtype="bfloat16", format="safetensors")
    tf2pt(other.out, tmp_path / "other")
    shutil.copy(tmp_path / "other" / "model.safetensors", tmp_path / "pt")  # what transformers would take by itself
    pt2tf(tmp_path / "pt" / "step-1000.safetensors", tmp_path / "tf")
    found = verify(tmp_path / "tf", options=VerifyOptions(atol=1e-5))
    assert (statuses(found), found.passed) == (ALL, True)
    assert found.findings[2].against == f"PyTorch on {tmp_path}/pt/step-1000.safetensors"


def test_a_time_limit_is_said_to_be_one(pair):
    found = verify(pair / "tf", options=VerifyOptions(seconds=0.05))
    assert statuses(found) == {**ALL, "outputs": "not checked", "samples": "not checked"}
    assert found.status == "not checked"
    assert found.findings[2].problems[0].startswith("PyTorch reference: no answer within 0.05 s, so it was stopped; ")


def test_the_gated_branch_of_the_giant_dinov2_is_compared(tmp_path):
    config = config_of()
    config["vision_config"] = {
        "model_type": "dinov2",
        **config_of_tower("dinov2"),
        "use_swiglu_ffn": True,
        "mlp_ratio": 3,
    }
    tensors = tensors_of(config)
    write_checkpoint(tmp_path / "pt", config, tensors)
    pt2tf(tmp_path / "pt", tmp_path / "tf")
    found = verify(tmp_path / "tf", options=VerifyOptions(atol=1e-10, float64=True))
    assert (statuses(found), found.passed) == ({**ALL, "samples": "not checked"}, True)
    assert found.report is not None
    names = {tap.name for tap in found.report.comparisons}
    assert {
        f"vision.layers.{number}.mlp_output" for number in range(config["vision_config"]["num_hidden_layers"])
    } <= names
    name = next(name for name in tensors if name.endswith("layer.1.mlp.weights_out.weight"))
    write_checkpoint(tmp_path / "other", config, {**tensors, name: tensors[name] * 1.01})
    found = verify(tmp_path / "tf", reference=tmp_path / "other", options=VerifyOptions(atol=1e-10, float64=True))
    assert found.report is not None
    first = found.report.first_failure_in("vision")
    assert first is not None
    assert first.where == "vision tower, layer 1, MLP output"

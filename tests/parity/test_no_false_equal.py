"""What must not be called equal although nothing differs. Taps that neither side has, a source that is the checkpoint itself,
inputs that do not distinguish models, a process that is gone. No framework runs here."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from converter import pt2tf, tf2pt, verify
from converter.conversion.streams import open_tensors
from converter.errors import (
    CorruptCheckpoint,
    MissingPackage,
    NoReference,
    OptionError,
    ParityError,
    SourceError,
    WorkerError,
)
from converter.folder.manifest import read_manifest
from converter.parity import outputs as module
from converter.parity.batches import Batch
from converter.parity.compare import compare_runs
from converter.parity.comparison import Tolerance
from converter.parity.finding import Finding, status_of
from converter.parity.inputs import check_golden_inputs
from converter.parity.making import make_batches
from converter.parity.options import VerifyOptions
from converter.parity.runners import processing
from converter.parity.runners.asking import read_answer
from converter.parity.runners.golden import Recording, read_metadata, write_recording
from converter.parity.runners.isolation import Worker
from converter.parity.sums import canonical_hashes, sum_of
from converter.parity.taps import required_taps
from converter.parity.verify import _with_reason
from tests.parity.samples import METADATA, inputs, recording, taps
from tests.tiny import FIXTURE, config_of, tensors_of, write_checkpoint
from tests.towers import config_of_tower

TINY = {"vision_fields": {"num_hidden_layers": 2}, "text_fields": {"num_hidden_layers": 3}}
CONFIG = config_of("vit", "bert", **TINY)
CANINE = {**CONFIG, "text_config": {"model_type": "canine", **config_of_tower("canine")}}


def whole(drop: tuple[str, ...] = (), inner: bool = True) -> dict[str, np.ndarray[Any, Any]]:
    """Every tap that the config says there is, of one value each, but for those dropped."""
    shape: Mapping[str, tuple[int, ...]] = {"vision": (4, 1, 2), "text": (3, 5, 2)}
    names = [*required_taps(CONFIG, inner), "loss"]
    made = {name: np.ones(shape.get(name.split(".")[0], (4, 2)) if "pooled" not in name else (3, 2)) for name in names}
    return {name: array for name, array in made.items() if name not in drop}


def test_taps_are_counted_by_the_config() -> None:
    inside = [f".{kind}" for kind in ("attention_output", "mlp_output")]
    expected = ["vision.embeddings"]
    for side, count in (("vision", 2), ("text", 3)):
        expected += [f"{side}.layers.{n}{kind}" for n in range(count) for kind in (*inside, "")]
        expected += [f"{side}.last_hidden_state", f"{side}.pooled"]
        expected += ["text.embeddings"] if side == "vision" else []
    head = ["image_features", "text_features", "image_embeds", "text_embeds", "logits_per_image", "logits_per_text"]
    assert required_taps(CONFIG, inner=True) == (*expected, *head)
    assert required_taps(CONFIG, inner=False) == tuple(
        name for name in (*expected, *head) if not name.endswith(tuple(inside))
    )


def test_taps_of_stages_are_counted_by_block() -> None:
    found = required_taps(config_of("swin", "bert", vision_fields={"depths": [2, 1]}), inner=True)
    assert [name for name in found if name.endswith("mlp_output") and name.startswith("vision")] == [
        "vision.layers.0.0.mlp_output", "vision.layers.0.1.mlp_output", "vision.layers.1.0.mlp_output",
    ]  # fmt: skip


def test_blocks_around_the_layers_are_counted() -> None:
    """CANINE's characters, a block of them, molecules; two layers; characters, a block of them."""
    found = [name for name in required_taps(CANINE, inner=True) if name.startswith("text.layers")]
    assert [name for name in found if name.count(".") == 2] == [f"text.layers.{n}" for n in range(6)]
    assert [name for name in found if name.endswith("mlp_output")] == [
        f"text.layers.{n}.0.mlp_output" for n in (0, 2, 3, 5)
    ]


def test_what_stands_at_padding_is_compared_where_rules_say_so() -> None:
    for config, passed in ((CONFIG, True), (CANINE, False)):
        names = [*required_taps(config, inner=False), "loss"]
        ours, theirs = ({name: np.ones((3, 5, 2)) for name in names} for _ in range(2))
        ours["text.layers.0"][1, 4] = 2.0  # padding
        report = compare_runs(recording(ours), recording(theirs), Tolerance(0.0), config)
        assert not report.problems
        assert report.passed is passed


def test_taps_left_to_defaults_are_counted_as_well() -> None:
    silent = {"model_type": "vision-text-dual-encoder", "vision_config": {"model_type": "swin"},
              "text_config": {"model_type": "xlm-roberta-xl"}}  # fmt: skip
    found = required_taps(silent, inner=False)
    assert ("vision.layers.3" in found, "vision.layers.4" in found) == (True, False)
    assert ("text.layers.35" in found, "text.layers.36" in found) == (True, False)


@pytest.mark.parametrize("name", ["text.layers.2", "vision.pooled", "logits_per_text", "text.layers.1.mlp_output"])
def test_a_tap_that_neither_side_has_fails(name: str) -> None:
    run = recording(whole())
    assert compare_runs(run, run, Tolerance(0.0), CONFIG).passed
    fewer = recording(whole(drop=(name,)))
    assert compare_runs(fewer, fewer, Tolerance(0.0)).passed, "without the config nobody can tell"
    report = compare_runs(fewer, fewer, Tolerance(0.0), CONFIG)
    assert not report.passed
    assert report.problems == (f"batch 0 (batch 0): both sides lack {name}, which config.json calls for",)


def test_a_loss_that_neither_side_has_fails_where_there_is_one() -> None:
    square = {**inputs(), "pixel_values": inputs()["pixel_values"][:3]}
    for given, passed in ((inputs(), True), (square, False)):
        run = Recording(METADATA, (Batch("one", given, whole(drop=("loss",))),))
        assert compare_runs(run, run, Tolerance(0.0), CONFIG).passed is passed


def test_a_reference_recorded_without_inner_taps_needs_the_others_all_the_same() -> None:
    with_inner, without = recording(whole()), recording(whole(inner=False))
    assert compare_runs(with_inner, without, Tolerance(0.0), CONFIG).passed
    fewer = recording(whole(drop=("text.layers.1",), inner=False))
    assert not compare_runs(with_inner, fewer, Tolerance(0.0), CONFIG).passed
    assert not compare_runs(fewer, fewer, Tolerance(0.0), CONFIG).passed


# --- the source --------------------------------------------------------------------------------------------------


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    shutil.copytree(FIXTURE, tmp_path / "pt")
    pt2tf(tmp_path / "pt", tmp_path / "tf")
    tf2pt(tmp_path / "tf", tmp_path / "back")
    return tmp_path


def refusal(*args: Any, **options: Any) -> str:
    with pytest.raises((SourceError, CorruptCheckpoint)) as caught:
        verify(*args, **options)
    return str(caught.value)


def test_a_checkpoint_is_no_source_of_itself(pair: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(pair)
    (pair / "link").symlink_to("back")
    for name in ("back", "./back", "tf/../back", "link", "back/model.safetensors", str(pair / "back")):
        assert refusal("back", reference=name, weights_only=True) == (
            f"{Path(name)} is the checkpoint to verify, and always matches itself; name its source with --reference"
        )
    manifest = json.loads((pair / "back" / "conversion.json").read_text())
    manifest["source"]["path"] = "."
    (pair / "back" / "conversion.json").write_text(json.dumps(manifest))
    found = verify("back")
    assert not found.passed
    assert [finding.status for finding in found.findings] == ["passed", "passed", "not checked", "not checked"]
    assert "always matches itself" in found.findings[2].problems[0]
    assert found.findings[1].against == "the hashes in the manifest, as the source is gone"


def test_a_source_without_its_config_is_not_whole(pair: Path) -> None:
    (pair / "pt" / "config.json").unlink()
    said = f"{pair}/pt has no config.json beside it; put the one there that the conversion used"
    assert refusal(pair / "tf", reference=pair / "pt") == said
    found = verify(pair / "tf")
    assert [finding.status for finding in found.findings] == ["passed", "passed", "not checked", "not checked"]
    assert found.findings[2].problems == (said,)


def test_a_device_that_is_none_is_refused_also_where_nothing_runs() -> None:
    with pytest.raises(ParityError, match=r"^device is tpu, expected auto, cpu, cuda or cuda:<number>$"):
        VerifyOptions(device="tpu")


def test_without_a_manifest_nothing_is_said_to_be_gone(pair: Path) -> None:
    (pair / "tf" / "conversion.json").unlink()
    said = "no conversion.json names the source; name it with --reference"
    found = verify(pair / "tf")
    assert [finding.status for finding in found.findings] == ["not checked"] * 4
    assert [finding.problems for finding in found.findings[1:]] == [
        ("no conversion.json names a source and the manifest has no hashes; name the source with --reference",),
        (said,),
        (said,),
    ]


def test_tensorflow_is_no_reference_of_tensorflow(pair: Path) -> None:
    shutil.copytree(pair / "tf", pair / "copy")
    with pytest.raises(ParityError) as caught:
        module._sides(pair / "tf", pair / "copy")
    assert str(caught.value) == (
        f"{pair}/copy: holds TensorFlow weights, as {pair}/tf does; name the PyTorch checkpoint"
    )
    assert module._sides(pair / "back", pair / "tf") == (pair / "back", pair / "tf")


def test_a_config_that_differs_by_less_than_rounding_is_not_equal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = recording(whole())
    write_checkpoint(tmp_path / "pt", CONFIG, tensors_of(CONFIG))
    silent = {
        **CONFIG,
        "text_config": {**CONFIG["text_config"], "architectures": ["BertModel"], "layer_norm_eps": 1e-12},
    }
    wrong = {**CONFIG, "text_config": {**CONFIG["text_config"], "layer_norm_eps": 1e-6}}
    for config, problems in ((silent, ()), (wrong, ("config.json: text_config.layer_norm_eps is 1e-06, the source's is "
                                                    "1e-12",))):  # fmt: skip
        out = write_checkpoint(tmp_path / "tf", config, tensors_of(CONFIG))
        outputs = module.Outputs(out, tmp_path / "pt", None, VerifyOptions())
        monkeypatch.setattr(outputs, "_run_both", lambda: module._Ran(run, run, "no processor", "PyTorch"))
        (finding, _), report = outputs.compare()
        assert report is not None
        assert report.problems == problems
        assert (finding.status, report.passed) == ("failed" if problems else "passed", not problems)
    assert finding.problems == (report.verdict,) == (f"differs: {problems[0]}",)


@pytest.mark.parametrize(
    ("change", "off", "status", "problems"),
    [
        (False, 0, "passed", ()),
        (
            True,
            0,
            "not checked",
            (
                "tokenizer.json: differ from the source; the texts and pictures tried give the same inputs, others may not",
            ),
        ),
        (True, 1, "failed", ("tokenizer.json: differ from the source, and its processor gives other input_ids",)),
    ],
)
def test_a_tokenizer_that_is_not_the_sources_does_not_pass(
    pair: Path, monkeypatch: pytest.MonkeyPatch, change: bool, off: int, status: str, problems: tuple[str, ...]
) -> None:
    title = "shipped texts and pictures through the processor"
    given = {"tf": inputs(), "pt": inputs(input_ids=inputs()["input_ids"] + off)}
    asked: list[str] = []

    def ask(_: Any, folder: Path, *__: Any) -> Batch:
        asked.append(folder.name)
        return Batch(title, given[folder.name])

    run = Recording(METADATA, (Batch(title, inputs(), whole()),))
    monkeypatch.setattr(module, "ask_samples", ask)
    monkeypatch.setattr(module, "run_together", lambda *_: (run, run))
    if change:
        (pair / "tf" / "tokenizer.json").write_text("{ }")
    outputs = module.Outputs(pair / "tf", pair / "pt", None, VerifyOptions())
    workers = (Mock(spec=Worker), Mock(spec=Worker))
    monkeypatch.setattr(outputs, "_workers", workers)
    (_, samples), _ = outputs.compare()
    assert all(worker.dismiss.call_count == 1 for worker in workers)
    assert (samples.status, samples.problems) == (status, problems)
    assert asked == (["tf", "pt"] if change else ["tf"]), "the source's is loaded only where a file is no copy"


# --- golden reference files -----------------------------------------------------------------------------------------


def write_golden(path: Path, weights: Any) -> Path:
    given = make_batches(json.loads((FIXTURE / "config.json").read_text()))
    made = tuple(replace(batch, taps={"loss": np.ones((), np.float32)}) for batch in given)
    write_recording(Recording({**METADATA, "weights": json.dumps(weights)}, made), path)
    return path


def test_a_golden_file_that_was_not_pulled_is_called_so(pair: Path) -> None:
    path = pair / "golden.safetensors"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1443628\n")
    said = f"{path}: a Git LFS pointer, not the weights; run `git lfs pull` in its repository"
    assert refusal(pair / "tf", reference=path) == said


def test_a_golden_file_is_of_these_weights_or_of_others(pair: Path) -> None:
    with open_tensors(FIXTURE, "pt") as tensors:
        right = sum_of(canonical_hashes(tensors))
    said = {"blake3": right.blake3, "dtypes": right.dtypes}
    wrong = {**said, "blake3": "0" * 64}
    (pair / "tf" / "conversion.json").unlink()
    for name, weights, status in (("right", said, "passed"), ("wrong", wrong, "failed"), ("none", None, "not checked"),
                                  ("odd", {"dtypes": 3}, "not checked"),
                                  ("other dtype", {**said, "dtypes": {"float16": 97}}, "not checked")):  # fmt: skip
        golden = write_golden(pair / f"{name}.safetensors", weights)
        finding = verify(pair / "tf", reference=golden, weights_only=True).findings[1]
        assert finding.status == status, name
        if status == "failed":
            assert finding.problems == ("the reference file was recorded from other weights",)
        if status == "passed":
            assert (finding.compared, finding.against) == (97, "the sum of all weights in the reference file")
    shutil.rmtree(pair / "pt")
    found = verify(pair / "back", reference=pair / "wrong.safetensors", weights_only=True).findings[1]
    assert found.status == "failed"
    assert found.against.endswith("tf, bit for bit; the sum of all weights in the reference file")


def test_metadata_alone_is_checked_like_the_whole_file(tmp_path: Path) -> None:
    path = write_golden(tmp_path / "a.safetensors", {})
    assert read_metadata(path)["framework"] == "PyTorch"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ParityError, match="not a golden reference file"):
        read_metadata(path)


def test_a_golden_file_that_cannot_serve_is_refused_before_anything_runs(pair: Path) -> None:
    golden = write_golden(pair / "golden.safetensors", None)
    with pytest.raises(OptionError) as caught:
        verify(pair / "tf", reference=golden, options=VerifyOptions(float64=True))
    assert str(caught.value) == (
        f"{golden}: holds float32 outputs, not float64; record it again with 'convert reference --float64'"
    )
    other = write_checkpoint(pair / "other", CONFIG, tensors_of(CONFIG))
    assert verify(other, reference=golden).findings[2].problems == (
        f"{golden}: input_ids of batch 0 go up to 133, the model has 97; record the file from this model",
    )


@pytest.mark.parametrize("dtype", ["keep", "float32", "bfloat16"])
@pytest.mark.parametrize("part", ["outputs", "weights"])
def test_outputs_that_differ_because_weights_were_rounded_say_so(pair: Path, dtype: str, part: str) -> None:
    manifest = read_manifest(pair / "tf")
    assert manifest is not None
    found = _with_reason(Finding(part, "failed", problems=("different",)), replace(manifest, dtype=dtype))
    more = ("the conversion rounded the weights to bfloat16 (--dtype), which changes the outputs; raise --atol "
            "(docs/tolerances.md has figures)",)  # fmt: skip
    assert found.problems == ("different", *(more if (part, dtype) == ("outputs", "bfloat16") else ()))


def fits(batches: tuple[Batch, ...], **changes: Any) -> str:
    try:
        check_golden_inputs(batches, config_of("vit", "bert", **changes), "file")
    except ParityError as error:
        return str(error)
    return ""


def test_golden_inputs_are_of_the_model() -> None:
    batches = make_batches(CONFIG)
    assert fits(batches) == ""
    for name, field in (("input_ids", "vocab_size"), ("position_ids", "max_position_embeddings"),
                        ("token_type_ids", "type_vocab_size")):  # fmt: skip
        greatest = max(int(b.inputs[name].max()) for b in batches if name in b.inputs)
        said = fits(batches, text_fields={field: greatest})
        assert f"{name} of batch " in said, name
        assert said.endswith(f" go up to {greatest}, the model has {greatest}; record the file from this model")
    assert fits(batches, vision_fields={"image_size": 32}) == (
        "file: batch 0 has pictures of (3, 24, 24), the model takes (3, 32, 32); record the file from this model"
    )


def test_golden_inputs_have_to_tell_models_apart() -> None:
    batches = make_batches(CONFIG)
    little = (
        "file: no batch of several images and texts, or none with masked positions, so it cannot "
        "distinguish models; record the file again with 'convert reference'"
    )
    assert fits(batches[:1]) == ""
    assert fits(batches[4:]) == little
    assert fits(batches[1:2]) == little


# --- processes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", ["fewer", "other title", "other inputs", "without a mask", "none"])
def test_a_run_of_other_inputs_than_were_asked_for_does_not_count(tmp_path: Path, change: str) -> None:
    asked = tuple(Batch(f"batch {number}", inputs()) for number in range(2))
    ran = [replace(batch, taps=taps()) for batch in asked]
    if change == "fewer":
        ran.pop()
    elif change == "other title":
        ran[1] = replace(ran[1], title="another")
    elif change == "other inputs":
        ran[1] = replace(ran[1], inputs={**inputs(), "input_ids": inputs()["input_ids"] + 1})
    elif change == "without a mask":
        ran[1] = replace(ran[1], inputs={k: v for k, v in inputs().items() if k != "attention_mask"})
    write_recording(Recording(METADATA, tuple(ran)), tmp_path / "taps.safetensors")
    request = {"source": "model", "out": str(tmp_path / "taps.safetensors")}
    if change == "none":
        found = read_answer(request, {"seconds": 1.5, "peak_memory": 7}, asked)
        assert found.metadata == {**METADATA, "seconds": "1.5", "peak_memory": "7"}
        return
    with pytest.raises(ParityError) as caught:
        read_answer(request, {}, asked)
    assert str(caught.value) == "model: did not run the 2 batches it was given; run it again"


def test_a_process_that_is_gone_is_no_missing_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    def all_batches(error: Exception) -> Any:
        def ask(*_: Any) -> Batch:
            raise error

        monkeypatch.setattr(module, "ask_samples", ask)
        options = VerifyOptions()
        return module.all_batches(None, FIXTURE, FIXTURE, options, options.samples)  # type: ignore[arg-type]

    made, reason = all_batches(ParityError("the tokenizer cannot be loaded"))
    assert (len(made), reason) == (5, "the tokenizer cannot be loaded")
    with pytest.raises(WorkerError, match="was killed"):
        all_batches(WorkerError("was killed"))


def test_a_package_that_a_processor_lacks_is_missing() -> None:
    """Whatever third-party code needs is no fault of the checkpoint; transformers says it in three sentences."""
    said = "\nAutoImageProcessor requires the PIL library but it was not found. You can install it.\nPlease note ..."
    with pytest.raises(MissingPackage) as caught:
        processing._attempt(partial(_raise, ImportError(said)), "the image processor of out cannot be loaded")
    assert str(caught.value) == (
        "the image processor of out cannot be loaded: AutoImageProcessor requires the PIL library but it was not found; "
        "pip install 'dual-encoder-converter[torch]', which brings Pillow, or the package that is named"
    )
    with pytest.raises(ParityError) as other:
        processing._attempt(partial(_raise, ValueError("of another model")), "the tokenizer of out cannot be loaded")
    assert not isinstance(other.value, MissingPackage)


def _raise(error: Exception) -> None:
    raise error


def test_pictures_that_were_named_need_their_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """What ships with the package may be left out; what a person named may not."""

    def ask(*_: Any) -> Batch:
        raise MissingPackage("pictures need Pillow")

    monkeypatch.setattr(module, "ask_samples", ask)
    options = VerifyOptions()
    for given in (False, True):
        samples = replace(options.samples, given=given)
        asked = partial(module.all_batches, None, FIXTURE, FIXTURE, options, samples)  # type: ignore[arg-type]
        if not given:
            assert asked()[1] == "pictures need Pillow"
            untried = module._samples_finding(compare_runs(*[recording(taps())] * 2, Tolerance(0)), asked()[1], given)
            assert status_of([Finding("weights", "passed", 3), untried]) == "not checked"
            assert untried.to_json() == Finding("samples", "not checked", problems=("pictures need Pillow",)).to_json()
            continue
        with pytest.raises(MissingPackage):
            asked()


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (MissingPackage("PyTorch reference: cannot be started: No module named 'torch'"), "not checked"),
        (WorkerError("PyTorch reference: crashed with SIGSEGV"), "not checked"),
        (NoReference("golden.safetensors: cannot be read"), "not checked"),
        (ParityError("out: the files are not the model that config.json describes"), "failed"),
        (CorruptCheckpoint("out: truncated"), "failed"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_what_could_not_run_says_nothing_of_a_checkpoint(
    pair: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, status: str
) -> None:
    """What is wrong with the environment is not checked and leaves no record; what is wrong with the checkpoint fails."""

    def run(_: Any) -> Any:
        raise error

    monkeypatch.setattr(module.Outputs, "_run_both", run)
    monkeypatch.setattr(module.Outputs, "__enter__", lambda outputs: outputs)
    found = verify(pair / "tf", record=True)
    assert [finding.status for finding in found.findings] == ["passed", "passed", status, "not checked"]
    assert found.findings[2].problems == (str(error),)
    assert (found.status, found.passed) == (status, False)
    assert (pair / "tf" / "parity.json").exists() == (status == "failed")


def test_files_that_differ_count_also_where_nothing_could_run(pair: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.Outputs, "_run_both", lambda _: (_ for _ in ()).throw(WorkerError("crashed")))
    monkeypatch.setattr(module.Outputs, "__enter__", lambda outputs: outputs)
    (pair / "tf" / "config.json").write_text((pair / "tf" / "config.json").read_text() + "\n")
    assert verify(pair / "tf").status == "failed"


def test_a_golden_file_that_is_none_is_no_reference(pair: Path) -> None:
    golden = write_golden(pair / "golden.safetensors", None)
    content = load_file(golden)
    save_file({name: tensor for name, tensor in content.items() if ".tap." not in name}, golden)
    found = verify(pair / "tf", reference=golden)
    assert found.findings[2].status == "not checked"
    assert found.findings[2].problems[0].startswith(f"{golden}: not a golden reference file")


@pytest.mark.parametrize("seconds", [0.0, -1.0, math.nan, math.inf])
def test_a_time_limit_that_is_none_is_refused(seconds: float) -> None:
    with pytest.raises(ParityError) as caught:
        VerifyOptions(seconds=seconds)
    assert str(caught.value) == f"seconds is {seconds}; give a finite number above 0"


def test_a_negative_seed_is_refused() -> None:
    with pytest.raises(ParityError) as caught:
        VerifyOptions(seed=-1)
    assert str(caught.value) == "seed is -1; give a number of 0 or more"

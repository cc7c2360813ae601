"""The PyTorch reference: its taps are those of a direct call, and it never runs a model with a weight missing."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converter.errors import ParityError, WorkerError
from converter.names.families import JOINED, family
from converter.names.rule_files import SIDES
from converter.parity.batches import Batch
from converter.parity.compare import compare_runs
from converter.parity.comparison import Tolerance
from converter.parity.making import make_batches
from converter.parity.runners.asking import ask_run
from converter.parity.runners.golden import METADATA, Recording
from converter.parity.runners.isolation import Worker
from converter.parity.runners.options import ReferenceOptions
from converter.parity.runners.reference import run_reference, start_reference
from converter.parity.taps import INNER, is_inner, required_taps
from tests.controls.faults import pair_tensors
from tests.tiny import OF_FAMILIES, config_of, tensors_of, write_checkpoint
from tests.torture import FULL
from tests.towers import ROUND, TOWERS, config_of_tower

pytestmark = pytest.mark.torch
SECONDS = 120.0
WHOLE = [name for name in OF_FAMILIES if name != JOINED]
Altered = Callable[[Callable[[dict[str, Any]], object]], Path]


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    with start_reference() as started:
        yield started


@pytest.fixture(scope="module")
def batches(tiny_folder: Path) -> tuple[Batch, ...]:
    return make_batches(json.loads((tiny_folder / "config.json").read_text()), seed=11)


def run(worker: Worker, source: Path, batches: tuple[Batch, ...], **options: Any) -> Recording:
    return ask_run(worker, source, batches, asdict(ReferenceOptions(device="cpu", **options)), SECONDS)


def direct(model: Any, batch: Batch, attention: str, dtype: str = "float32", loss: bool = False) -> dict[str, Any]:
    """The same forward pass, written out without anything of ours."""
    import torch

    model = model.to(getattr(torch, dtype))
    model.set_attn_implementation(attention)
    inputs = {name: torch.from_numpy(array) for name, array in batch.inputs.items()}
    inputs["pixel_values"] = inputs["pixel_values"].to(getattr(torch, dtype))
    with torch.no_grad():
        out = model(**inputs, output_hidden_states=True, output_attentions=attention == "eager", return_loss=loss)
        vision, text = out.vision_model_output, out.text_model_output
        taps = {
            "image_features": model.visual_projection(vision.pooler_output),
            "text_features": model.text_projection(text.pooler_output),
            "image_embeds": out.image_embeds,
            "text_embeds": out.text_embeds,
            "logits_per_image": out.logits_per_image,
            "logits_per_text": out.logits_per_text,
        }
    for side, tower in (("vision", vision), ("text", text)):
        taps |= {f"{side}.embeddings": tower.hidden_states[0], f"{side}.pooled": tower.pooler_output}
        taps[f"{side}.last_hidden_state"] = tower.last_hidden_state
        taps |= {f"{side}.layers.{n}": hidden for n, hidden in enumerate(tower.hidden_states[1:])}
        if attention == "eager":
            taps |= {f"{side}.attentions.{n}": weights for n, weights in enumerate(tower.attentions)}
    if out.loss is not None:
        taps["loss"] = out.loss
    return {name: tensor.numpy() for name, tensor in taps.items()}


@pytest.mark.parametrize(("attention", "dtype"), [("eager", "float32"), ("sdpa", "float32"), ("sdpa", "float64")])
def test_taps_are_those_of_a_direct_call(
    worker: Worker, tiny: Any, tiny_folder: Path, batches: tuple[Batch, ...], attention: str, dtype: str
) -> None:
    import copy

    recorded = run(
        worker, tiny_folder, batches, attention=attention, dtype=dtype, attentions=attention == "eager", loss=True
    )
    assert len(recorded.batches) == len(batches) == 5
    model = copy.deepcopy(tiny)
    squares = 0
    for ours, asked in zip(recorded.batches, batches, strict=True):
        square = len(asked.inputs["pixel_values"]) == len(asked.inputs["input_ids"])
        expected = direct(model, asked, attention, dtype, loss=square)
        squares += square
        inner = {name for name in ours.taps if is_inner(name)}
        assert inner == {
            f"{side}.layers.{n}.{kind}"
            for side, depth in (("vision", 2), ("text", 3))
            for n in range(depth)
            for kind in INNER
        }
        check_branches(model, ours.taps, atol=3e-6 if dtype == "float32" else 1e-13)
        assert ours.taps.keys() - inner == expected.keys()
        for name, array in expected.items():
            assert (ours.taps[name].dtype, ours.taps[name].shape) == (array.dtype, array.shape)
            np.testing.assert_allclose(ours.taps[name], array, rtol=0, atol=3e-6 if dtype == "float32" else 1e-13)
    assert squares == 3
    assert {batch.taps["loss"].shape for batch in recorded.batches if batch.is_square} == {()}


def check_branches(model: Any, taps: Mapping[str, Any], atol: float) -> None:
    """A layer's state follows from what is tapped inside it: CLIP adds its branches, BERT norms after each."""
    import torch

    bert = model.text_model.encoder.layer
    with torch.no_grad():
        for side, states in (("vision", 2), ("text", 3)):
            for n in range(states):
                before = taps[f"{side}.{f'layers.{n - 1}' if n else 'embeddings'}"]
                first, second = (taps[f"{side}.layers.{n}.{kind}"] for kind in INNER)
                if side == "vision":
                    state = before + first + second
                else:
                    middle = bert[n].attention.output.LayerNorm(torch.from_numpy(before + first))
                    state = bert[n].output.LayerNorm(middle + torch.from_numpy(second)).numpy()
                np.testing.assert_allclose(state, taps[f"{side}.layers.{n}"], rtol=0, atol=atol)


def test_eager_and_sdpa_agree_wherever_they_are_compared(
    worker: Worker, tiny_folder: Path, batches: tuple[Batch, ...]
) -> None:
    eager, sdpa = (run(worker, tiny_folder, batches, attention=name) for name in ("eager", "sdpa"))
    report = compare_runs(sdpa, eager, Tolerance(1e-5))
    assert report.passed, report.verdict
    assert report.left_out > 0


def test_two_runs_give_the_same_bits(worker: Worker, tiny_folder: Path, batches: tuple[Batch, ...]) -> None:
    one, other = (run(worker, tiny_folder, batches) for _ in range(2))
    assert compare_runs(one, other, Tolerance(0.0)).passed
    costs = {"seconds", "peak_memory"}
    assert costs <= one.metadata.keys() == other.metadata.keys()
    assert all(one.metadata[name] == other.metadata[name] for name in one.metadata.keys() - costs)


def test_the_recording_says_what_ran(worker: Worker, tiny_folder: Path, batches: tuple[Batch, ...]) -> None:
    import torch
    import transformers

    metadata = run(worker, tiny_folder, batches[:1], dtype="float64").metadata
    assert set(METADATA) <= set(metadata)
    assert metadata["config_sha256"] == hashlib.sha256((tiny_folder / "config.json").read_bytes()).hexdigest()
    versions = json.loads(metadata["versions"])
    assert (versions["torch"], versions["transformers"]) == (torch.__version__, transformers.__version__)
    assert (metadata["device"], metadata["dtype"], metadata["source"]) == ("cpu", "float64", "tiny")
    assert json.loads(metadata["attention"]) == {"text": "sdpa", "vision": "sdpa"}
    assert json.loads(metadata["precision"]) == {
        "deterministic": True,
        "float32_matmul_precision": "highest",
        "tf32_cudnn": False,
        "tf32_matmul": False,
    }


def refusal(worker: Worker, source: Path, batches: tuple[Batch, ...], **options: Any) -> str:
    with pytest.raises(ParityError) as caught:
        run(worker, source, batches, **options)
    return str(caught.value)


def test_a_missing_weight_is_refused(worker: Worker, altered: Altered, batches: tuple[Batch, ...]) -> None:
    folder = altered(lambda tensors: tensors.pop("text_model.encoder.layer.1.attention.self.key.bias"))
    message = refusal(worker, folder, batches)
    assert message.startswith(
        f"PyTorch reference: {folder}: the files are not the model that config.json describes: 1 missing from the "
        "files: text_model.encoder.layer.1.attention.self.key.bias. Check that they belong together"
    )


def test_a_weight_left_over_is_refused(worker: Worker, altered: Altered, batches: tuple[Batch, ...]) -> None:
    folder = altered(lambda tensors: tensors.update({"text_model.more": np.zeros(3, np.float32)}))
    assert "1 unexpected in the files: text_model.more" in refusal(worker, folder, batches)


def test_a_weight_of_another_shape_is_refused(worker: Worker, altered: Altered, batches: tuple[Batch, ...]) -> None:
    name = "text_projection.weight"
    folder = altered(lambda tensors: tensors.update({name: tensors[name][:-1].copy()}))
    assert f"1 of another shape than config.json says: {name}. Check" in refusal(worker, folder, batches)


def test_a_tensorflow_checkpoint_is_refused(worker: Worker, altered: Altered, batches: tuple[Batch, ...]) -> None:
    def rename(tensors: dict[str, Any]) -> None:
        for name in list(tensors):
            tensors[name.replace(".", "/") + ":0"] = tensors.pop(name)

    assert "missing from the files: " in refusal(worker, altered(rename), batches)


def test_buffers_that_follow_from_the_config_may_be_there(
    worker: Worker, altered: Altered, tiny_folder: Path, batches: tuple[Batch, ...]
) -> None:
    # transformers reports the second kind and, in 5.x, drops the first by itself
    buffers = {"text_model.embeddings.position_ids": np.arange(19)[None]}
    buffers["vision_model.attention.relative_position_index"] = np.arange(4)
    folder = altered(lambda tensors: tensors.update(buffers))
    old, new = (run(worker, source, batches) for source in (folder, tiny_folder))
    # where in memory weights lie decides which vector instructions add them up
    assert compare_runs(old, new, Tolerance(5e-6)).passed
    assert "vision_model.attention.relative_position_index" in json.loads(old.metadata["left_out"])
    assert json.loads(new.metadata["left_out"]) == []


def test_a_changed_weight_shows_in_the_taps_behind_it(
    worker: Worker, altered: Altered, tiny_folder: Path, batches: tuple[Batch, ...]
) -> None:
    def perturb(tensors: dict[str, Any]) -> None:
        tensors["text_model.encoder.layer.1.output.dense.weight"][3, 7] += 0.05

    one, other = (run(worker, source, batches) for source in (altered(perturb), tiny_folder))
    report = compare_runs(one, other, Tolerance(1e-4))
    assert report.first_failure is not None
    assert report.first_failure.name == "text.layers.1.mlp_output"
    assert report.first_failure.where == "text tower, layer 1, MLP output"
    assert report.first_failure_in("vision") is None


def test_folders_that_are_none_are_refused(worker: Worker, tiny_folder: Path, tmp_path: Path, batches: Any) -> None:
    message = refusal(worker, tmp_path, batches)
    assert message == f"{tmp_path}: holds no config.json; name a folder that save_pretrained wrote"
    shutil.copy(tiny_folder / "config.json", tmp_path)
    message = refusal(worker, tmp_path, batches)
    assert message.startswith(f"PyTorch reference: {tmp_path}: transformers ")
    assert "cannot load it as VisionTextDualEncoderModel" in message
    with pytest.raises(ParityError, match="there is no batch to run"):
        run(worker, tiny_folder, ())


def test_code_in_a_checkpoint_does_not_run(worker: Worker, tiny_folder: Path, tmp_path: Path, batches: Any) -> None:
    folder = tmp_path / "hostile"
    shutil.copytree(tiny_folder, folder)
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModel": "modeling.Model", "AutoConfig": "modeling.Config"}
    config["vision_config"]["auto_map"] = config["text_config"]["auto_map"] = config["auto_map"]
    (folder / "config.json").write_text(json.dumps(config))
    for name in ("modeling.py", "torch.py", "transformers.py", "numpy.py"):
        (folder / name).write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    run(worker, folder, batches[:1])
    assert not (tmp_path / "ran").exists()


def test_a_gpu_that_is_not_there_is_refused(tiny_folder: Path, batches: tuple[Batch, ...]) -> None:
    import torch

    number = torch.cuda.device_count()
    with pytest.raises(ParityError, match=rf"device cuda:{number} was requested, but torch .* sees {number} CUDA"):
        run_reference(tiny_folder, batches[:1], ReferenceOptions(device=f"cuda:{number}"), seconds=SECONDS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "gpu"}, "device is gpu, expected auto, cpu, cuda or cuda:<number>"),
        ({"device": "cuda:-1"}, "device is cuda:-1, expected auto, cpu, cuda or cuda:<number>"),
        ({"dtype": "float16"}, "dtype is float16, expected float32 or float64"),
        ({"attention": "flash"}, "attention is flash, expected eager or sdpa"),
        ({"attentions": True}, "sdpa returns no attention maps; choose eager attention"),
    ],
)
def test_options_are_checked_before_a_process_starts(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ParityError) as caught:
        ReferenceOptions(**options)
    assert str(caught.value) == message


def test_a_time_limit_holds_from_the_start(tiny_folder: Path, batches: tuple[Batch, ...]) -> None:
    with pytest.raises(ParityError, match=r"^PyTorch reference: no answer within 0\.05 s"):
        run_reference(tiny_folder, batches, seconds=0.05)


@pytest.mark.compat
def test_another_environment_gives_the_same_taps(worker: Worker, altered: Altered, batches: tuple[Batch, ...]) -> None:
    def nest(tensors: dict[str, Any]) -> None:
        # the names that every version reads
        for name in [name for name in tensors if name.startswith("vision_model.") and ".vision_model." not in name]:
            tensors["vision_model." + name] = tensors.pop(name)

    folder = altered(nest)
    options = ReferenceOptions(device="cpu", attention="eager", attentions=True, loss=True)
    other = run_reference(folder, batches, options, python=Path(os.environ["COMPAT_PYTHON"]), seconds=SECONDS)
    here = ask_run(worker, folder, batches, asdict(options), SECONDS)
    assert json.loads(other.metadata["versions"])["transformers"].startswith("4.")
    report = compare_runs(other, here, Tolerance(1e-5))
    assert report.passed, report.verdict


@pytest.mark.compat
def test_an_environment_that_cannot_read_the_names_is_told_apart(tiny_folder: Path, batches: tuple[Batch, ...]) -> None:
    with pytest.raises(
        ParityError, match=r"39 missing from the files: vision_model\.vision_model\..*versions before 5\.6"
    ):
        run_reference(tiny_folder, batches, python=Path(os.environ["COMPAT_PYTHON"]), seconds=SECONDS)


@pytest.mark.compat
@pytest.mark.parametrize("name", [name for n, name in enumerate(WHOLE) if FULL or (n + ROUND) % 3 == 0])
def test_another_environment_has_the_towers_of_a_family(worker: Worker, tmp_path: Path, name: str) -> None:
    """Whether or not its AutoConfig knows them by the model types that the sections of transformers 5 say."""
    config = copy.deepcopy(OF_FAMILIES[name])
    for side in SIDES:
        config[f"{side}_config"]["model_type"] = family(name).default_tower(side)
    folder = write_checkpoint(tmp_path / "pt", config, pair_tensors(config, 3))
    batches, options = make_batches(config), ReferenceOptions(device="cpu", loss=True)
    python = Path(os.environ["COMPAT_PYTHON"])
    if name.startswith("siglip"):
        with pytest.raises(
            WorkerError, match=r"transformers 4\.57\.6 gives no hidden states of a Siglip2?Model; name "
        ):
            run_reference(folder, batches, options, python=python, seconds=SECONDS)
        return
    other = run_reference(folder, batches, options, python=python, seconds=SECONDS)
    here = ask_run(worker, folder, batches, asdict(options), SECONDS)
    assert json.loads(other.metadata["versions"])["transformers"].startswith("4.")
    report = compare_runs(other, here, Tolerance(1e-4))
    assert report.passed, report.verdict


SWIGLU = {"use_swiglu_ffn": True, "mlp_ratio": 3}


@pytest.mark.by_turns
@pytest.mark.parametrize(
    ("model_type", "changes"),
    [*((model_type, {}) for model_type in TOWERS), ("dinov2", SWIGLU), ("dinov2_with_registers", SWIGLU)],
    ids=str,
)
def test_every_layer_of_every_tower_is_tapped(
    worker: Worker, tmp_path: Path, model_type: str, changes: dict[str, Any]
) -> None:
    """The rules find the end of each branch in the modules of the transformers that is installed."""
    config = config_of()
    config[f"{TOWERS[model_type].side}_config"] = {
        "model_type": model_type,
        **config_of_tower(model_type),
        **changes,
    }
    folder = write_checkpoint(tmp_path / "pt", config, tensors_of(config))
    made = make_batches(json.loads((folder / "config.json").read_text()), seed=5)[:1]
    found = run(worker, folder, made)
    assert [name for name in required_taps(config, inner=True) if name not in found.batches[0].taps] == []
    assert found.metadata["inner"] == "attention_output mlp_output"
    inner = {name: tap for name, tap in found.batches[0].taps.items() if is_inner(name) and name.startswith("text.")}
    length = made[0].inputs["input_ids"].shape[1]
    molecules = {length // config["text_config"]["downsampling_rate"]} if model_type == "canine" else set()
    assert {tap.shape[1] for tap in inner.values()} == {length} | molecules


def test_masks_of_canine_in_float64() -> None:
    """Without the hooks transformers' outputs are not numbers."""
    import torch
    from transformers import CanineConfig, CanineModel

    from converter.parity.runners.torch_masks import hook_masks

    config = CanineConfig(hidden_size=16, intermediate_size=12, num_hidden_layers=1, num_attention_heads=2,
                          num_hash_functions=4, num_hash_buckets=64, max_position_embeddings=32)  # fmt: skip
    model = CanineModel(config).eval()
    mask = torch.tensor([[1] * 8, [1] * 5 + [0] * 3])
    inputs = {"input_ids": torch.arange(16).reshape(2, 8), "attention_mask": mask}
    with torch.inference_mode():
        wanted = model(**inputs)
        hooks = hook_masks(model)
        assert torch.equal(model(**inputs).last_hidden_state, wanted.last_hidden_state)
        found = model.double()(**inputs)
    assert len(hooks) == 3
    for name in ("last_hidden_state", "pooler_output"):
        np.testing.assert_allclose(found[name].numpy(), wanted[name].numpy(), rtol=0, atol=1e-5)

"""The candidate: our model in a process of its own, on either backend, against the PyTorch reference."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from converter.errors import ParityError
from converter.parity.batches import Batch
from converter.parity.compare import compare_runs
from converter.parity.comparison import Tolerance
from converter.parity.making import make_batches
from converter.parity.runners.asking import ask_run
from converter.parity.runners.candidate import run_candidate, start_candidate
from converter.parity.runners.golden import METADATA, Recording
from converter.parity.runners.isolation import Worker
from converter.parity.runners.options import CandidateOptions, ReferenceOptions
from converter.parity.runners.reference import start_reference

SECONDS = 240.0
BACKENDS = [pytest.param("tensorflow", marks=pytest.mark.tf), pytest.param("jax", marks=pytest.mark.jax)]


@pytest.fixture(scope="module")
def reference() -> Iterator[Worker]:
    with start_reference() as started:
        yield started


@pytest.fixture(scope="module", params=BACKENDS)
def candidate(request: pytest.FixtureRequest) -> Iterator[tuple[Worker, str]]:
    with start_candidate(CandidateOptions(request.param, "cpu")) as started:
        yield started, request.param


@pytest.fixture(scope="module")
def batches(tiny_folder: Path) -> tuple[Batch, ...]:
    return make_batches(json.loads((tiny_folder / "config.json").read_text()), seed=12)


def run(candidate: tuple[Worker, str], source: Path, batches: tuple[Batch, ...], **options: Any) -> Recording:
    worker, backend = candidate
    return ask_run(worker, source, batches, asdict(CandidateOptions(backend, "cpu", **options)), SECONDS)


def run_torch(worker: Worker, source: Path, batches: tuple[Batch, ...], **options: Any) -> Recording:
    return ask_run(worker, source, batches, asdict(ReferenceOptions("cpu", **options)), SECONDS)


@pytest.mark.torch
def test_every_tap_is_equal_in_float32(
    reference: Worker, candidate: tuple[Worker, str], tiny_folder: Path, batches: tuple[Batch, ...]
) -> None:
    theirs = run_torch(reference, tiny_folder, batches, attention="eager", attentions=True, loss=True)
    ours = run(candidate, tiny_folder, batches, attentions=True, loss=True)
    report = compare_runs(ours, theirs, Tolerance(1e-5))
    assert report.passed, report.verdict
    assert len(report.comparisons) == 5 * 32 + 3


@pytest.mark.torch
def test_every_tap_is_equal_in_float64(
    reference: Worker, candidate: tuple[Worker, str], tiny_folder: Path, batches: tuple[Batch, ...]
) -> None:
    theirs = run_torch(reference, tiny_folder, batches, attention="sdpa", dtype="float64", loss=True)
    options = CandidateOptions(candidate[1], "cpu", "float64", loss=True)
    ours = run_candidate(tiny_folder, batches, options, seconds=SECONDS)
    report = compare_runs(ours, theirs, Tolerance(1e-10))
    assert report.passed, report.verdict


@pytest.mark.jax
def test_jax_keeps_its_dtype(tiny_folder: Path, batches: tuple[Batch, ...]) -> None:
    with start_candidate(CandidateOptions("jax", "cpu")) as worker, pytest.raises(ParityError) as caught:
        ask_run(worker, tiny_folder, batches, asdict(CandidateOptions("jax", "cpu", "float64")), SECONDS)
    assert str(caught.value) == (
        "Keras candidate on jax: JAX was not started for float64 here; start another process for it"
    )


@pytest.mark.tf
def test_tensorflow_changes_its_dtype_and_back(tiny_folder: Path, batches: tuple[Batch, ...]) -> None:
    with start_candidate(CandidateOptions(device="cpu")) as worker:
        for dtype in ("float32", "float64", "float32"):
            recorded = run((worker, "tensorflow"), tiny_folder, batches[:1], dtype=dtype)
            assert {str(array.dtype) for array in recorded.batches[0].taps.values()} == {dtype}


@pytest.mark.torch
def test_a_changed_weight_is_found_where_it_is(
    reference: Worker,
    candidate: tuple[Worker, str],
    altered: Callable[[Callable[[dict[str, Any]], object]], Path],
    tiny_folder: Path,
    batches: tuple[Batch, ...],
) -> None:
    def swap(tensors: dict[str, Any]) -> None:
        prefix = "text_model.encoder.layer.2.attention.self"
        query, key = f"{prefix}.query.weight", f"{prefix}.key.weight"
        tensors[query], tensors[key] = tensors[key], tensors[query]

    theirs = run_torch(reference, tiny_folder, batches, attention="eager", attentions=True)
    ours = run(candidate, altered(swap), batches, attentions=True)
    report = compare_runs(ours, theirs, Tolerance(1e-5))
    assert report.first_failure is not None
    assert report.first_failure.where == "text tower, attention map of layer 2"
    assert report.first_failure_in("vision") is None


def test_the_recording_says_what_ran(
    candidate: tuple[Worker, str], tiny_folder: Path, batches: tuple[Batch, ...]
) -> None:
    metadata = run(candidate, tiny_folder, batches[:1]).metadata
    backend = candidate[1]
    assert set(METADATA) <= set(metadata)
    assert (metadata["framework"], metadata["device"], metadata["dtype"]) == (f"Keras on {backend}", "cpu", "float32")
    assert {"keras", backend} <= json.loads(metadata["versions"]).keys()
    expected = {
        "tensorflow": {"deterministic": True, "tf32": False},
        "jax": {"jax_default_matmul_precision": "highest", "jax_enable_x64": False},
    }
    assert json.loads(metadata["precision"]) == expected[backend]


def test_a_process_keeps_its_backend(candidate: tuple[Worker, str], tiny_folder: Path, batches: Any) -> None:
    worker, backend = candidate
    other = "jax" if backend == "tensorflow" else "tensorflow"
    with pytest.raises(ParityError) as caught:
        ask_run(worker, tiny_folder, batches, asdict(CandidateOptions(other, "cpu")), SECONDS)
    assert str(caught.value) == (
        f"Keras candidate on {backend}: Keras runs on {backend} here; start another process for {other}"
    )


def test_a_gpu_that_is_not_there_is_refused(candidate: tuple[Worker, str], tiny_folder: Path, batches: Any) -> None:
    worker, backend = candidate
    with pytest.raises(ParityError, match=rf"device cuda:7 was requested, but {backend} sees 0 GPUs"):
        ask_run(worker, tiny_folder, batches, asdict(CandidateOptions(backend, "cuda:7")), SECONDS)


@pytest.mark.tf
def test_one_run_in_one_call(tiny_folder: Path, batches: tuple[Batch, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    recorded = run_candidate(tiny_folder, batches[:1], CandidateOptions(device="cpu"), seconds=SECONDS)
    assert recorded.metadata["framework"] == "Keras on tensorflow"
    assert "logits_per_image" in recorded.batches[0].taps


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": "torch"}, "backend is torch, expected tensorflow or jax"),
        ({"dtype": "bfloat16"}, "dtype is bfloat16, expected float32 or float64"),
        ({"device": "tpu"}, "device is tpu, expected auto, cpu, cuda or cuda:<number>"),
    ],
)
def test_options_are_checked_before_a_process_starts(options: dict[str, str], message: str) -> None:
    with pytest.raises(ParityError) as caught:
        CandidateOptions(**options)  # type: ignore[arg-type]
    assert str(caught.value) == message

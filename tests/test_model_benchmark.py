"""The benchmark of the model runs, and says so where a bound is missed or a contender computes something else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import models
from benchmarks.checkpoints import SIZES, write
from benchmarks.contenders import CASES
from benchmarks.models import cases_table, close, loading_table, time_case, time_loading
from converter import pt2tf
from tests.torture import rounds

ROOT = Path(__file__).resolve().parents[1]
IMAGE, STEP = "1 image", "training step, 8 pairs of 32 tokens"


class Contender:
    """Answers what it is made with."""

    def __init__(self, kind: str, *answers: dict[str, Any], first: dict[str, Any] | None = None) -> None:
        self.kind, self.answers, self.first = kind, list(answers), first or {}

    def ask(self, case: str, mode: str) -> dict[str, Any]:
        return self.answers.pop(0)

    def close(self) -> None:
        pass


def took(*seconds: float, found: float = 1.0) -> list[dict[str, Any]]:
    return [{"seconds": each, "found": [found]} for each in seconds]


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "PAUSE", 0)


def test_runs_before_the_rounds_are_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "KINDS", {"ours": ("tf.function",), "torch": ("eager",)})
    both = [Contender("ours", *took(9, 8, 1, 3, 2)), Contender("torch", *took(9, 8, 5, 4, 6))]
    rows = time_case(both, IMAGE, 3)  # type: ignore[arg-type]
    assert [(row["kind"], row["median_s"], row["fastest_s"], row["slowest_s"]) for row in rows] == [
        ("ours", 2, 1, 3), ("torch", 5, 4, 6),
    ]  # fmt: skip
    assert "| this package, tf.function | 2,000 (1.00) |\n| PyTorch, eager | 5,000 (2.50) |" in cases_table(rows)


def test_half_precision_is_no_other_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its numbers are not PyTorch's in float32: how far they are apart is part of the result."""
    monkeypatch.setattr(models, "KINDS", {"torch": ("eager",), "ours-bfloat16": ("tf.function",)})
    both = [Contender("torch", *took(9, 8, 4, found=8.0)), Contender("ours-bfloat16", *took(9, 8, 2, found=7.0))]
    rows = time_case(both, IMAGE, 1)  # type: ignore[arg-type]
    assert [(row["kind"], row["median_s"], row["apart"]) for row in rows] == [
        ("torch", 4, 0), ("ours-bfloat16", 2, 0.125),
    ]  # fmt: skip


def test_who_computes_something_else_is_no_contender(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "KINDS", {"ours": ("tf.function",), "torch": ("eager",)})
    with pytest.raises(SystemExit, match="1 image"):
        time_case([Contender("ours", *took(1, 1, 1, found=1.1)), Contender("torch", *took(1, 1, 1))], IMAGE, 1)  # type: ignore[list-item]
    # what is computed in a training step depends on each one's dropout
    time_case([Contender("ours", *took(1, 1, 1, found=1.1)), Contender("torch", *took(1, 1, 1))], STEP, 1)  # type: ignore[list-item]


def test_who_cannot_run_is_in_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "KINDS", {"torch": ("compile",)})
    rows = time_case([Contender("torch", {"error": "InvalidCxxCompiler"})], IMAGE, 3)  # type: ignore[list-item]
    assert (rows[0]["error"], rows[0]["runs"]) == ("InvalidCxxCompiler", [])
    assert "| PyTorch, compile | does not run |" in cases_table(rows)


@pytest.mark.parametrize(
    ("found", "told", "agree"),
    [([1.0], [1.0005], True), ([1.0], [1.01], False), ([float("nan")], [1.0], False), ([1.0], [1.0, 1.0], False)],
)
def test_agreement(found: list[float], told: list[float], agree: bool) -> None:
    assert close(found, told) is agree


@pytest.mark.parametrize(
    ("seconds", "megabytes", "verdict"),
    [(1.0, 120.0, "hold"), (1.5, 120.0, "MISSED"), (1.0, 140.0, "MISSED")],
)
def test_a_bound_of_loading_can_be_missed(
    monkeypatch: pytest.MonkeyPatch, seconds: float, megabytes: float, verdict: str
) -> None:
    taken = {"ours": {"load_seconds": seconds, "load_mb": megabytes}, "peer": {"load_seconds": 4.0, "load_mb": 300.0}}
    monkeypatch.setattr(models, "start", lambda kind, *_: Contender(kind, first=taken[kind]))
    rows = time_loading(Path(), ["ours", "peer"], 2, 10**8)
    row = next(line for line in loading_table(rows).splitlines() if "this package | tf_model.h5" in line)
    assert row.endswith(f"3 x, 1.3 x {verdict} |")


@pytest.mark.parametrize("size", ["dinov3-vit-b-16", "swinv2-tiny"])
def test_checkpoints_of_other_towers_convert(size: str, tmp_path: Path) -> None:
    """Their names are those of the rules; made smaller, since values do not matter here."""
    whole = SIZES[size]
    small = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    small |= {"embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2]}
    vision = {name: small.get(name, value) for name, value in whole.vision.items()}
    counts = write(replace(whole, vision=vision), tmp_path / "pt")
    done = pt2tf(tmp_path / "pt", tmp_path / "tf")
    assert (done.tensors, done.dropped) == (counts["tensors"], ())


@pytest.mark.tf
@pytest.mark.torch
def test_it_runs(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "models.py"), "--size", "tiny", "--runs", "1"]
    command += ["--folder", str(tmp_path / "data"), "--results", str(tmp_path / "results")]
    command += ["--contenders", "ours", "torch", "--loads", str(rounds(0, 1)), "--cases", IMAGE, STEP]
    environment = {**os.environ, "TORCH_COMPILE_DISABLE": str(rounds(1, 0))}  # a minute of a C++ compiler
    answer = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    report = json.loads((tmp_path / "results" / "models-tiny.json").read_text("utf-8"))
    rows = {(row["case"], row["kind"], row["mode"]): row for row in report["passes"]}
    assert {case for case, _, _ in rows} == {IMAGE, STEP} <= set(CASES)
    for case in (IMAGE, STEP):
        for kind, mode in (("ours", "tf.function"), ("ours", "XLA"), ("torch", "eager")):
            assert rows[case, kind, mode]["error"] is None
            assert rows[case, kind, mode]["median_s"] > 0
    assert "| this package, tf.function |" in answer.stdout
    assert list((tmp_path / "data").iterdir()) == []

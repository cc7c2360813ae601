"""What Python lets a person hand on and a command line would not: each is a ConverterError that names the choices."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from converter import ConverterError, combine, inspect, pt2tf, tf2pt
from tests.tiny import EXPECTED, FIXTURE

CHOICES = "does not exist; choose"
META = SimpleNamespace(dtype="torch.float32", shape=(2,), is_meta=True)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (
            lambda out: pt2tf(FIXTURE, out, dtype="fp16"),
            f"dtype 'fp16' {CHOICES} 'keep' or 'float32' or 'float16' or 'bfloat16'",
        ),
        (
            lambda out: pt2tf(FIXTURE, out, dtype=np.float16),
            f"dtype <class 'numpy.float16'> {CHOICES} 'keep' or 'float32' or 'float16' or 'bfloat16'",
        ),
        (
            lambda out: pt2tf(FIXTURE, out, format="tf"),
            "format tf is not one of TensorFlow's; choose h5 or safetensors",
        ),
        (
            lambda out: pt2tf(FIXTURE, out, format=None),
            "format None is not one of TensorFlow's; choose h5 or safetensors",
        ),
        (lambda out: tf2pt(EXPECTED, out, names="nonsense"), f"names 'nonsense' {CHOICES} 'v4' or 'v5'"),
        (
            lambda out: combine(FIXTURE, FIXTURE, out, target="tensorflow"),
            f"target 'tensorflow' {CHOICES} 'pt' or 'tf' or 'flax'",
        ),
        (
            lambda out: combine(FIXTURE, FIXTURE, out, format="h5"),
            "format h5 is not one of PyTorch's; choose safetensors or bin",
        ),
        (
            lambda out: pt2tf(SimpleNamespace(), out),
            "the source is a SimpleNamespace, expected a path, a Hub id or a state dict; for a model in memory pass "
            "model.state_dict()",
        ),
        (
            lambda out: pt2tf({"a": np.ones(2)}, out, config=SimpleNamespace()),
            "the config is a SimpleNamespace, expected a path or a dict; for a model in memory pass model.config.to_dict()",
        ),
        (
            lambda out: pt2tf({"a": META}, out, config={}),
            "state dict: a is on the meta device, which holds no values; transformers leaves that where it loaded nothing "
            "(from_flax=True, from_tf=True): load the model from its own weights first",
        ),
    ],
)
def test_wrong_words(call: Callable[[Path], Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(ConverterError) as caught:
        call(tmp_path / "out")
    assert str(caught.value) == said
    assert list(tmp_path.iterdir()) == []


def test_a_folder_beside_a_single_file_is_no_part_of_the_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("model.safetensors", "config.json"):
        shutil.copy(FIXTURE / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    assert pt2tf("model.safetensors", "out").out == Path("out")
    with pytest.raises(ConverterError, match="is the source"):
        pt2tf("model.safetensors", tmp_path, overwrite=True)
    with pytest.raises(ConverterError, match="lies inside the source"):
        pt2tf(tmp_path, "other")


def test_inspect_takes_a_config(tmp_path: Path) -> None:
    shutil.copy(FIXTURE / "model.safetensors", tmp_path)
    without = inspect(tmp_path)
    assert without.problem is not None
    assert without.problem.endswith("If it is elsewhere, pass --config FILE (in Python config=)")
    found = inspect(tmp_path, config=FIXTURE / "config.json")
    assert found.problem is None
    assert found.family == "vision-text-dual-encoder"


def test_the_next_line_can_be_pasted(tmp_path: Path) -> None:
    from converter.cli.printing import _summary_lines

    out = tmp_path / "out spaß 汉字"
    lines = list(_summary_lines(pt2tf(FIXTURE, out), joined=False))[-2:]
    assert [shlex.split(line) for line in lines] == [
        ["next:", "convert", "verify", str(out)],
        ["back:", "convert", "tf2pt", str(out), "OUT"],
    ]

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

import converter
from converter import ConverterError, VerifyOptions, combine, inspect, pt2tf, push, record_reference, tf2pt, verify
from converter.errors import OptionError
from tests import wrong
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
            "(from_flax=True, from_tf=True). Convert the folder itself: convert to tf FOLDER OUT",
        ),
    ],
)
def test_wrong_words(call: Callable[[Path], Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(ConverterError) as caught:
        call(tmp_path / "out")
    assert str(caught.value) == said
    assert list(tmp_path.iterdir()) == []


SOURCES = {
    "convert": FIXTURE,
    "pt2tf": FIXTURE,
    "inspect": FIXTURE,
    "record_reference": FIXTURE,
    "tf2pt": EXPECTED,
    "export": FIXTURE,
}
OTHERS = {
    "vision": FIXTURE,
    "text": FIXTURE,
    "folder": EXPECTED,
    "repository": "me/it",
    "to": "tf",
    "sources": FIXTURE,
    "tf_weight": "text_model.a.b",
}
FUNCTIONS = [name for name in converter.__all__ if name.islower()]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_parameter_of_every_function(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong words name the choices, and objects of other types what is expected; nothing is done before."""
    monkeypatch.chdir(tmp_path)
    function = getattr(converter, name)
    hints = wrong.hints_of(function)
    right = {"source": SOURCES.get(name), "out": tmp_path / "out.safetensors", **OTHERS}
    right |= {"to": "savedmodel"} if name == "export" else {}
    given = {parameter: value for parameter, value in right.items() if parameter in hints}
    tried = list(wrong.cases(function))
    assert {parameter for parameter, _, _ in tried} == set(hints)
    for parameter, value, words in tried:
        said = wrong.refused(function, given, parameter, value)
        assert all(word.strip("'") in said for word in words), said
    assert list(tmp_path.iterdir()) == []


def test_all_functions_are_tried() -> None:
    assert set(FUNCTIONS) >= {"pt2tf", "tf2pt", "combine", "inspect", "verify", "record_reference", "push"}
    counted = {name: len(wrong.hints_of(getattr(converter, name))) for name in FUNCTIONS}
    assert (counted["pt2tf"], counted["verify"], counted["push"]) == (13, 6, 9)


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("device", "gpu", "device is gpu, expected auto, cpu, cuda or cuda:<number>"),
        ("device", 7, "device is 7 (int); expected a text"),
        ("backend", "torch", "backend is torch, expected tensorflow or jax"),
        ("atol", "1e-4", "atol is '1e-4' (str); expected a number"),
        ("rtol", -1, "rtol is -1; give a finite number of 0 or more"),
        ("float64", "yes", "float64 is 'yes' (str); expected True or False"),
        ("seed", 1.5, "seed is 1.5 (float); expected a whole number"),
        ("seed", True, "seed is True (bool); expected a whole number"),
        ("seconds", None, "seconds is None; expected a number"),
        ("reference_python", 7, "reference_python is 7 (int); expected a path or None"),
        ("texts", ["a"], "texts is ['a'] (list); expected a path or None"),
        ("images", 7, "images is 7 (int); expected a sequence"),
        ("images", [None], "images is None; expected a path"),
    ],
)
def test_options_of_verify(option: str, value: object, said: str) -> None:
    with pytest.raises(OptionError) as caught:
        VerifyOptions(**{option: value})  # type: ignore[arg-type]
    assert str(caught.value) == said


def test_paths_in_options_may_be_texts() -> None:
    given: Any = {"texts": "a.txt", "images": "b.png", "reference_python": "python"}
    wanted = VerifyOptions(texts=Path("a.txt"), images=(Path("b.png"),), reference_python=Path("python"))
    assert VerifyOptions(**given) == wanted
    assert VerifyOptions(images=["b.png"]).images == (Path("b.png"),)  # type: ignore[arg-type, list-item]


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda out: combine(FIXTURE, FIXTURE, out, projection_dim=0), "projection_dim is 0; expected 1 or more"),
        (lambda out: combine(FIXTURE, FIXTURE, out, seed=-1), "seed is -1; expected 0 or more"),
        (
            lambda out: combine(FIXTURE, FIXTURE, out, format="nonsense"),
            "format nonsense is not one of PyTorch's; choose safetensors or bin",
        ),
        (lambda out: pt2tf(FIXTURE, out, overwrite="no"), "overwrite is 'no' (str); expected True or False"),
        (
            lambda out: pt2tf(FIXTURE, out, max_shard_size=1.5),
            "max_shard_size is 1.5 (float); expected a text or a whole number or None",
        ),
        (lambda out: verify(7), "folder is 7 (int); expected a path"),
        (lambda out: verify(EXPECTED, options={"atol": 1}), "options is {'atol': 1} (dict); expected a VerifyOptions or None"),
        (lambda out: record_reference(b"x", out), "source is b'x' (bytes); expected a path"),
        (lambda out: push(out, "me/it", create_pr="no"), "create_pr is 'no' (str); expected True or False or None"),
    ],
)  # fmt: skip
def test_what_is_said_of_other_types(call: Callable[[Path], Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(ConverterError) as caught:
        call(tmp_path / "out")
    assert str(caught.value) == said
    assert isinstance(caught.value, ValueError | OptionError) or "PyTorch's" in said
    assert list(tmp_path.iterdir()) == []


def test_names_that_a_function_does_not_have() -> None:
    with pytest.raises(TypeError, match="nonsense"):
        pt2tf(FIXTURE, "out", nonsense=1)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="out"):
        pt2tf(FIXTURE)  # type: ignore[call-arg]


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
    assert without.problem.endswith("If it is elsewhere, copy it there or pass --config FILE (in Python config=)")
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

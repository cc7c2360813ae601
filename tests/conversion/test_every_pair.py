"""Pairs that the rules serve, there and back bit for bit: each tower in one, others every day, and all of them in torture.

The list is read from the rules, so that none is forgotten.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest

from converter import pt2tf, tf2pt
from converter.names.rule_files import supported
from tests import torture
from tests.compat.towers import ALL_TEXT, ALL_VISION
from tests.tiny import assert_same, config_of, load, tensors_of, write_checkpoint
from tests.torture import FULL, is_done, note_done, there_and_back
from tests.towers import IN_TENSORFLOW_4, TEXT, VISION, sample_of_pairs

EVERY = list(itertools.product(supported("vision"), supported("text")))
PAIRS = EVERY if FULL else sample_of_pairs(supported("vision"), supported("text"))


@pytest.mark.parametrize(("vision", "text"), PAIRS, ids=["+".join(pair) for pair in PAIRS])
def test_there_and_back(tmp_path: Path, vision: str, text: str) -> None:
    if is_done(there_and_back(vision, text)):
        pytest.skip("passed with this code already; remove out/torture to begin anew")
    config = config_of()
    config["vision_config"] = {"model_type": vision, **ALL_VISION[vision]}
    config["text_config"] = {"model_type": text, **ALL_TEXT[text]}
    tensors = tensors_of(config)
    write_checkpoint(tmp_path / "pt", config, tensors)
    there = pt2tf(tmp_path / "pt", tmp_path / "tf")
    back = tf2pt(tmp_path / "tf", tmp_path / "back")
    assert (there.tensors, back.tensors, there.dropped) == (len(tensors), len(tensors), ())
    # What TensorFlow's class has and no model reads.
    assert {tensor.name for tensor in back.dropped} <= set(there.restored)
    found = load(tmp_path / "back" / "model.safetensors")
    assert_same({name: array for name, array in found.items() if name not in back.restored}, tensors)
    note_done(there_and_back(vision, text))


def test_every_tower_of_the_tests_is_there() -> None:
    assert sorted({name for pair in PAIRS for name in pair}) == sorted({**ALL_VISION, **ALL_TEXT})


@pytest.mark.parametrize("towers", [{*VISION, *TEXT}, {*IN_TENSORFLOW_4}], ids=["all", "in TensorFlow"])
def test_in_the_end_every_pair_is_tried(towers: set[str]) -> None:
    visions, texts = ([t for t in side if t in towers] for side in (VISION, TEXT))
    turns = max(len(visions), len(texts))
    tried = [pair for turn in range(turns) for pair in sample_of_pairs(visions, texts, turn)]
    assert set(tried) == set(itertools.product(visions, texts))
    assert len(tried) == turns * turns


@pytest.mark.skipif(FULL, reason="written once this run has passed")
def test_every_pair_has_been_tried() -> None:
    """`make torture` converts all pairs; what it last found is kept."""
    found = json.loads(torture.SUMMARY.read_text("utf-8"))
    towers = (sorted(supported("vision")), sorted(supported("text")))
    assert (found["vision"], found["text"]) == towers, "docs/towers.md tells how to convert them"
    assert found["there_and_back_bit_for_bit"] == len(found["vision"]) * len(found["text"])


def test_torture_goes_on_where_it_was_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not is_done("a pair", tmp_path)
    monkeypatch.setattr(torture, "FULL", True)
    note_done("a pair", tmp_path)
    assert is_done("a pair", tmp_path)
    monkeypatch.setattr(torture, "state_of_the_code", lambda: "other code")
    assert not is_done("a pair", tmp_path)

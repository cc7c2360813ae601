"""Which part of what a training script saved is the model, and that what lay beside it is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from converter.checkpoints.state_dicts import find_state_dict
from converter.checkpoints.torch_zip import read_header
from converter.errors import UnsupportedContainer
from tests.archives import dump, storage, tensor, write_archive

PATH = Path("model.bin")
WEIGHTS = {"a.weight": 1.0, "b": 2.0}


def found(value: Any) -> tuple[Any, Any]:
    return find_state_dict(PATH, value, lambda held: isinstance(held, float))


@pytest.mark.parametrize(
    "key", ["state_dict", "model_state_dict", "model_state", "model", "module", "net", "generator", "anything at all"]
)
def test_one_dict_of_tensors_is_taken_by_any_key(key: str) -> None:
    optimizer = {"state": {0: {"step": 1.0}}, "param_groups": [{"lr": 0.1}]}
    saved = {"epoch": 3, "loss": 0.5, key: dict(WEIGHTS), "optimizer_state_dict": optimizer, "args": None}
    assert found(saved) == (WEIGHTS, {})


def test_a_state_dict_alone() -> None:
    assert found(dict(WEIGHTS)) == (WEIGHTS, {})


def test_a_wrapped_dict_in_another() -> None:
    assert found({"checkpoint": {"state_dict": dict(WEIGHTS), "epoch": 1}, "seed": 4}) == (WEIGHTS, {})


@pytest.mark.parametrize(
    ("taken", "other"), [("state_dict", "state_dict_ema"), ("model", "ema"), ("model", "model_ema")]
)
def test_what_lies_beside_is_said(taken: str, other: str) -> None:
    saved = {other: {"x": 3.0}, taken: dict(WEIGHTS)}
    reason = f"lies beside {taken}, which was converted; save it alone to convert it"
    assert found(saved) == (WEIGHTS, {other: reason})


def test_several_of_which_none_is_usual_are_refused() -> None:
    with pytest.raises(UnsupportedContainer) as caught:
        found({"generator": {"x": 1.0}, "critic": {"x": 2.0}})
    assert str(caught.value) == (
        "model.bin: holds 2 dicts of tensors (generator, critic); save the one you want alone: "
        "torch.save(torch.load(FILE)[KEY], OTHER_FILE)"
    )


@pytest.mark.parametrize(
    ("saved", "said"),
    [
        ({"x": 1.0, "epoch": 3}, "epoch is a int"),
        ({"state": {0: {"step": 1.0}}, "param_groups": []}, "state is a dict"),
        ({"state_dict": {"x": 1.0, "y": 2}, "epoch": 1}, "y is a int"),
    ],
)
def test_more_than_tensors_is_refused(saved: Any, said: str) -> None:
    with pytest.raises(UnsupportedContainer) as caught:
        found(saved)
    assert str(caught.value) == (
        f"model.bin: {said}, expected a tensor; save the state_dict alone: torch.save(model.state_dict(), FILE)"
    )


def test_a_dict_that_holds_itself() -> None:
    saved: dict[str, Any] = {}
    saved["state_dict"] = saved
    with pytest.raises(UnsupportedContainer):
        found(saved)


def test_it_is_said_of_a_file(tmp_path: Path) -> None:
    view = tensor(storage("0", 2), 0, (2,), (1,))
    path = write_archive(tmp_path / "x.pt", dump({"model": {"a": view}, "ema": {"a": view}}), {"0": bytes(8)})
    checkpoint = read_header(path)
    assert list(checkpoint.tensors) == ["a"]
    assert dict(checkpoint.beside) == {"ema": "lies beside model, which was converted; save it alone to convert it"}

"""What is read of an image processor, and that one whose numbers make no picture is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converter.errors import ConfigError
from converter.exporting.normalisation import Normalisation, normalisation_of, read_normalisation, size_of

FIXTURE = Path(__file__).parents[2] / "fixtures" / "clip-bert-tiny"
PLAIN: dict[str, Any] = {
    "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True,
    "image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6],
}  # fmt: skip


def test_of_a_folder(tmp_path: Path) -> None:
    raw = json.loads((FIXTURE / "processor_config.json").read_text())["image_processor"]
    assert normalisation_of(FIXTURE) == Normalisation(1 / 255, tuple(raw["image_mean"]), tuple(raw["image_std"]))
    assert normalisation_of(tmp_path) is None
    (tmp_path / "processor_config.json").write_text('{"processor_class": "CLIPProcessor"}')
    assert normalisation_of(tmp_path) is None
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(PLAIN))
    assert normalisation_of(tmp_path) == Normalisation(1 / 255, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({"do_center_crop": True, "crop_size": {"height": 30, "width": 40}, "size": {"shortest_edge": 50}}, (30, 40)),
        ({"do_center_crop": True, "crop_size": 30, "size": 50}, (30, 30)),
        ({"do_center_crop": False, "crop_size": 30, "size": {"height": 50, "width": 60}}, (50, 60)),
        ({"size": 50}, (50, 50)),
        ({"size": {"shortest_edge": 50}}, None),
        ({"do_resize": False, "size": 50}, None),
        ({"size": {"height": 0, "width": 60}}, None),
        ({"size": [50, 60]}, None),
        ({}, None),
    ],
    ids=[
        "crop",
        "crop by one number",
        "no crop",
        "one number",
        "ragged",
        "as they come",
        "no picture",
        "a list",
        "silent",
    ],
)
def test_the_size_of_every_picture(tmp_path: Path, fields: dict[str, Any], wanted: tuple[int, int] | None) -> None:
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(PLAIN | fields))
    assert size_of(tmp_path) == wanted


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"do_rescale": False}, Normalisation(1.0, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))),
        ({"do_normalize": False, "image_mean": None}, Normalisation(1 / 255, (0.0,), (1.0,))),
        ({"image_mean": 0.5, "image_std": 0.25}, Normalisation(1 / 255, (0.5,), (0.25,))),
    ],
    ids=["no rescaling", "no normalising", "one number for all channels"],
)
def test_switches(changes: dict[str, Any], wanted: Normalisation) -> None:
    assert read_normalisation(PLAIN | changes, "here") == wanted


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rescale_factor": 0}, "rescale_factor is 0; expected a number above 0"),
        ({"rescale_factor": True}, "rescale_factor is True; expected a number above 0"),
        ({"image_std": [0.4, 0.0, 0.6]}, "image_std is [0.4, 0.0, 0.6]; expected numbers above 0"),
        ({"image_std": [0.4, float("nan"), 0.6]}, "image_std is [0.4, nan, 0.6]; expected a number for each channel"),
        ({"image_mean": [10**400] * 3}, "image_mean is [1000"),
        ({"image_mean": None}, "image_mean is None; expected a number for each channel"),
        ({"image_mean": ["0.1"]}, "image_mean is ['0.1']; expected a number for each channel"),
        ({"image_mean": [0.1] * 65}, "image_mean is [0.1, 0.1"),
        ({"image_mean": []}, "image_mean is []; expected a number for each channel"),
    ],
    ids=[
        "no scale",
        "a switch",
        "a zero",
        "NaN",
        "too long",
        "none",
        "a text",
        "too many",
        "no channel",
    ],
)
def test_numbers_that_make_no_picture(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_normalisation(PLAIN | changes, "here")
    assert str(caught.value).startswith(f"here: {message}")


def test_numbers_of_other_channels() -> None:
    with pytest.raises(ConfigError, match="have 2 and 3 numbers; the model takes 3 channels"):
        Normalisation(1.0, (0.0, 0.0), (1.0, 1.0, 1.0)).scale_and_shift(3)


def test_bytes() -> None:
    found = Normalisation(1 / 255, (0.5,), (0.25,)).apply(np.array([[0, 255]], np.uint8).reshape(1, 1, 2, 1))
    np.testing.assert_allclose(found.ravel(), [-2, 2], atol=1e-6)

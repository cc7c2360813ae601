"""What a page shows beside figures: pictures and captions, both sides' probabilities, and when and of what it is."""

from __future__ import annotations

import io
import json
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converter import pt2tf
from converter.folder.manifest import read_manifest
from converter.parity.batches import Batch
from converter.parity.occasion import occasion_of
from converter.parity.runners.golden import Recording
from converter.parity.samples import Samples
from converter.parity.thumbnails import SIDE, thumbnails
from converter.parity.trial import trial_of
from converter.parity.verify import verify
from tests.parity.samples import IMAGES, METADATA, TEXTS, inputs, taps
from tests.tiny import FIXTURE

SAMPLES = Samples(("uno", "due", "tre"), tuple(Path("/home/me", f"{k}.png") for k in range(IMAGES)))
MEAN, STD = [0.5, 0.25, 0.75], [0.5, 0.25, 0.125]


def run(title: str = SAMPLES.title, **changed: Any) -> Recording:
    """A run of made-up inputs and of texts and pictures."""
    return Recording(METADATA, (Batch("random", inputs(), taps()), Batch(title, inputs(), taps(1) | changed)))


def colours(png: bytes) -> Any:
    """The pixels of a PNG as we write it; and that all of it is sound."""
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    stream, chunks = io.BytesIO(png[8:]), {}
    while head := stream.read(8):
        data = stream.read(int.from_bytes(head[:4], "big"))
        assert int.from_bytes(stream.read(4), "big") == zlib.crc32(head[4:] + data)
        chunks[head[4:]] = data
    width, height = (int.from_bytes(chunks[b"IHDR"][at : at + 4], "big") for at in (0, 4))
    rows = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(height, -1)
    assert not rows[:, 0].any()
    return rows[:, 1:].reshape(height, width, -1)


def test_probabilities_of_both_sides() -> None:
    off = replace(run(), batches=run(logits_per_image=np.zeros((IMAGES, TEXTS), np.float32)).batches)
    found = trial_of(off, run(), Path("none"), {"model_type": "clip"}, SAMPLES)
    assert found is not None
    logits = taps(1)["logits_per_image"].astype(np.float64)
    expected = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(found.reference, expected, rtol=1e-12)
    np.testing.assert_allclose(found.candidate, np.full((IMAGES, TEXTS), 1 / TEXTS))
    assert (found.captions, found.names) == (("uno", "due", "tre"), ("0.png", "1.png", "2.png", "3.png"))
    pairs = trial_of(off, run(), Path("none"), {"model_type": "siglip"}, SAMPLES)
    assert pairs is not None
    np.testing.assert_allclose(pairs.reference, 1 / (1 + np.exp(-logits)), rtol=1e-12)


def test_what_is_not_finite_is_no_probability() -> None:
    lost = taps(1)["logits_per_image"].copy()
    lost[1, 2] = np.nan
    lost[2, 0] = np.inf
    for kind in ("clip", "siglip"):
        found = trial_of(run(logits_per_image=lost), run(), Path("none"), {"model_type": kind}, SAMPLES)
        assert found is not None
        assert np.isnan(found.candidate[1][2])
        assert np.isnan(found.candidate[2][0])
        assert np.isfinite(found.candidate[0]).all()


def test_texts_of_a_golden_file_are_numbered() -> None:
    found = trial_of(run(), run(), Path("none"), {}, None)
    assert found is not None
    assert found.captions == ("text 1", "text 2", "text 3")
    assert found.names[-1] == f"picture {IMAGES}"


def test_without_pictures_nothing_was_tried() -> None:
    assert trial_of(run("random, too"), run("random, too"), Path("none"), {}, SAMPLES) is None
    other = run(logits_per_image=np.zeros((IMAGES, TEXTS + 1), np.float32))
    assert trial_of(other, run(), Path("none"), {}, SAMPLES) is None


@pytest.mark.parametrize("name", ["preprocessor_config.json", "processor_config.json"])
def test_a_thumbnail_has_the_colours_of_the_picture(tmp_path: Path, name: str) -> None:
    numbers: dict[str, Any] = {"image_mean": MEAN, "image_std": STD}
    (tmp_path / name).write_text(json.dumps(numbers if name[3] == "p" else {"image_processor": numbers}))
    drawn = np.random.default_rng(1).integers(0, 256, (2, 6, 5, 3))
    values = np.moveaxis((drawn / 255 - MEAN) / STD, -1, 1).astype(np.float32)
    for png, wanted in zip(thumbnails({"pixel_values": values}, tmp_path), drawn, strict=True):
        np.testing.assert_array_equal(colours(png), wanted)


def test_pictures_that_are_cut_up_are_put_together(tmp_path: Path) -> None:
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0, 0, 0], "image_std": [1, 1, 1]}))
    drawn = np.random.default_rng(1).integers(0, 256, (6, 4, 3))
    cut = (drawn / 255).reshape(3, 2, 2, 2, 3).transpose(0, 2, 1, 3, 4).reshape(1, 6, 12)
    values = np.concatenate([cut, np.zeros((1, 3, 12))], axis=1).astype(np.float32)
    made = thumbnails({"pixel_values": values, "spatial_shapes": np.array([[3, 2]])}, tmp_path)
    np.testing.assert_array_equal(colours(made[0]), drawn)


def test_a_thumbnail_is_small_whatever_the_picture_is(tmp_path: Path) -> None:
    for shape in ((1, 3, 500, 224), (1, 1, 2, 400), (2, 2, 7, 3), (1, 3, 97, 97)):
        values = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
        for png in thumbnails({"pixel_values": values}, tmp_path):
            height, width, channels = colours(png).shape
            assert max(height, width) <= SIDE
            assert channels == (3 if shape[1] == 3 else 1)
    assert colours(thumbnails({"pixel_values": np.zeros((1, 3, 2, 2), np.float32)}, tmp_path)[0]).max() == 0


@pytest.mark.parametrize("mean", [[1, 2], "abc", [1e300, 0, 0], [None, 0, 0], {"a": 1}, [[1], [1], [1]]])
def test_numbers_of_a_processor_that_are_none_are_left_alone(tmp_path: Path, mean: Any) -> None:
    """The picture is stretched from black to white instead."""
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"image_mean": mean, "image_std": [1, 1, 1]}))
    values = np.linspace(-2, 2, 27, dtype=np.float32).reshape(1, 3, 3, 3)
    pixels = colours(thumbnails({"pixel_values": values}, tmp_path)[0])
    assert (pixels.min(), pixels.max()) == (0, 255)


def test_an_occasion_says_which_model_and_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GITHUB_SHA", "CI_COMMIT_SHA"):
        monkeypatch.delenv(name, raising=False)
    out = tmp_path / "project" / "tf"
    out.parent.mkdir()
    pt2tf(FIXTURE, out)
    found = verify(out, weights_only=True).occasion
    assert found is not None
    assert found.model == "VisionTextDualEncoderModel, clip_vision_model + bert"
    assert (found.source, found.commit) == (FIXTURE.name, "")
    assert found.date.endswith("Z")
    git = out.parent / ".git"
    (git / "refs" / "heads").mkdir(parents=True)
    (git / "HEAD").write_text("ref: refs/heads/main\n")
    assert occasion_of(out, None).commit == ""
    (git / "refs" / "heads" / "main").write_text("ab" * 20 + "\n")
    assert occasion_of(out, read_manifest(out)).commit == "ab" * 20
    (git / "HEAD").write_text("cd" * 20)
    assert occasion_of(out, None).commit == "cd" * 20
    monkeypatch.setenv("GITHUB_SHA", "ef" * 20)
    assert occasion_of(out, None).commit == "ef" * 20


@pytest.mark.parametrize("head", ["ref: ../../secret", "ref: /etc/hostname", "ref: a\0b", "no commit", "ref: ", "\xff"])
def test_a_head_that_names_another_file_shows_nothing_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, head: str
) -> None:
    for name in ("GITHUB_SHA", "CI_COMMIT_SHA"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "out" / ".git").mkdir(parents=True)
    (tmp_path / "secret").write_text("a password")
    (tmp_path / "out" / ".git" / "HEAD").write_text(head)
    assert occasion_of(tmp_path / "out", None).commit == ""

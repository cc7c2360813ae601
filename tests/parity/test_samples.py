"""Texts and pictures as inputs: which are found, and what is refused before a model runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converter.errors import ParityError
from converter.folder.files import read_json
from converter.parity.samples import MAX_SAMPLES, SHIPPED, find_samples, is_of_samples, sample_batch


@pytest.fixture(scope="module")
def config(fixtures: Path) -> dict[str, Any]:
    return read_json(fixtures / "clip-bert-tiny" / "config.json")


def made(**changed: Any) -> dict[str, Any]:
    draw = np.random.default_rng(3)
    return {
        "pixel_values": draw.standard_normal((2, 3, 40, 40), dtype=np.float32),
        "input_ids": np.array([[2, 5, 3], [2, 3, 0]]),
        "attention_mask": np.array([[1, 1, 1], [1, 1, 0]]),
        "token_type_ids": np.zeros((2, 3), np.int64),
        **changed,
    }


def test_some_ship_with_the_package() -> None:
    samples = find_samples()
    assert [path.name for path in samples.pictures] == ["disc.png", "ramp.png", "triangle.png"]
    assert len(samples.texts) == 4
    assert not samples.given
    assert samples.title == "shipped texts and pictures through the processor"
    assert is_of_samples(samples.title)


def test_those_that_are_named_take_their_place(tmp_path: Path) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("one\n\n  zwei  \n", "utf-8")
    (tmp_path / "pictures").mkdir()
    for name in ("b.PNG", "a.jpg", "notes.txt"):
        (tmp_path / "pictures" / name).write_bytes(b"x")
    samples = find_samples(texts, [tmp_path / "pictures", SHIPPED / "disc.png"])
    assert samples.texts == ("one", "zwei")
    assert [path.name for path in samples.pictures] == ["a.jpg", "b.PNG", "disc.png"]
    assert samples.given
    assert find_samples(texts).pictures == find_samples().pictures
    assert find_samples(texts).given


def refusal(texts: Path | None = None, pictures: tuple[Path, ...] = ()) -> str:
    with pytest.raises(ParityError) as caught:
        find_samples(texts, pictures)
    return str(caught.value)


def test_what_cannot_be_read_is_refused(tmp_path: Path) -> None:
    empty = tmp_path / "empty.txt"
    empty.write_text(" \n\n", "utf-8")
    assert refusal(empty) == f"{empty}: holds no text; give one text per line"
    assert (
        refusal(tmp_path / "none") == f"{tmp_path}/none: cannot be read: No such file or directory; name another file"
    )
    assert refusal(None, (tmp_path,)) == (
        f"{tmp_path}: holds no picture; supported are .png, .jpg, .jpeg, .webp, .bmp, .gif"
    )
    latin = tmp_path / "latin.txt"
    latin.write_bytes(b"perch\xe9")
    assert refusal(latin).startswith(f"{latin}: not UTF-8 text: ")
    assert refusal(Path("/dev/zero")) == "/dev/zero: 0 bytes, expected a file of at most 1,048,576; name another file"
    many = tmp_path / "many.txt"
    many.write_text("x\n" * (MAX_SAMPLES + 1), "utf-8")
    assert refusal(many) == "65 texts, expected at most 64; name fewer"


def test_of_many_some_can_be_chosen_evenly(tmp_path: Path) -> None:
    many = tmp_path / "many.txt"
    many.write_text("".join(f"{number}\n" for number in range(2 * MAX_SAMPLES)), "utf-8")
    found = find_samples(many, choose=True)
    assert found.texts == tuple(map(str, range(0, 2 * MAX_SAMPLES, 2)))
    assert find_samples(choose=True).texts == find_samples().texts


def test_a_batch_is_what_the_model_takes(config: dict[str, Any]) -> None:
    batch = sample_batch("t", made(unheard_of=np.ones(1)), config)
    assert list(batch.inputs) == ["pixel_values", "input_ids", "attention_mask", "token_type_ids"]
    without = {name: array for name, array in made().items() if name in ("pixel_values", "input_ids")}
    assert list(sample_batch("t", without, config).inputs) == ["pixel_values", "input_ids"]


def test_a_processor_of_another_model_is_refused(config: dict[str, Any]) -> None:
    size = config["text_config"]["vocab_size"]
    with pytest.raises(ParityError) as caught:
        sample_batch("t", made(input_ids=np.array([[2, size, 3], [2, 3, 0]])), config)
    assert str(caught.value) == (
        f"the tokenizer makes the id {size} and the model has {size} embeddings; use the tokenizer of this model"
    )
    with pytest.raises(ParityError) as caught:
        sample_batch("t", made(pixel_values=np.zeros((2, 3, 48, 40), np.float32)), config)
    assert str(caught.value) == (
        "the image processor makes pictures of (3, 48, 40), the model takes (3, 40, 40); use the image processor of this model"
    )
    cut = made(pixel_values=np.zeros((2, 9, 108), np.float32), spatial_shapes=np.full((2, 2), 3))
    with pytest.raises(
        ParityError, match=r"^the image processor makes pictures of \(9, 108\), the model takes \(3, 40, 40\)"
    ):
        sample_batch("t", cut, config)
    vision = {"model_type": "siglip2_vision_model", "patch_size": 6, "num_patches": 25}
    cutting = {**config, "model_type": "siglip2", "vision_config": vision}
    assert list(sample_batch("t", cut, cutting).inputs)[:3] == ["pixel_values", "spatial_shapes", "input_ids"]
    for wrong in (made(), {**cut, "pixel_values": np.zeros((2, 9, 107), np.float32)}):
        with pytest.raises(ParityError, match=r", the model takes \(patches, 108\) and spatial_shapes; use the image "):
            sample_batch("t", wrong, cutting)
    resizing = {**config, "vision_config": {**config["vision_config"], "model_type": "dinov2"}}
    assert sample_batch("t", made(pixel_values=np.zeros((2, 3, 48, 40), np.float32)), resizing).is_square

"""The batches: from one seed always the same, well formed for every config, and each shows what its title says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.errors import ParityError
from converter.names.rule_files import SIDES, Side, supported
from converter.names.towers import counts_after_padding, input_rules, tower_defaults
from converter.parity.batches import check_inputs
from converter.parity.inputs import MAX_SEQUENCE, image_shape, read_vocabulary, takes_any_size, wanted_instead
from converter.parity.making import EXTREME_PIXEL, make_batches

VISION = {"model_type": "vit", "image_size": 12, "num_channels": 3}
TEXT = supported("text")


def config(model_type: str = "bert", **text: Any) -> dict[str, Any]:
    small = {"vocab_size": 61, "max_position_embeddings": 23}
    return {"vision_config": VISION, "text_config": {"model_type": model_type, **small, **text}}


def test_a_seed_makes_the_same_batches_and_another_makes_others() -> None:
    one, same, other = make_batches(config(), 7), make_batches(config(), 7), make_batches(config(), 8)
    for ours, theirs in zip(one, same, strict=True):
        assert ours.title == theirs.title
        assert {n: a.tobytes() for n, a in ours.inputs.items()} == {n: a.tobytes() for n, a in theirs.inputs.items()}
    assert any(
        a.inputs["input_ids"].tobytes() != b.inputs["input_ids"].tobytes() for a, b in zip(one, other, strict=True)
    )


def test_between_them_batches_meet_every_case() -> None:
    batches = make_batches(config("bert"))
    masks = [batch.inputs.get("attention_mask") for batch in batches]
    lengths = [batch.inputs["input_ids"].shape[1] for batch in batches]
    images = [len(batch.inputs["pixel_values"]) for batch in batches]
    texts = [len(batch.inputs["input_ids"]) for batch in batches]
    assert (min(lengths), max(lengths)) == (1, 23)
    assert any(n > m for n, m in zip(images, texts, strict=True))
    assert any(n < m for n, m in zip(images, texts, strict=True))
    assert any(batch.is_square and n > 1 for batch, n in zip(batches, images, strict=True))
    bare = [(length, n) for mask, length, n in zip(masks, lengths, texts, strict=True) if mask is None]
    assert any(1 < length < 23 and n > 1 for length, n in bare), (
        "a default mask has the length of the texts, not the greatest"
    )
    assert any(length == 23 for length, _ in bare)
    assert any(mask is not None and len(set(mask.sum(axis=1))) > 1 and mask[:, 0].all() for mask in masks), "ragged"
    assert any(mask is not None and (mask[:, 0] == 0).any() and mask[:, -1].all() for mask in masks), "left"
    assert any(mask is not None and (np.abs(np.diff(mask)).sum(axis=1) > 1).any() for mask in masks), "holes"
    assert any({"token_type_ids", "position_ids"} <= batch.inputs.keys() for batch in batches)
    assert any(np.abs(batch.inputs["pixel_values"]).min() == 0 for batch in batches)
    assert max(np.abs(batch.inputs["pixel_values"]).max() for batch in batches) >= EXTREME_PIXEL


@given(
    model_type=st.sampled_from(supported("text")),
    vocabulary=st.integers(5, 200),
    positions=st.integers(4, 40),
    types=st.integers(1, 4),
    pad=st.one_of(st.none(), st.integers(-1, 2)),
    end=st.one_of(st.none(), st.integers(0, 300)),
    size=st.one_of(st.integers(1, 20), st.tuples(st.integers(1, 9), st.integers(1, 9)).map(list)),
    seed=st.integers(0, 2**32),
)
def test_batches_are_well_formed_for_every_config(
    model_type: str, vocabulary: int, positions: int, types: int, pad: int | None, end: int | None, size: Any, seed: int
) -> None:
    text = {"vocab_size": vocabulary, "max_position_embeddings": positions, "type_vocab_size": types}
    whole = config(model_type, **text, pad_token_id=pad, eos_token_id=end)
    whole["vision_config"] = {**VISION, "image_size": size, "num_channels": 2}
    known = read_vocabulary(whole)
    sides = (size, size) if isinstance(size, int) else tuple(size)
    for batch in make_batches(whole, seed):
        check_inputs(batch.inputs, batch.title)
        ids, mask = batch.inputs["input_ids"], batch.mask
        assert batch.inputs["pixel_values"].shape[1:] == (2, *sides)
        assert ids.max() < known.size == input_rules("text", model_type).get("vocabulary", vocabulary)
        assert batch.inputs.get("token_type_ids", np.zeros(1)).max() < types
        assert batch.inputs.get("position_ids", np.zeros(1)).max() < positions
        assert set(ids[mask].tolist()) <= {*range(known.size), known.end} - ({*known.special} - {known.end})
        if counts_after_padding(model_type, {**tower_defaults("text", model_type), **text}):
            # position ids count from behind the padding token's id on: the last of them has to exist
            first = input_rules("text", model_type).get("padding_id", known.pad)
            assert (first + np.cumsum(ids != first, axis=1) * (ids != first)).max() < positions
            assert not (ids[mask] == first).any()
        if input_rules("text", model_type).get("ends_with_eos"):
            check_ends(ids, mask, known.end, end)


def cut_up(**vision: Any) -> dict[str, Any]:
    text = {"model_type": "siglip2_text_model", "vocab_size": 61, "max_position_embeddings": 23}
    small = {"model_type": "siglip2_vision_model", "num_patches": 49, "patch_size": 2}
    return {"model_type": "siglip2", "vision_config": {**small, **vision}, "text_config": text}


@given(side=st.integers(1, 12), patch=st.integers(1, 4), seed=st.integers(0, 2**32))
def test_images_that_are_cut_up_are_well_formed(side: int, patch: int, seed: int) -> None:
    whole = cut_up(num_patches=side**2, patch_size=patch, num_channels=2)
    for batch in make_batches(whole, seed):
        check_inputs(batch.inputs, batch.title)
        assert wanted_instead(batch.inputs, whole) is None
        assert batch.inputs["pixel_values"].shape[1:] == (side**2, 2 * patch**2)


def test_between_them_images_that_are_cut_up_meet_every_case() -> None:
    batches = [batch.inputs for batch in make_batches(cut_up(num_patches=64))]
    shapes = [tuple(shape) for inputs in batches for shape in inputs["spatial_shapes"].tolist()]
    assert {(rows > columns) - (rows < columns) for rows, columns in shapes} == {-1, 0, 1}
    assert any(max(shape) > 8 for shape in shapes), "more than the table of positions has"
    assert any(min(shape) < 8 for shape in shapes), "fewer, where the filter is wider"
    masks = [inputs.get("pixel_attention_mask") for inputs in batches]
    assert any(mask is None for mask in masks)
    for mask, inputs in zip(masks, batches, strict=True):
        if mask is not None:
            assert mask.sum(axis=1).tolist() == inputs["spatial_shapes"].prod(axis=1).tolist()
    assert any(
        mask is not None and len(set(mask.sum(axis=1))) == len(mask) > 1 and mask.all(axis=1).any() for mask in masks
    )


def test_pictures_are_cut_as_the_image_processor_cuts_them() -> None:
    """A quarter each of the last batch is white, black, chequered and zero: so are patches, in the processor's order."""
    whole = cut_up(num_patches=16, patch_size=2)
    found = make_batches(whole)[-1].inputs["pixel_values"][0].reshape(4, 4, 2, 2, 3)
    whole = {**config(), "vision_config": {**VISION, "image_size": 8}}
    picture = make_batches(whole)[-1].inputs["pixel_values"]
    np.testing.assert_array_equal(found.transpose(4, 0, 2, 1, 3).reshape(3, 8, 8), picture[0])
    assert len(np.unique(picture)) == 3


def check_ends(ids: Any, mask: Any, known: int | None, end: int | None) -> None:
    """CLIP pools where the end token stands: once per text, at its last position that counts."""
    for row, counts in zip(ids, mask, strict=True):
        last = int(np.flatnonzero(counts)[-1])
        assert row[last] == known
        assert (row == known).sum() == 1
        if end in (2, None):
            assert int(row.argmax()) == last
    if end is not None and end >= ids.max() + 1:
        assert mask[:, 0].all(), "no token matches, position 0 is pooled, and with causal attention it has to count"


def test_towers_without_token_types_get_none() -> None:
    without = [t for t in TEXT if "type_vocab_size" not in tower_defaults("text", t)]
    assert {"mpnet", "clip_text_model"} <= set(without)
    for model_type in without:
        assert all("token_type_ids" not in batch.inputs for batch in make_batches(config(model_type)))


def test_texts_of_characters() -> None:
    """CANINE knows no words, and no text is shorter than a molecule."""
    asked = config("canine", downsampling_rate=12)
    batches = make_batches(asked)
    assert read_vocabulary(asked).size == 0x110000
    assert max(int(batch.inputs["input_ids"].max()) for batch in batches) > 0xFFFF
    assert {batch.inputs["input_ids"].shape[1] for batch in batches} == {12, 23}
    assert {int(batch.mask.sum(axis=1).min()) for batch in batches} >= {1}
    with pytest.raises(ParityError, match="23 positions leave no room for a test text"):
        read_vocabulary(config("canine", downsampling_rate=24))


def test_texts_are_not_longer_than_can_be_compared() -> None:
    """Attention grows with the square of what a config of a few bytes may ask for."""
    text = {"model_type": "bert", "max_position_embeddings": 10**9}
    assert read_vocabulary({**config(), "text_config": text}).longest == MAX_SEQUENCE


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"text_config": None}, "config.json: no text_config; expected the config of a model with two towers"),
        ({"vision_config": []}, "config.json: no vision_config; expected the config of a model with two towers"),
        (
            {"text_config": {"model_type": "new"}},
            "text_config of new: no usable vocab_size, max_position_embeddings; add it to config.json",
        ),
        (
            {"text_config": {"model_type": "bert", "vocab_size": 0}},
            "text_config of bert: no usable vocab_size; add it to config.json",
        ),
        (
            {"text_config": {"model_type": "bert", "vocab_size": 1}},
            "text_config: a vocabulary of 1 and 512 positions leave no room for a test text; correct the config",
        ),
        (
            {"text_config": {"model_type": "roberta", "max_position_embeddings": 2}},
            "text_config: a vocabulary of 50265 and 2 positions leave no room for a test text; correct the config",
        ),
        (
            {"vision_config": {"model_type": "vit", "image_size": "big"}},
            "vision_config: image_size 'big' and num_channels 3 do not describe an image; correct the config",
        ),
        (
            {"vision_config": {"model_type": "vit", "image_size": 0}},
            "vision_config: image_size 0 and num_channels 3 do not describe an image; correct the config",
        ),
        (
            {"vision_config": {"image_size": 4097, "num_channels": 1}},
            "vision_config: image_size 4097 and num_channels 1 do not describe an image; correct the config",
        ),
        (
            {"vision_config": {"model_type": "vit", "image_size": [8, 8, 8]}},
            "vision_config: image_size [8, 8, 8] and num_channels 3 do not describe an image; correct the config",
        ),
        *(
            (
                {"vision_config": {"model_type": "siglip2_vision_model", **fields}},
                f"vision_config: num_patches {said!r} and num_channels 3 do not describe an image; correct the config",
            )
            for fields, said in (
                ({"num_patches": 250}, 250),
                ({"num_patches": -4}, -4),
                ({"num_patches": "16"}, "16"),
                ({"num_patches": 10**18}, 10**18),
                ({"patch_size": [16, 16]}, 256),
                ({"patch_size": 257}, 256),
            )
        ),
    ],
)
def test_a_config_that_makes_no_inputs_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ParityError) as caught:
        make_batches({**config(), **change})
    assert str(caught.value) == message


def made_by_transformers(side: Side) -> list[tuple[str, Any]]:
    from transformers import CONFIG_MAPPING

    return [(model_type, CONFIG_MAPPING[model_type]()) for model_type in supported(side)]


@pytest.mark.torch
def test_silence_means_what_it_means_in_transformers() -> None:
    """A text config of its model type alone gives the batches that it gives with transformers' defaults written out."""
    for model_type, made in made_by_transformers("text"):
        names = ("vocab_size", "max_position_embeddings", "type_vocab_size", "pad_token_id", "eos_token_id")
        said = {name: getattr(made, name) for name in names if hasattr(made, name)}
        words = {"vocab_size": 33} if said.get("vocab_size", 0) is None else {}  # ESM's class knows of none
        silent, loud = (read_vocabulary(config_of_text(model_type, **{**fields, **words})) for fields in ({}, said))
        assert silent == loud, model_type
        assert (silent.types > 0) == ("type_vocab_size" in tower_defaults("text", model_type))
    for model_type, made in made_by_transformers("vision"):
        silent = {"vision_config": {"model_type": model_type}}
        sides = made.image_size if isinstance(made.image_size, (list, tuple)) else (made.image_size, made.image_size)
        assert image_shape(silent) == (made.num_channels, *sides), model_type


def config_of_text(model_type: str, **fields: Any) -> dict[str, Any]:
    return {"vision_config": VISION, "text_config": {"model_type": model_type, **fields}}


def test_what_the_rule_files_say_of_inputs() -> None:
    assert {side: sorted({key for t in supported(side) for key in input_rules(side, t)}) for side in SIDES} == {
        "vision": ["any_size", "no_maps"],
        "text": [
            "any_length",
            "ends_with_eos",
            "literal_eos",
            "pad_token_id",
            "padded_inside",
            "padded_right",
            "padding_compared",
            "padding_id",
            "positions_after_padding",
            "shortest",
            "vocabulary",
        ],
    }
    assert all("pad_token_id" in {**tower_defaults("text", t), **input_rules("text", t)} for t in TEXT), (
        "a text tower whose pad_token_id is irrelevant says which it is under [inputs]"
    )
    assert read_vocabulary(config("mpnet", pad_token_id=7)).special == (1, 7)
    assert read_vocabulary(config("roberta", pad_token_id=7)).special == (7,)
    assert takes_any_size({"vision_config": {"model_type": "swin"}})
    assert not takes_any_size({"vision_config": {"model_type": "vit"}})
    assert not takes_any_size({"vision_config": {"model_type": "new"}})

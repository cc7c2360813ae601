"""The text towers other than BERT and RoBERTa compute what PyTorch computes, at unusual configs and masks too."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import torch

from converter.errors import ModelError, UnsupportedOption
from converter.models import build_tower, named_variables
from converter.models.relative import distance_buckets
from converter.models.stretched import stretched
from converter.names.expressions import integer
from converter.names.towers import counts_after_padding, input_rules, tower_defaults, tower_rules
from tests.models import reference
from tests.models.conftest import FURTHER_TEXT, Case, make_case
from tests.models.test_equal_to_pytorch import FLAGS, gradients_of, run_torch
from tests.towers import TEXT, TOWERS, Variant

pytestmark = [pytest.mark.torch, pytest.mark.tf, pytest.mark.by_turns]

OPTIONS = [(kind, variant) for kind in TEXT for variant in TOWERS[kind].variants]
BEHIND_PADDING = [
    kind for kind in TEXT if counts_after_padding(kind, {**tower_defaults("text", kind), **TOWERS[kind].config})
]
MIXERS = [kind for kind in TEXT if any(m["is"] == "batch_norm" for m in (tower_rules("text", kind) or {})["module"])]
DROPOUTS = ("hidden_dropout_prob", "attention_probs_dropout_prob", "attention_dropout")


def make_config(kind: str, **changes: Any) -> Any:
    return reference.make_config("vit", kind, **{f"text_{name}": value for name, value in changes.items()})


@pytest.fixture(scope="module", params=FURTHER_TEXT)
def text(request: pytest.FixtureRequest) -> Case:
    """Each tower in float32."""
    return make_case(make_config(request.param))


def in_float64(config: Any) -> tuple[Any, Any]:
    """Both sides of a config."""
    model = reference.torch_model(config, "sdpa", torch.float64)
    return model, reference.keras_model(config, reference.saved_tensors(model), "float64")


def compare(config: Any, inputs: dict[str, Any], mask: Any) -> dict[str, np.ndarray]:
    """All taps of both sides in float64; returns PyTorch's."""
    model, ours = in_float64(config)
    inputs = {**inputs, "pixel_values": inputs["pixel_values"].astype(np.float64)}
    wanted = run_torch(model, inputs, torch.float64, output_hidden_states=True)
    reference.assert_same(reference.taps(ours(inputs, output_hidden_states=True)), wanted, 1e-10, mask)
    return wanted


def to_the_left(inputs: dict[str, Any]) -> dict[str, Any]:
    """The same texts with their padding in front."""
    length = inputs["input_ids"].shape[1]
    rolled = [(np.arange(length) + row.sum()) % length for row in inputs["attention_mask"]]
    return {
        name: np.take_along_axis(value, np.array(rolled), 1) if value.ndim == 2 else value
        for name, value in inputs.items()
    }


def test_every_tap_in_float32(text: Case) -> None:
    found = reference.taps(text.keras(text.inputs, **FLAGS))
    wanted = run_torch(text.torch, text.inputs, **FLAGS)
    rules = tower_rules("text", text.config.text_config.model_type) or {}
    given = integer(rules.get("layers_given", "num_hidden_layers"), text.config.text_config.to_dict())
    given += sum(map(sum, rules.get("around", {}).values()))
    layers = given if "attention_output" in rules["taps"] else 0
    assert len([name for name in wanted if "text.attentions" in name]) == layers
    reference.assert_same(found, wanted, 1e-5, text.inputs["attention_mask"])


def test_padding_in_front(text: Case) -> None:
    inputs = to_the_left(text.inputs)
    mask = inputs["attention_mask"]
    assert mask[0].all()
    assert not mask[1:, 0].any()
    found, wanted = (
        {name: tap for name, tap in taps.items() if name.startswith("text.") and "pooled" not in name}
        for taps in (reference.taps(text.keras(inputs, **FLAGS)), run_torch(text.torch, inputs, **FLAGS))
    )
    reference.assert_same(found, wanted, 1e-5, mask)


def test_explicit_positions_and_types_and_no_mask(text: Case) -> None:
    rng, config = np.random.default_rng(5), text.config.text_config
    shape = text.inputs["input_ids"].shape
    inputs = {
        **{name: value for name, value in text.inputs.items() if name != "attention_mask"},
        "position_ids": rng.integers(0, config.max_position_embeddings, shape),
        "token_type_ids": rng.integers(0, getattr(config, "type_vocab_size", 9), shape),
    }
    inputs = {name: ids for name, ids in inputs.items() if name not in TOWERS[config.model_type].without}
    wanted = run_torch(text.torch, inputs, **FLAGS)
    reference.assert_same(reference.taps(text.keras(inputs, **FLAGS)), wanted, 1e-5)
    if not input_rules("text", config.model_type).get("any_length"):  # which follows from the length alone
        plain = run_torch(text.torch, text.inputs, **FLAGS)
        assert np.abs(plain["text.embeddings"] - wanted["text.embeddings"]).max() > 0.1


# Tensors of one shape in each layer, by how their names end; of joint ones the two first thirds.
ALIKE = (
    ("query.weight", "key.weight"), ("q_proj.weight", "k_proj.weight"), (".q.weight", ".k.weight"),
    ("query.bias", "key.bias"), ("fourier.output.LayerNorm.weight", "output.LayerNorm.weight"),
)  # fmt: skip
JOINT = ("Wqkv.weight", "in_proj_weight")


def misplaced(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Query and key of the last layer exchanged, or where there is none of the two, its norms."""
    for one, other in ALIKE:
        pairs = [(n, n.removesuffix(one) + other) for n in tensors if n.startswith("text_model") and n.endswith(one)]
        for first, second in reversed(pairs):
            if second in tensors and tensors[first].shape == tensors[second].shape:
                return {first: tensors[second], second: tensors[first]}
    joint = [n for n in tensors if n.startswith("text_model") and n.endswith(JOINT)][-1]
    first, second, third = np.split(tensors[joint], 3)
    return {joint: np.concatenate([second, first, third])}


def test_a_wrong_weight_shows(text: Case) -> None:
    wanted = run_torch(text.torch, text.inputs, **FLAGS)
    swapped = {**text.tensors, **misplaced(text.tensors)}
    found = reference.taps(reference.keras_model(text.config, swapped)(text.inputs, **FLAGS))
    with pytest.raises(AssertionError, match=r"text\.(layers|attentions)"):
        reference.assert_same(found, wanted, 1e-5, text.inputs["attention_mask"])


@pytest.mark.parametrize("kind", FURTHER_TEXT)
def test_every_tap_loss_and_gradient_in_float64(kind: str) -> None:
    config = make_config(kind)
    model, ours = in_float64(config)
    inputs = reference.make_inputs(config, images=4, texts=4)
    inputs["pixel_values"] = inputs["pixel_values"].astype(np.float64)
    output = model(**reference.torch_inputs(inputs, torch.float64), return_loss=True, output_hidden_states=True)
    found = reference.taps(ours(inputs, return_loss=True, output_hidden_states=True))
    assert all(value.dtype == np.float64 for value in found.values())
    reference.assert_same(found, reference.taps(output), 1e-10, inputs["attention_mask"])
    gradients = gradients_of(ours, inputs)
    output.loss.backward()
    wanted = reference.gradients(model)
    seen = used = trained = 0
    for (name, variable), gradient in zip(named_variables(ours).items(), gradients, strict=True):
        want = reference.to_tf(wanted[reference.pt_name(name, config)], name)
        got = np.zeros_like(want) if gradient is None else gradient
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-10, err_msg=name)
        seen += bool(np.abs(want).max() > 0)
        used += gradient is not None
        trained += variable.trainable
    assert seen > 0.9 * used
    assert used > 0.8 * trained


@pytest.mark.parametrize(("kind", "variant"), OPTIONS, ids=str)
def test_option_equals_pytorch(kind: str, variant: Variant) -> None:
    changes = variant.changes
    config = make_config(kind, **changes)
    inputs = reference.make_inputs(config)
    if "type_vocab_size" in changes:
        inputs["token_type_ids"] = np.arange(36).reshape(4, 9) % changes["type_vocab_size"]
    assert (inputs["input_ids"] == (getattr(config.text_config, "pad_token_id", None) or 0)).any()
    compare(config, inputs, inputs["attention_mask"])


@pytest.mark.parametrize("kind", BEHIND_PADDING)
def test_positions_skip_padding_in_the_middle(kind: str) -> None:
    config = make_config(kind)
    inputs = reference.make_inputs(config)
    del inputs["attention_mask"]
    inputs["input_ids"][0, 3] = inputs["input_ids"][2, :2] = padding_of(config)
    compare(config, inputs, None)


def padding_of(config: Any) -> int:
    """The id that positions take for padding, as the rules say."""
    text = config.text_config
    return int(input_rules("text", text.model_type).get("padding_id", text.pad_token_id))


@pytest.mark.parametrize("kind", TEXT)
def test_towers_count_and_take_types_as_the_rules_say(kind: str) -> None:
    config = make_config(kind)
    tower = build_tower(config.text_config)
    assert tower.counts_after_padding == (kind in BEHIND_PADDING)
    assert tower.type_table == ("type_vocab_size" in tower_defaults("text", kind))
    if tower.counts_after_padding:
        assert tower.pad == padding_of(config)


@pytest.mark.parametrize(
    ("eos", "ends", "wanted"),
    [
        (2, [[9, 50, 50, 4]], 1),  # the first of the greatest
        (2, [[9, 2, 50, 4]], 2),  # the greatest, not the 2
        (30, [[9, 30, 50, 30]], 1),  # the first of the equal
        (30, [[9, 31, 50, 4]], 0),  # absent
        (30, [[30, 4, 50, 4]], 0),
    ],
)
def test_where_clip_pools(eos: int, ends: list[list[int]], wanted: int) -> None:
    config = make_config("clip_text_model", eos_token_id=eos)
    inputs = {"input_ids": np.array(ends), "pixel_values": reference.make_inputs(config)["pixel_values"]}
    taps = compare(config, inputs, None)
    np.testing.assert_array_equal(taps["text.pooled"], taps["text.last_hidden_state"][:, wanted])


def test_clip_looks_back_only() -> None:
    tower = build_tower(make_config("clip_text_model").text_config)
    ids = np.arange(3, 12)[None]
    changed = np.where(np.arange(9) < 5, ids, 77)
    before, after = (np.asarray(tower(given).last_hidden_state)[0] for given in (ids, changed))
    np.testing.assert_allclose(before[:5], after[:5], atol=1e-6)
    assert (np.abs(before - after).max(1)[5:] > 1e-3).all()


def test_buckets_of_distances_are_those_of_pytorch() -> None:
    from transformers.models.mpnet.modeling_mpnet import MPNetEncoder

    distances = torch.arange(2**17)
    wanted = MPNetEncoder.relative_position_bucket(-distances).numpy()
    found = distance_buckets()
    np.testing.assert_array_equal(found[np.minimum(distances.numpy(), len(found) - 1)], wanted)
    assert set(found) == set(range(16))
    np.testing.assert_array_equal(MPNetEncoder.relative_position_bucket(distances[1:]).numpy(), wanted[1:] + 16)


def test_a_text_long_enough_for_every_bucket() -> None:
    config = make_config("mpnet", max_position_embeddings=151, num_hidden_layers=1)
    inputs = reference.make_inputs(config, texts=2, length=149)
    compare(config, inputs, inputs["attention_mask"])


@pytest.mark.parametrize(("kind", "field"), [(k, f) for k in TEXT for f in DROPOUTS if f in tower_defaults("text", k)])
def test_dropout_is_where_pytorch_has_it(kind: str, field: str) -> None:
    """With everything dropped there is nothing random left."""
    off = {name: 0.0 for name in DROPOUTS if name in tower_defaults("text", kind)}
    config = make_config(kind, **{**off, field: 1.0})
    model = reference.torch_model(config)
    ours = reference.keras_model(config, reference.saved_tensors(model)).text_model
    inputs = {name: value for name, value in reference.make_inputs(config).items() if name != "pixel_values"}
    with torch.no_grad():
        wanted = model.text_model.train()(**reference.torch_inputs(inputs), output_hidden_states=True)
    found = ours(inputs, output_hidden_states=True, training=True)
    assert len(found.hidden_states) == len(wanted.hidden_states)
    for got, want in zip(found.hidden_states, wanted.hidden_states, strict=True):
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-5)
    still = np.asarray(ours(inputs).last_hidden_state)
    assert np.abs(np.asarray(found.last_hidden_state) - still).max() > 1e-2


def test_refused_options() -> None:
    with pytest.raises(UnsupportedOption, match=r"^text_config\.relative_attention_num_buckets is 31, .* 32 or more:"):
        build_tower(make_config("mpnet", relative_attention_num_buckets=31).text_config)
    with pytest.raises(UnsupportedOption, match=r"^text_config\.eos_token_id is None, supported is one integer:"):
        build_tower(make_config("clip_text_model", eos_token_id=None).text_config)
    with pytest.raises(
        UnsupportedOption, match=r"^text_config\.key_query_shared_bottleneck is False, supported is True"
    ):
        build_tower(make_config("mobilebert", key_query_shared_bottleneck=False).text_config)
    with pytest.raises(
        UnsupportedOption, match=r"^xmod config: default_language is None; .* one of en_XX, de_DE, it_IT\."
    ):
        build_tower(make_config("xmod", default_language=None).text_config)
    with pytest.raises(UnsupportedOption, match=r"^xlm-roberta-xl config: pad_token_id is None; .* an integer\."):
        build_tower(make_config("xlm-roberta-xl", pad_token_id=None).text_config)


def test_big_bird_refuses_texts_of_which_pytorch_sees_some_blocks() -> None:
    changes = {"attention_type": "block_sparse", "block_size": 1}
    config = make_config("big_bird", **changes)  # A variant is compared at 9 tokens, where PyTorch still sees all.
    tower, model = build_tower(config.text_config), reference.torch_model(config).text_model
    ten = {"input_ids": np.full((1, 10), 9)}
    assert tower({"input_ids": np.full((1, 9), 9)}).last_hidden_state.shape[1] == 9
    with torch.no_grad():
        model(**reference.torch_inputs(ten))
    assert model.attention_type == "block_sparse"
    for inputs in (ten, {**ten, "position_ids": np.arange(10)[None]}):
        with pytest.raises(
            ModelError, match=r"^input_ids has 10 tokens in a row; beyond 9 BigBird's .*'original_full'"
        ):
            tower(inputs)
    any_length = tf.function(lambda ids: tower(ids).last_hidden_state, autograph=False)
    with pytest.raises(ModelError, match=r"^input_ids has any length up to 31 in this graph; beyond 9 BigBird's "):
        any_length.get_concrete_function(tf.TensorSpec((None, None), "int32"))
    with pytest.raises(
        UnsupportedOption, match=r"^text_config\.attention_type is 'sparse', supported is 'block_sparse' "
    ):
        build_tower(make_config("big_bird", attention_type="sparse").text_config)


def test_longformer_sees_half_a_window_to_either_side() -> None:
    tower = build_tower(make_config("longformer").text_config)
    ids = np.arange(3, 27)[None]
    changed = np.where(np.arange(24) == 12, 99, ids)
    before, after = (
        np.asarray(tower(given, output_hidden_states=True).hidden_states[1])[0] for given in (ids, changed)
    )
    apart = np.abs(before - after).max(1) > 1e-4
    reach = tower.config.attention_window // 2
    assert np.flatnonzero(apart).tolist() == list(range(12 - reach, 12 + reach + 1))


@pytest.mark.parametrize("length", [5, 9, 24])  # Less than two windows, no multiple of one, a multiple.
def test_longformers_rows_of_padding_are_those_of_pytorch(length: int) -> None:
    """Padding sees nothing, not even itself; of a text that begins with it such a row is pooled."""
    case = make_case(make_config("longformer"))
    inputs = to_the_left(reference.make_inputs(case.config, length=length))
    inputs["attention_mask"][1] = 0
    wanted = run_torch(case.torch, inputs, **FLAGS)
    assert not wanted["text.attentions.0"][-1, :, 0].any()
    reference.assert_same(reference.taps(case.keras(inputs, **FLAGS)), wanted, 1e-5)


def test_tokens_that_the_mask_makes_global() -> None:
    tower = build_tower(make_config("longformer").text_config)
    mask = np.array([[2, 1, 1, 0]])
    with pytest.raises(ModelError, match=r"^attention_mask holds 2; numbers above 1 make tokens of Longformer global"):
        tower({"input_ids": np.array([[3, 4, 5, 6]]), "attention_mask": mask})


@pytest.mark.parametrize(("window", "layers"), [(5, 2), (2, 2), ([4], 2), ([4, 2], 2)])
def test_windows_that_longformer_does_not_have(window: Any, layers: int) -> None:
    config = make_config("longformer", num_hidden_layers=layers).text_config
    config.attention_window = window
    with pytest.raises(UnsupportedOption, match=r"^text_config\.attention_window is .*, supported is an even number "):
        build_tower(config)


@pytest.mark.parametrize("kind", TEXT)
def test_the_longest_text(kind: str) -> None:
    config = make_config(kind)
    tower, limit = build_tower(config.text_config), config.text_config.max_position_embeddings
    if kind in BEHIND_PADDING:
        limit -= padding_of(config) + 1
    assert tower(np.full((1, limit), 9)).last_hidden_state.shape[1] == limit
    if input_rules("text", kind).get("any_length"):
        assert tower(np.full((1, limit + 1), 9)).last_hidden_state.shape[1] == limit + 1
        return
    with pytest.raises(ModelError, match=rf"^input_ids has {limit + 1} tokens in a row; .* positions for {limit} "):
        tower(np.full((1, limit + 1), 9))


def in_training(config: Any, lengths: tuple[int, ...]) -> tuple[Any, Any, list[dict[str, np.ndarray]]]:
    """A text tower in float64 on either side, PyTorch's in training, and texts of these lengths."""
    model = reference.torch_model(config, "sdpa", torch.float64)
    ours = reference.keras_model(config, reference.saved_tensors(model), "float64").text_model
    texts = [reference.make_inputs(config, length=length, seed=length) for length in lengths]
    return model.text_model.train(), ours, [{name: t[name] for name in ("input_ids", "attention_mask")} for t in texts]


def statistics(model: Any, ours: Any) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The statistics of all batch norms of either side, under PyTorch's names."""
    theirs = {name: buffer.numpy().reshape(-1).copy() for name, buffer in model.named_buffers() if "batchnorm" in name}
    kept = {
        "moving_mean": "running_mean",
        "moving_variance": "running_var",
        "num_batches_tracked": "num_batches_tracked",
    }
    found = {}
    for name, variable in named_variables(ours).items():
        path, _, leaf = name.rpartition("/")
        if leaf in kept:
            found[f"{path.partition('/')[2].replace('_._', '.').replace('/', '.')}.{kept[leaf]}"] = np.array(
                variable.value
            )
    return found, theirs


@pytest.mark.parametrize("kind", MIXERS)
def test_batch_norms_train_as_those_of_pytorch(kind: str) -> None:
    """Outputs and gradients are those by the batch's statistics, and the running ones move as far; padding takes part."""
    config = make_config(kind)
    model, ours, texts = in_training(config, (9, 60, 11))
    goal = np.random.default_rng(2).normal(size=(4, config.text_config.hidden_size))
    for inputs in texts:
        model.zero_grad()
        output = model(**reference.torch_inputs(inputs, torch.float64))
        (output.pooler_output * torch.as_tensor(goal)).sum().backward()
        with tf.GradientTape() as tape:
            pooled = ours(inputs, training=True).pooler_output
            loss = tf.reduce_sum(pooled * goal)
        np.testing.assert_allclose(pooled, output.pooler_output.detach(), rtol=0, atol=1e-10)
        trained = {n: v for n, v in named_variables(ours).items() if v.trainable}
        gradients = tape.gradient(loss, [v.value for v in trained.values()], unconnected_gradients="zero")
        wanted = dict(model.named_parameters())
        for name, gradient in zip(trained, gradients, strict=True):
            want = wanted[reference.pt_name(f"text_model/{name}", config).removeprefix("text_model.")].grad
            want = reference.to_tf(want.numpy(), name)
            np.testing.assert_allclose(tf.convert_to_tensor(gradient), want, rtol=0, atol=1e-10, err_msg=name)
        found, theirs = statistics(model, ours)
        assert found.keys() == theirs.keys()
        for name, want in theirs.items():
            np.testing.assert_allclose(found[name], want, rtol=0, atol=1e-12, err_msg=name)
    assert {n.item() for name, n in found.items() if name.endswith("tracked")} == {71 + len(texts)}


@pytest.mark.parametrize("kind", MIXERS)
def test_batch_norms_that_do_not_train_stay_as_they_are(kind: str) -> None:
    """In evaluation, and in training where the tower is locked, as of Keras' own layer."""
    model, ours, (inputs,) = in_training(make_config(kind), (9,))
    before, _ = statistics(model, ours)
    still = np.asarray(ours(inputs).pooler_output)
    ours.trainable = False
    np.testing.assert_array_equal(ours(inputs, training=True).pooler_output, still)
    for name, kept in statistics(model, ours)[0].items():
        np.testing.assert_array_equal(kept, before[name])
    ours.trainable = True
    moved = np.asarray(ours(inputs, training=True).pooler_output)
    assert np.abs(moved - still).max() > 1e-2
    assert all((statistics(model, ours)[0][name] != kept).any() for name, kept in before.items())


@pytest.mark.parametrize("length", [1, 5, 60, 61, 200])
@pytest.mark.parametrize("known", [True, False])
def test_positions_are_stretched_as_pytorch_does_it(length: int, known: bool) -> None:
    table = np.random.default_rng(4).normal(size=(60, 7))
    wanted = torch.nn.functional.interpolate(torch.as_tensor(table)[None, None], size=(length, 7), mode="bilinear")
    found = stretched(tf.constant(table), length if known else tf.constant(length))
    np.testing.assert_allclose(found, wanted[0, 0], rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_hidden_layers": 2}, "num_hidden_layers is 2, supported is 3 or more with use_repmixer_blocks:"),
        ({"repmixer_kernel_size": 4}, "repmixer_kernel_size is 4, supported is an odd number:"),
        ({"projection_dim": 64}, "projection_dim is 64, supported is 102:"),
    ],
)
def test_mixers_that_pytorch_cannot_run_or_show(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UnsupportedOption) as caught:
        build_tower(make_config("sam3_lite_text_text_model", **changes).text_config)
    assert str(caught.value).startswith(f"text_config.{message}")

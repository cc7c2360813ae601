"""Vision towers one by one against PyTorch's own towers: every option, size and edge that counts."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import keras
import numpy as np
import pytest
import torch
import transformers
from keras import ops

from converter.errors import ModelError, UnsupportedOption
from converter.models import build_tower, load_tower, named_variables
from converter.models.cosine_windows import log_spaced
from converter.models.embeddings import pair
from converter.models.relative import grid_index, grid_index_with_token
from converter.models.resize import resize
from converter.models.rotary import grid_turn, moved, patch_centres
from converter.names.configs import check_tower_config
from converter.names.families import JOINED, joined
from converter.names.rules import compile_tower
from converter.names.towers import input_rules, tower_defaults, tower_rules
from converter.tensors.layouts import LAYOUTS
from tests.models import reference
from tests.models.conftest import FURTHER_VISION
from tests.towers import TOWERS, VISION, Variant

pytestmark = [pytest.mark.torch, pytest.mark.tf, pytest.mark.by_turns]

KINDS = FURTHER_VISION
# What is compiled for each: a graph that is a relative's under `make torture` only.
GRAPHS = [pytest.param(kind, marks=[pytest.mark.torture] * (TOWERS[kind].like is not None)) for kind in KINDS]
# What PyTorch stores of some towers though it follows from the config.
INDEX = ".relative_position_index"
FLAGS = {"output_attentions": True, "output_hidden_states": True}
Size = tuple[int, int]


class Case(NamedTuple):
    """A model type, what is changed in its config, and the images' size where it is not the config's."""

    kind: str
    changes: Mapping[str, Any]
    size: Size | None
    resizes: bool


# Towers that drop whole branches in training.
DROPS_PATHS = [kind for kind in KINDS if "drop_path_rate" in tower_defaults("vision", kind)]
OPTIONS, RESIZED = (
    [
        Case(kind, variant.changes, variant.at, resizes)
        for kind in VISION
        for variant in (Variant({}), *TOWERS[kind].variants)
        if variant.resizes == resizes
    ]
    for resizes in (False, True)
)


# JAX compiles every case for some seconds: there a few of each tower.
CASES = [*OPTIONS[::4], RESIZED[0]] if keras.backend.backend() == "jax" else [*OPTIONS, *RESIZED]


def described(case: Case) -> str:
    return f"{case.kind}-{Variant(case.changes, case.size)}"


def takes_any_size(kind: str) -> bool:
    return bool(input_rules("vision", kind).get("any_size"))


def has_pooler(kind: str) -> bool:
    return "pooler." in (tower_rules("vision", kind) or {}).get("new_if_missing", ())


def other_size(kind: str, usual: Size) -> Size | None:
    """Another size of images than the config's, for the towers that take any; None: its own."""
    return TOWERS[kind].other_size or (usual if takes_any_size(kind) else None)


class Both(NamedTuple):
    """A tower on either side, and images for it."""

    config: Any
    torch: Any
    keras: Any
    pixels: np.ndarray


def small_config(kind: str, **changes: Any) -> Any:
    return transformers.AutoConfig.for_model(kind, **{**reference.VISION[kind], **changes})


def torch_tower(config: Any, attention: str, dtype: Any, **options: Any) -> Any:
    config = type(config).from_dict(config.to_dict())
    model = getattr(transformers, transformers.models.auto.modeling_auto.MODEL_MAPPING_NAMES[config.model_type])
    config._attn_implementation = attention if model._supports_sdpa else "eager"  # which some have alone
    return reference.in_dtype(reference.randomise(model(config, **options)), dtype)


def assign(tower: Any, model: Any) -> None:
    """Gives our tower PyTorch's numbers; every tensor and every variable exactly once."""
    tower.build()
    left = reference.saved_tensors(model)
    both = SimpleNamespace(model_type=JOINED, vision_config=tower.config)
    for name, variable in named_variables(tower).items():
        pt = reference.pt_name(f"vision_model/{name}", both).removeprefix("vision_model.")
        value = reference.to_tf(left.pop(pt), name)
        assert tuple(value.shape) == tuple(variable.shape), name
        variable.assign(value)
    assert not left, sorted(left)


def both_of(case: Any, attention: str, dtype: str) -> Both:
    kind, changes, size, *_ = case
    config = small_config(kind, **changes)
    model = torch_tower(config, attention, getattr(torch, dtype))
    tower = build_tower(config, dtype=dtype, initial="zeros")
    assign(tower, model)
    return Both(config, model, tower, images(config, size).astype(dtype))


def images(config: Any, size: Size | None = None) -> np.ndarray:
    height_and_width = size or config.image_size
    shape = height_and_width if isinstance(height_and_width, (tuple, list)) else (height_and_width,) * 2
    return np.random.default_rng(3).normal(0, 1, (3, config.num_channels, *shape)).astype(np.float32)


def taps(output: Any) -> dict[str, np.ndarray]:
    found = reference.by_place("states", output["hidden_states"])
    found |= {f"attentions.{i}": weights for i, weights in enumerate(output.get("attentions") or ())}
    found |= {"last": output["last_hidden_state"], "pooled": output["pooler_output"]}
    return {name: reference.as_numpy(value) for name, value in found.items()}


def run_torch(model: Any, pixels: np.ndarray, **flags: Any) -> dict[str, np.ndarray]:
    with torch.no_grad():
        return taps(model(torch.as_tensor(pixels), **flags))


def run_keras(tower: Any, pixels: np.ndarray, **flags: Any) -> dict[str, np.ndarray]:
    """Our taps; on JAX as one compilation, since otherwise every operation is compiled by itself."""
    if keras.backend.backend() != "jax":
        return taps(tower(pixels, **flags))
    import jax

    return taps(jax.jit(lambda given: tower(given, **flags))(pixels))


@pytest.mark.parametrize("case", CASES, ids=described)
def test_every_tap_and_attention_map_in_float32(case: Any) -> None:
    both = both_of(case, "eager", "float32")
    wanted = run_torch(both.torch, both.pixels, **FLAGS)
    depths = getattr(both.config, "depths", None)
    counts = both.config.num_hidden_layers if depths is None else len(depths)
    attends = "attention_output" in (tower_rules("vision", case.kind) or {})["taps"]
    assert sum(name.startswith("attentions") for name in wanted) == counts * attends
    assert len({name.split(".")[1] for name in wanted if name.startswith("states")}) == counts + 1
    reference.assert_same(run_keras(both.keras, both.pixels, **FLAGS), wanted, 1e-5)


@pytest.mark.parametrize("case", CASES, ids=described)
def test_every_tap_in_float64(case: Any) -> None:
    both = both_of(case, "sdpa", "float64")
    wanted = run_torch(both.torch, both.pixels, output_hidden_states=True)
    found = run_keras(both.keras, both.pixels, output_hidden_states=True)
    assert all(value.dtype == np.float64 for value in found.values())
    # PyTorch's DINOv2 resizes its positions in float32, whatever the model is in.
    reference.assert_same(found, wanted, 3e-6 if case.resizes else 1e-10)


@pytest.mark.parametrize("case", RESIZED, ids=described)
def test_resized_positions_in_float64(case: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same with PyTorch's own resizing, but in float64, of positions that float32 holds exactly."""
    both = both_of(case, "sdpa", "float64")
    with torch.no_grad():
        positions = both.torch.embeddings.position_embeddings
        positions.copy_(positions.float().double())
    assign(both.keras, both.torch)
    plain = torch.nn.functional.interpolate
    monkeypatch.setattr(torch.nn.functional, "interpolate", lambda x, **options: plain(x.double(), **options))
    wanted = run_torch(both.torch, both.pixels, output_hidden_states=True)
    reference.assert_same(run_keras(both.keras, both.pixels, output_hidden_states=True), wanted, 1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_every_weight_counts(kind: str) -> None:
    """A weight that no tap depends on would not be compared with PyTorch at all."""
    both = both_of((kind, {}, None), "eager", "float32")
    before = taps(both.keras(both.pixels, output_hidden_states=True))
    rng = np.random.default_rng(1)
    for name, variable in named_variables(both.keras).items():
        kept = np.array(variable.value)
        variable.assign(kept + rng.normal(0, 0.5, kept.shape))
        after = taps(both.keras(both.pixels, output_hidden_states=True))
        variable.assign(kept)
        moved = max(np.abs(after[tap] - before[tap]).max() for tap in before)
        # Adding the same to every key moves all scores of a query alike, which softmax does not see, unless keys are turned.
        idle = name.endswith(("mask_token", *(() if TOWERS[kind].turned else ("key/bias", "k_proj/bias"))))
        assert (moved < 1e-4) if idle else (moved > 1e-3), (name, moved)
    reference.assert_same(taps(both.keras(both.pixels, output_hidden_states=True)), before, 0.0)


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_of_every_weight_at_another_size(kind: str) -> None:
    size = other_size(kind, (30, 10))
    both = both_of((kind, TOWERS[kind].gradients, size), "sdpa", "float64")
    goal = np.random.default_rng(2).normal(size=(3, both.config.hidden_size))
    (both.torch(torch.as_tensor(both.pixels)).pooler_output * torch.as_tensor(goal)).sum().backward()
    wanted = {name: p.grad.numpy() for name, p in both.torch.named_parameters() if p.grad is not None}
    numbers = gradients(both.keras, both.pixels, goal)
    reference_tower = build_tower(both.config, dtype="float64", initial="zeros")
    with torch.no_grad():
        for parameter in both.torch.parameters():
            parameter.copy_(torch.zeros_like(parameter) if parameter.grad is None else parameter.grad)
    assign(reference_tower, both.torch)
    seen = 0
    in_float32 = any(
        variant.resizes for variant in TOWERS[kind].variants
    )  # PyTorch's resizing, whatever the model is in
    for (name, variable), found in zip(named_variables(reference_tower).items(), numbers, strict=True):
        want = np.array(variable.value)
        np.testing.assert_allclose(found, want, rtol=0, atol=1e-6 if in_float32 else 1e-10, err_msg=name)
        seen += bool(np.abs(want).max() > 1e-9)
    # Several of PyTorch's tensors may be one here, and a bias of all keys moves nothing.
    idle = sum(name.endswith("key/bias") for name in named_variables(reference_tower))
    assert seen >= min(len(wanted), len(numbers)) - max(idle, 2 * getattr(both.config, "num_hidden_layers", 0))


def gradients(tower: Any, pixels: np.ndarray, goal: np.ndarray) -> list[np.ndarray]:
    """Gradient of ``sum(pooled * goal)`` by every checkpoint variable."""
    variables = list(named_variables(tower).values())
    if keras.backend.backend() == "jax":
        import jax

        fixed = [variable.value for variable in tower.non_trainable_variables]

        def loss_of(values: list[Any]) -> Any:
            given = {"pixel_values": ops.convert_to_tensor(pixels)}
            return (tower.stateless_call(values, fixed, **given)[0]["pooler_output"] * goal).sum()

        found = jax.jit(jax.grad(loss_of))([variable.value for variable in tower.trainable_variables])
        by_id = {id(v): np.asarray(g) for v, g in zip(tower.trainable_variables, found, strict=True)}
        return [by_id[id(variable)] for variable in variables]
    import tensorflow as tf

    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tower(pixels).pooler_output * goal)
    found = tape.gradient(loss, [variable.value for variable in variables], unconnected_gradients="zero")
    return [np.asarray(tf.convert_to_tensor(gradient)) for gradient in found]


@pytest.mark.parametrize("kind", VISION)
def test_other_sizes_are_taken_as_the_rules_say(kind: str) -> None:
    config = small_config(kind)
    height, width = pair(config.image_size)
    tower, pixels = build_tower(config), images(config, (2 * height, 3 * width))
    if takes_any_size(kind):
        assert np.isfinite(np.asarray(tower(pixels).pooler_output)).all()
    else:
        with pytest.raises(ModelError, match=r"^pixel_values is \d+ x \d+; image_size is \d+ x \d+\."):
            tower(pixels)


def odd_configs() -> dict[str, Any]:
    import json

    table = json.loads((Path(__file__).parents[2] / "fixtures" / "names" / "odd.json").read_text())
    return {name: case for name, case in table.items() if case["config"]["model_type"] in VISION}


@pytest.mark.parametrize("name", sorted(odd_configs()))
def test_names_of_odd_configs(name: str) -> None:
    case = odd_configs()[name]
    fields = dict(case["config"])
    config = transformers.AutoConfig.for_model(fields.pop("model_type"), **fields)
    tower = build_tower(config)
    tower.build()
    found = [(f"vision_model/{n}", list(v.shape)) for n, v in named_variables(tower).items()]
    rules = compile_tower(check_tower_config("vision", config.to_dict()), joined())
    assert found == [
        (rule.names["tf"], list(LAYOUTS[rule.layouts["tf"]].shape_from_pt(rule.shape))) for rule in rules.tensors
    ]
    if isinstance(case["tf"], dict):
        buffers = {buffer.names.get("tf") for buffer in rules.buffers}
        assert dict(found) == {n: shape for n, shape in case["tf"].items() if n not in buffers}


@pytest.mark.parametrize("kind", ["siglip_vision_model", "swin", *(kind for kind in VISION if has_pooler(kind))])
def test_without_pooling(kind: str) -> None:
    config = small_config(kind)
    options = {} if kind == "siglip_vision_model" else {"add_pooling_layer": False}
    changed = small_config(kind, vision_use_head=False) if kind == "siglip_vision_model" else config
    model = torch_tower(changed, "eager", torch.float32, **options)
    tower = build_tower(config, add_pooling_layer=False)
    assign(tower, model)
    output = tower(images(config))
    with torch.no_grad():
        wanted = model(torch.as_tensor(images(config)))
    assert output.pooler_output is None
    assert wanted.pooler_output is None
    np.testing.assert_allclose(output.last_hidden_state, wanted.last_hidden_state, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("kind", "head"), [(kind, TOWERS[kind].head) for kind in VISION if TOWERS[kind].head])
def test_loading_a_tower_of_its_own_and_one_under_a_head(kind: str, head: str, tmp_path: Path) -> None:
    config = small_config(kind)
    model = torch_tower(config, "eager", torch.float32)
    model.save_pretrained(tmp_path / "bare")
    wanted = run_torch(model, images(config), output_hidden_states=True)
    bare = load_tower(tmp_path / "bare", "vision")
    assert [item for item in bare.loading_report.left_out if not item.name.endswith(INDEX)] == []
    assert bare.loading_report.new == ()
    reference.assert_same(taps(bare(images(config), output_hidden_states=True)), wanted, 1e-5)
    head_class = getattr(transformers, head)
    alone = head_class.config_class is type(config)
    whole = config if alone else head_class.config_class(vision_config=config.to_dict())
    under = reference.randomise(head_class(whole), seed=8)
    inner = under.base_model if alone else under.vision_model
    with torch.no_grad():
        wanted = inner(torch.as_tensor(images(config)))
    under.save_pretrained(tmp_path / "head")
    tower = load_tower(tmp_path / "head", "vision")
    left_out = {i.name.split(".")[0] for i in tower.loading_report.left_out if not i.name.endswith(INDEX)}
    heads = {name for name, child in under.named_children() if list(child.parameters())} - {under.base_model_prefix}
    assert left_out == heads or (not alone and left_out and "vision_model" not in left_out)
    found = tower(images(config))
    np.testing.assert_allclose(found.last_hidden_state, wanted.last_hidden_state, rtol=0, atol=1e-5)
    if wanted.pooler_output is not None:
        np.testing.assert_allclose(found.pooler_output, wanted.pooler_output, rtol=0, atol=1e-5)


REFUSED: list[tuple[str, dict[str, Any], Size, str]] = [
    (
        "swin",
        {},
        (4, 20),
        "pixel_values is 4 x 20, which leaves 2 x 10 patches at stage 0; window_size is 3. "
        "Use larger images, or a config with smaller windows.",
    ),
    (
        "swin",
        {"depths": [1, 1, 1], "num_heads": [1, 1, 1]},
        (14, 14),
        "pixel_values is 14 x 14, which leaves 2 x 2 patches at stage 2; window_size is 3. "
        "Use larger images, or a config with smaller windows.",
    ),
    (
        "swin",
        {"use_absolute_embeddings": True},
        (15, 14),
        "pixel_values is 15 x 14, which makes 8 x 7 patches; there are absolute positions for 49. "
        "Resize the images with the image processor that belongs to this vision tower.",
    ),
    ("beit", {}, (20, 4), "pixel_values is 20 x 4; a patch is 5 x 5. Use larger images."),
    ("dinov2", {}, (4, 20), "pixel_values is 4 x 20; a patch is 5 x 5. Use larger images."),
    ("dinov2_with_registers", {}, (20, 4), "pixel_values is 20 x 4; a patch is 5 x 5. Use larger images."),
    (
        "dinov2",
        {"image_size": [10, 15]},
        (20, 20),
        "pixel_values is 20 x 20, for which the positions of 2 x 3 patches have to be resized; "
        "PyTorch resizes a square number of them only. Use a config whose image_size is square.",
    ),
    *(
        (
            "dpt",
            {"image_size": [10, 15]},
            size,
            f"pixel_values is {size[0]} x {size[1]}, for which the positions of 2 x 3 patches have to be resized; "
            "PyTorch resizes a square number of them only. Use a config whose image_size is square.",
        )
        for size in ((10, 15), (20, 20))
    ),
    *(
        (
            kind,
            {},
            (7, 40),
            "pixel_values is 7 x 40, of which no patch is left at the last stage. Use images of at least 8 x 8.",
        )
        for kind in ("convnext", "convnextv2")
    ),
    (
        "dinov3_convnext",
        {},
        (40, 15),
        "pixel_values is 40 x 15, of which no patch is left at the last stage. Use images of at least 16 x 16.",
    ),
    *(
        (
            kind,
            changes,
            size,
            f"pixel_values is {size[0]} x {size[1]}; image_size is 21 x 21. "
            "Resize the images with the image processor that belongs to this vision tower.",
        )
        for kind, changes, size in (
            ("siglip_vision_model", {}, (28, 21)),
            ("aimv2_vision_model", {}, (28, 21)),
            ("aimv2_vision_model", {"is_native": True}, (6, 21)),
        )
    ),
    ("dpt", {}, (4, 20), "pixel_values is 4 x 20; a patch is 5 x 5. Use larger images."),
    ("yolos", {}, (4, 20), "pixel_values is 4 x 20; a patch is 5 x 5. Use larger images."),
    *(
        (
            "hiera",
            {},
            size,
            f"pixel_values is {size[0]} x {size[1]}; image_size is 16 x 24. "
            "Resize the images with the image processor that belongs to this vision tower.",
        )
        for size in (
            (16, 20),
            (12, 32),
            (17, 24),
        )  # Too few patches; as many, but not in whole squares; a row too many.
    ),
]


@pytest.mark.parametrize(("kind", "changes", "size", "message"), REFUSED)
def test_refused_images_are_those_that_pytorch_cannot_encode(
    kind: str, changes: dict[str, Any], size: Size, message: str
) -> None:
    config = small_config(kind, **changes)
    with pytest.raises(ModelError) as caught:
        build_tower(config)(images(config, size))
    assert str(caught.value) == message
    with pytest.raises(RuntimeError):
        run_torch(torch_tower(config, "eager", torch.float32), images(config, size), output_hidden_states=True)


def test_positions_between_blocks_need_whole_patches() -> None:
    """PyTorch counts the patches of an image in two ways, and fails where they differ."""
    config = small_config("yolos", image_size=[34, 23])
    with pytest.raises(UnsupportedOption) as caught:
        build_tower(config)
    assert str(caught.value) == (
        "vision_config.image_size is 34 x 23, no whole patches of 5: PyTorch cannot run its positions between the blocks "
        "then. Correct the config."
    )
    with pytest.raises(RuntimeError):
        run_torch(torch_tower(config, "eager", torch.float32), images(config), output_hidden_states=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"image_size": [18, 24]},
            "image_size is 18 x 24, no whole number of patches that query_stride divides at every stage: PyTorch cannot run it.",
        ),
        (
            {"patch_padding": [0, 1]},
            "image_size is 16 x 24, no whole number of patches that query_stride divides at every stage: PyTorch cannot run it.",
        ),
        (
            {"masked_unit_size": [20, 4]},
            "masked_unit_size is [20, 4], which does not divide the 96 tokens of stage 0: PyTorch cannot run it.",
        ),
        (
            {"embed_dim_multiplier": 1.0},
            "embed_dim_multiplier is 1.0, which makes stage 1 no wider than the one before: PyTorch cannot pool there.",
        ),
    ],
)
def test_hiera_refuses_what_pytorch_cannot_run(changes: dict[str, Any], message: str) -> None:
    config = small_config("hiera", **changes)
    with pytest.raises(UnsupportedOption) as caught:
        build_tower(config)
    assert str(caught.value) == f"vision_config.{message} Correct the config."
    with pytest.raises(RuntimeError):
        run_torch(torch_tower(config, "eager", torch.float32), images(config), output_hidden_states=True)


def test_a_size_does_not_stay_with_swin() -> None:
    """PyTorch's blocks keep the smaller window of a small image for all later ones; ours do not."""
    case = ("swin", {"depths": [2], "num_heads": [2]}, (12, 40))
    both = both_of(case, "eager", "float32")
    small, large = both.pixels, images(both.config)
    wanted = run_torch(both.torch, large, output_hidden_states=True)
    both.keras(small)
    reference.assert_same(run_keras(both.keras, large, output_hidden_states=True), wanted, 1e-5)


@pytest.mark.parametrize(("columns", "rows"), [(5, 4), (1, 6)])
@pytest.mark.parametrize("kind", ["bicubic", "bilinear", "antialiased bicubic", "antialiased bilinear"])
def test_resizing_is_pytorchs(kind: Any, columns: int, rows: int) -> None:
    grid = np.random.default_rng(7).normal(size=(rows, columns, 3))
    for height, width in itertools.product((1, 2, 4, 5, 9, 16), (1, 3, 5, 8, 13)):
        found = resize(ops.convert_to_tensor(grid, dtype="float64"), height, width, kind)
        source = torch.as_tensor(grid.transpose(2, 0, 1))[None]
        mode, antialias = kind.removeprefix("antialiased "), kind.startswith("antialiased")
        turned = antialias and width == 1  # see the next test
        wanted = torch.nn.functional.interpolate(
            source.mT if turned else source,
            (width, height) if turned else (height, width),
            mode=mode,
            align_corners=False,
            antialias=antialias,
        )
        wanted = wanted.mT if turned else wanted
        np.testing.assert_allclose(found, wanted[0].permute(1, 2, 0).numpy(), rtol=0, atol=1e-14)


def test_pytorch_antialiases_one_column_wrongly() -> None:
    """torch 2.13 on a CPU gives every row of a result of one column the first row's value; turned, it does not."""
    source = torch.as_tensor(np.random.default_rng(7).normal(size=(1, 3, 6, 1)))
    options = {"mode": "bicubic", "align_corners": False, "antialias": True}
    upright = torch.nn.functional.interpolate(source, (4, 1), **options)
    turned = torch.nn.functional.interpolate(source.mT, (1, 4), **options).mT
    assert (upright == upright[:, :, :1]).all()
    assert not torch.allclose(upright, turned)


def test_half_precision_is_resized_in_float32() -> None:
    grid = np.random.default_rng(7).normal(size=(4, 4, 5)).astype(np.float32)
    rounded = ops.cast(ops.convert_to_tensor(grid), "bfloat16")
    exact = resize(ops.cast(rounded, "float32"), 7, 9, "bicubic")
    found = resize(rounded, 7, 9, "bicubic")
    assert keras.backend.standardize_dtype(found.dtype) == "bfloat16"
    np.testing.assert_array_equal(ops.cast(found, "float32"), ops.cast(ops.cast(exact, "bfloat16"), "float32"))


@pytest.mark.parametrize("size", [(3, 5), (4, 4), (1, 6)])
def test_relative_positions_are_pytorchs(size: Size) -> None:
    from transformers.models.beit.modeling_beit import BeitRelativePositionBias
    from transformers.models.swin.modeling_swin import SwinRelativePositionBias

    wanted = BeitRelativePositionBias.generate_relative_position_index(size).numpy()
    np.testing.assert_array_equal(grid_index_with_token(*size), wanted)
    windows = SwinRelativePositionBias(2, size)
    np.testing.assert_array_equal(grid_index(*size).reshape(-1), windows.relative_position_index.numpy())


@pytest.mark.parametrize(("window", "pretrained"), [(3, (0, 0)), (6, (0, 0)), (5, (12, 16)), (7, (2, 2)), (1, (0, 0))])
def test_log_spaced_positions_are_pytorchs(window: int, pretrained: Size) -> None:
    from transformers.models.swinv2.modeling_swinv2 import Swinv2SelfAttention

    theirs = Swinv2SelfAttention(small_config("swinv2"), 4, 2, window, pretrained)
    np.testing.assert_array_equal(log_spaced(window, pretrained), theirs.relative_coords_table[0].numpy())


def test_the_scale_of_cosines_is_cut_and_zeros_have_no_direction() -> None:
    """Windows that stick out are filled up with zeros, whose keys have no length; their gradients are not NaN."""
    both = both_of(("swinv2", {"depths": [2], "num_heads": [5]}, (11, 13)), "eager", "float64")
    with torch.no_grad():
        for name, parameter in both.torch.named_parameters():
            if name.endswith("logit_scale"):
                parameter.copy_(torch.linspace(4.0, 6.0, 5).reshape(5, 1, 1))
    assign(both.keras, both.torch)
    wanted = run_torch(both.torch, both.pixels, **FLAGS)
    reference.assert_same(run_keras(both.keras, both.pixels, **FLAGS), wanted, 1e-10)
    found = gradients(both.keras, both.pixels, np.ones((3, both.config.hidden_size)))
    assert all(np.isfinite(gradient).all() for gradient in found)


def test_a_stage_without_a_patch_is_refused() -> None:
    with pytest.raises(UnsupportedOption) as caught:
        build_tower(small_config("swinv2", image_size=4, depths=[1, 1, 1], num_heads=[1, 1, 1]))
    assert str(caught.value) == (
        "image_size and patch_size leave no patch at stage 2; Swin V2's windows are as high at most as the grid of a stage. "
        "Correct the config."
    )


@pytest.mark.parametrize("kind", DROPS_PATHS)
def test_stochastic_depth_is_on_in_training_only(kind: str) -> None:
    still = TOWERS[kind].still
    plain = both_of((kind, {**still, "drop_path_rate": 0.0}, None), "eager", "float32")
    tower = build_tower(small_config(kind, **still, drop_path_rate=0.5), initial="zeros")
    assign(tower, plain.torch)
    trained = np.asarray(plain.keras(plain.pixels, training=True).pooler_output)
    # Places that training may move are turned by TensorFlow's cosines, others by NumPy's.
    np.testing.assert_allclose(tower(plain.pixels).pooler_output, trained, rtol=0, atol=1e-5)
    pixels = np.repeat(plain.pixels[:1], 12, axis=0)
    moved = np.asarray(tower(pixels, training=True).pooler_output)
    assert np.abs(moved - np.asarray(tower(pixels, training=True).pooler_output)).max() > 1e-3
    # Each image of twelve equal ones has its branches dropped by itself.
    assert len(np.unique(moved.round(4), axis=0)) > 1


def test_rates_of_stochastic_depth_are_pytorchs() -> None:
    changes = {"swin": {"depths": [2, 3]}}
    for kind in DROPS_PATHS:
        config = small_config(kind, drop_path_rate=0.3, **changes.get(kind, {}))
        model, tower = torch_tower(config, "eager", torch.float32), build_tower(config)
        wanted = [
            getattr(part, "drop_prob", 0.0) for name, part in model.named_modules() if name.endswith(".drop_path")
        ]
        blocks = list(itertools.chain(*tower.stages)) if hasattr(tower, "stages") else tower.blocks
        np.testing.assert_allclose([block.drop_path.rate for block in blocks], wanted, rtol=0, atol=1e-7)
        assert wanted[-1] == pytest.approx(0.3)


@pytest.mark.parametrize("kind", ["donut-swin", "maskformer-swin"])
def test_windows_drop_what_pytorch_drops(kind: str) -> None:
    config = small_config(kind, hidden_dropout_prob=0.2, attention_probs_dropout_prob=0.3)
    model, tower = torch_tower(config, "eager", torch.float32), build_tower(config)
    rates = {name: part.p for name, part in model.named_modules() if isinstance(part, torch.nn.Dropout)}
    path, block = "encoder.layers.0.blocks.1", tower.stages[0][1]
    wanted = [rates[f"{path}.{place}.dropout"] for place in ("attention.self", "attention.output", "output")]
    assert [drop.rate for drop in (block.drop_attention, block.drop_hidden, block.drop_mlp)] == wanted
    assert len(set(wanted)) == 2


def test_training_moves_patches_as_pytorch_does() -> None:
    """By what is drawn: the centres that come out are the same, number for number."""
    from transformers.models.dinov3_vit.modeling_dinov3_vit import augment_patches_center_coordinates

    centres, drawn = patch_centres(3, 4), iter([[0.1, -0.2], [0.3, -0.1], [0.4]] * 2)
    limits: list[float] = []

    def uniform(tensor: Any, low: float, high: float) -> Any:
        assert low == -high
        limits.append(float(high))
        return tensor.copy_(torch.as_tensor(next(drawn)).reshape(tensor.shape))

    def uniform_of_ours(shape: Any, low: float, high: float, **_: Any) -> Any:
        given = ops.convert_to_tensor([next(drawn)], dtype="float32")
        assert (low, tuple(given.shape)) == (-high, shape)
        limits.append(high)
        return given

    options = (0.2, 1.5, 2.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "uniform_", uniform)
        wanted = augment_patches_center_coordinates(torch.as_tensor(centres), *options)
        patch.setattr(keras.random, "uniform", uniform_of_ours)
        found = moved(centres, *options, None)
    assert limits[:3] == pytest.approx(limits[3:])
    np.testing.assert_allclose(found, wanted.numpy(), rtol=0, atol=1e-6)
    turns = [grid_turn(given, 8, 100.0, 2) for given in (np.asarray(found), found)]
    np.testing.assert_allclose(turns[0], turns[1], rtol=0, atol=1e-5)
    assert moved(centres, None, None, None, None) is centres


@pytest.mark.parametrize("field", ["pos_embed_shift", "pos_embed_jitter", "pos_embed_rescale"])
def test_patches_move_in_training_only(field: str) -> None:
    config = small_config("dinov3_vit", **{"pos_embed_rescale": None, field: 1.7})
    tower, pixels = build_tower(config), images(config)
    still = np.asarray(tower(pixels).pooler_output)
    np.testing.assert_array_equal(tower(pixels).pooler_output, still)
    drawn = [np.asarray(tower(pixels, training=True).pooler_output) for _ in range(2)]
    assert np.abs(drawn[0] - drawn[1]).max() > 1e-6
    assert np.abs(drawn[0] - still).max() > 1e-6


def test_heads_that_cannot_be_turned_are_refused() -> None:
    with pytest.raises(UnsupportedOption) as caught:
        grid_turn(patch_centres(2, 2), 6, 100.0, 1)
    assert str(caught.value) == (
        "num_attention_heads makes heads of width 6; rotary positions of images need a multiple of 4. Correct the config."
    )


def test_stochastic_depth_drops_whole_samples_and_keeps_the_mean() -> None:
    tower = build_tower(small_config("dinov2", drop_path_rate=0.4))
    tower.build()
    values = np.asarray(tower.blocks[0].drop_path(ops.ones((4000, 3, 2)), True))
    assert set(np.unique(values)) == {0.0, np.float32(1 / 0.6)}
    assert (values == values[:, :1, :1]).all()
    assert abs(values.mean() - 1) < 0.05


@pytest.mark.parametrize("kind", KINDS)
def test_a_keras_file_keeps_everything(kind: str, tmp_path: Path) -> None:
    config = small_config(kind)
    tower = build_tower(config)
    output = tower(images(config))
    tower.save(tmp_path / "tower.keras")
    loaded = keras.models.load_model(tmp_path / "tower.keras", custom_objects={type(tower).__name__: type(tower)})
    assert list(named_variables(loaded)) == list(named_variables(tower))
    assert loaded.config.to_dict() == config.to_dict()
    np.testing.assert_array_equal(loaded(images(config)).pooler_output, output.pooler_output)


@pytest.mark.parametrize("kind", KINDS)
def test_mixed_precision_stays_near(kind: str) -> None:
    both = both_of((kind, {}, other_size(kind, (30, 35))), "eager", "float32")
    tower = build_tower(both.config, dtype="mixed_bfloat16", initial="zeros")
    assign(tower, both.torch)
    found = run_keras(tower, both.pixels, output_hidden_states=True)["pooled"]
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        theirs = both.torch(torch.as_tensor(images(both.config))).pooler_output
    assert found.dtype.name == str(theirs.dtype).removeprefix("torch.")
    wanted = run_keras(both.keras, both.pixels, output_hidden_states=True)["pooled"]
    assert np.abs(found.astype(np.float32) - wanted).max() < 0.05 * np.abs(wanted).max()


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="about TensorFlow's graphs")
@pytest.mark.parametrize("xla", [False, True], ids=["graph", "xla"])
@pytest.mark.parametrize("kind", GRAPHS)
def test_a_graph_takes_any_batch_of_the_size_it_was_made_for(kind: str, xla: bool) -> None:
    import tensorflow as tf

    both = both_of((kind, {}, None), "eager", "float32")
    other = other_size(kind, (30, 10))
    for size, known in ((None, False), (other, True))[xla:]:
        pixels = images(both.config, size)
        shape = (None, 3, *(pixels.shape[2:] if known else (None, None)))

        @tf.function(input_signature=[tf.TensorSpec(shape, tf.float32)], jit_compile=xla)
        def run(given: Any) -> Any:
            return both.keras(given, **FLAGS)

        fresh = torch_tower(both.config, "eager", torch.float32)
        for count in (3,) if xla else (3, 1):
            wanted = run_torch(fresh, pixels[:count], **FLAGS)
            reference.assert_same(taps(run(tf.constant(pixels[:count]))), wanted, 1e-5)
        if not known and not xla:
            with pytest.raises(tf.errors.InvalidArgumentError):
                run(tf.zeros((2, 3, *(other or (5, 5)))))


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="about TensorFlow's graphs")
@pytest.mark.parametrize("kind", ["beit", "dinov2", "swin"])
def test_training_in_a_graph_of_any_batch(kind: str) -> None:
    import tensorflow as tf

    config = small_config(kind, drop_path_rate=0.4, attention_probs_dropout_prob=0.2)
    tower = build_tower(config)
    tower.build()
    pixels = images(config)

    @tf.function(input_signature=[tf.TensorSpec((None, *pixels.shape[1:]), tf.float32)])
    def run(given: Any) -> Any:
        return tower(given, training=True).pooler_output

    found = [np.asarray(run(tf.constant(pixels[:count]))) for count in (3, 3, 2)]
    assert all(np.isfinite(value).all() for value in found)
    assert np.abs(found[0] - found[1]).max() > 1e-4
    assert found[2].shape == (2, config.hidden_size)

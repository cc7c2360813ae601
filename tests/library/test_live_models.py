"""Models in memory and made from parts, judged by PyTorch: live state dicts in, combined checkpoints out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from converter import pt2tf, tf2pt  # noqa: E402
from converter.conversion.combining import combine  # noqa: E402
from converter.errors import PlanError  # noqa: E402
from tests.compat import processors  # noqa: E402
from tests.compat.towers import ALL_TEXT, ALL_VISION, LOGIT_SCALE, PROJECTION  # noqa: E402
from tests.tiny import load  # noqa: E402
from tests.torture import FULL  # noqa: E402
from tests.towers import ROUND, TEXT, VISION, each_once  # noqa: E402

pytestmark = pytest.mark.torch

SWIGLU = {"use_swiglu_ffn": True, "mlp_ratio": 3}
CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    **{" and ".join(pair): (*pair, {}) for pair in each_once(VISION, TEXT)},
    "BEiT with one table for all layers": (
        "beit", "bert", {"use_relative_position_bias": False, "use_shared_relative_position_bias": True},
    ),
    "DINOv2 with SwiGLU": ("dinov2", "bert", SWIGLU),
    "DINOv2 with registers and SwiGLU": ("dinov2_with_registers", "bert", SWIGLU),
}  # fmt: skip


def model_of(vision: str, text: str, options: dict[str, Any], dtype: Any = torch.float32) -> Any:
    """A live dual encoder, random everywhere."""
    config = transformers.VisionTextDualEncoderConfig.from_vision_text_configs(
        transformers.AutoConfig.for_model(vision, **(ALL_VISION[vision] | options)),
        transformers.AutoConfig.for_model(text, **ALL_TEXT[text]),
        projection_dim=PROJECTION,
    )
    return randomised(transformers.VisionTextDualEncoderModel(config), dtype)


def randomised(model: Any, dtype: Any = torch.float32) -> Any:
    draw = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.copy_(torch.randn(weight.shape, generator=draw) * 0.1 + float("norm" in name))
            if name == "logit_scale":
                weight.fill_(LOGIT_SCALE)
        for name, kept in model.state_dict().items():
            if name.endswith("inv_freq"):  # stored, so that those of the file count
                kept.mul_(1.01)
    return model.to(dtype)


def bits(state: dict[str, Any]) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    return {
        name: (str(value.dtype), tuple(value.shape), value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        for name, value in state.items()
    }


# Each case in one of two types, in the other the next day.
DTYPES = [torch.float32, torch.bfloat16]
TYPED = [(case, dtype) for n, case in enumerate(CASES) for dtype in (DTYPES if FULL else [DTYPES[(n + ROUND) % 2]])]


@pytest.mark.parametrize(("case", "dtype"), TYPED, ids=str)
def test_a_live_state_dict_gives_what_its_saved_file_gives(case: str, dtype: Any, tmp_path: Path) -> None:
    model = model_of(*CASES[case], dtype)
    model.save_pretrained(tmp_path / "saved")
    state = model.state_dict()
    assert pt2tf(state, tmp_path / "live", config=model.config.to_dict(), format="safetensors").checked
    pt2tf(tmp_path / "saved", tmp_path / "tf", format="safetensors")
    ours, theirs = tmp_path / "live" / "model.safetensors", tmp_path / "tf" / "model.safetensors"
    assert ours.read_bytes() == theirs.read_bytes()
    tf2pt(tmp_path / "live", tmp_path / "back")
    again, info = transformers.VisionTextDualEncoderModel.from_pretrained(tmp_path / "back", output_loading_info=True)
    assert not any(info[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    found = again.state_dict()
    # ESM's frequencies become float32 as transformers loads them, from its own file too.
    own = transformers.VisionTextDualEncoderModel.from_pretrained(tmp_path / "saved")
    assert bits(found) == bits(own.state_dict())
    assert bits({name: value.to(state[name].dtype) for name, value in found.items()}) == bits(state)


def test_parameters_in_training_and_shared_storage(tmp_path: Path) -> None:
    """``named_parameters`` of a compiled model, with a tensor that is a view into another's storage."""
    model = model_of("vit", "bert", {})
    state = {f"_orig_mod.{name}": weight for name, weight in model.named_parameters()}
    name = "_orig_mod.visual_projection.weight"
    state[name] = torch.cat([state[name], state[name]]).T.contiguous().T[: len(state[name])]
    assert not state[name].is_contiguous()
    assert state[name].requires_grad
    pt2tf(state, tmp_path / "live", config=model.config.to_dict())
    pt2tf(dict(model.state_dict()), tmp_path / "tf", config=model.config.to_dict())
    assert (tmp_path / "live" / "tf_model.h5").read_bytes() == (tmp_path / "tf" / "tf_model.h5").read_bytes()


def test_a_tensor_kept_in_two_parts_needs_both(tmp_path: Path) -> None:
    """5.x keeps the two halves of DINOv2's SwiGLU apart in the running model, and as one in files."""
    model = model_of(*CASES["DINOv2 with SwiGLU"])
    state = model.state_dict()
    gate, up = (f"vision_model.encoder.layer.0.mlp.{part}_proj.weight" for part in ("gate", "up"))
    exchanged = state | {gate: state[up], up: state[gate]}
    written = {}
    for name, given in {"right": state, "exchanged": exchanged}.items():
        pt2tf(given, tmp_path / name, config=model.config.to_dict())
        written[name] = (tmp_path / name / "tf_model.h5").read_bytes()
    assert written["right"] != written["exchanged"]
    del state[up]
    with pytest.raises(PlanError, match=r"weights_in\.weight is made of .*, which must all be there") as caught:
        pt2tf(state, tmp_path / "tf", config=model.config.to_dict())
    assert up in str(caught.value)


@pytest.fixture
def towers(tmp_path: Path) -> tuple[Path, Path]:
    """A full CLIP, processor included, and a BERT with a head and no pooler."""
    vision, text = ALL_VISION["clip_vision_model"], ALL_TEXT["bert"]
    config = transformers.CLIPConfig(vision_config=vision, text_config=ALL_TEXT["clip_text_model"], projection_dim=17)
    randomised(transformers.CLIPModel(config)).save_pretrained(tmp_path / "clip")
    randomised(transformers.BertForMaskedLM(transformers.BertConfig(**text))).save_pretrained(tmp_path / "bert")
    processors.save(str(tmp_path / "clip"), "roberta", "clip", vision["image_size"], apart=True)
    processors.save(str(tmp_path / "bert"), "bert", "vit", 99, apart=True)
    return tmp_path / "clip", tmp_path / "bert"


def test_a_combined_checkpoint_is_complete_and_holds_the_towers(towers: tuple[Path, Path], tmp_path: Path) -> None:
    made = combine(*towers, tmp_path / "out", projection_dim=PROJECTION)
    assert [name for name in made.made_new if "pooler" in name]
    model, info = transformers.VisionTextDualEncoderModel.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(info[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert model.logit_scale.item() == pytest.approx(2.6592)
    clip = transformers.CLIPModel.from_pretrained(towers[0])
    bert = transformers.BertForMaskedLM.from_pretrained(towers[1])
    found, originals = bits(model.vision_model.state_dict()), bits(clip.vision_model.state_dict())
    assert found == originals
    pooled = bits(model.text_model.state_dict())
    originals = bits(bert.bert.state_dict())
    assert {name: value for name, value in pooled.items() if not name.startswith("pooler.")} == originals
    assert len(originals) == len(pooled) - 2


def test_a_combined_checkpoint_runs_as_its_towers_do(towers: tuple[Path, Path], tmp_path: Path) -> None:
    combine(*towers, tmp_path / "out", projection_dim=PROJECTION)
    model = transformers.VisionTextDualEncoderModel.from_pretrained(tmp_path / "out").eval()
    clip = transformers.CLIPModel.from_pretrained(towers[0]).eval()
    bert = transformers.BertForMaskedLM.from_pretrained(towers[1]).eval()
    noise = torch.Generator().manual_seed(3)
    pixels, ids = torch.randn(2, 3, 20, 20, generator=noise), torch.randint(5, 97, (2, 9), generator=noise)
    with torch.no_grad():
        output = model(pixel_values=pixels, input_ids=ids)
        pooled = clip.vision_model(pixel_values=pixels).pooler_output
        hidden = bert.bert(input_ids=ids).last_hidden_state
    torch.testing.assert_close(output.vision_model_output.pooler_output, pooled, rtol=0, atol=1e-6)
    torch.testing.assert_close(output.text_model_output.last_hidden_state, hidden, rtol=0, atol=1e-6)
    weight = load(tmp_path / "out" / "model.safetensors")["visual_projection.weight"]
    projected = pooled.numpy() @ weight.T
    projected /= np.linalg.norm(projected, axis=-1, keepdims=True)
    np.testing.assert_allclose(output.image_embeds.numpy(), projected, rtol=0, atol=1e-6)


# transformers leaves the files of additional_chat_templates open, which Python says when it gets round to it.
@pytest.mark.filterwarnings(
    "ignore:Exception ignored in.*additional_chat_templates:pytest.PytestUnraisableExceptionWarning"
)
@pytest.mark.filterwarnings("ignore:unclosed file.*additional_chat_templates:ResourceWarning")
def test_a_combined_checkpoint_reads_pictures_as_its_vision_and_texts_as_its_text_tower(
    towers: tuple[Path, Path], tmp_path: Path
) -> None:
    combine(*towers, tmp_path / "out")
    processor = transformers.VisionTextDualEncoderProcessor.from_pretrained(tmp_path / "out")
    assert type(processor.image_processor).__name__.startswith("CLIPImageProcessor")
    assert processor.image_processor.crop_size["height"] == 20
    expected = transformers.AutoTokenizer.from_pretrained(towers[1])(["un gatto nero"])["input_ids"]
    assert processor.tokenizer(["un gatto nero"])["input_ids"] == expected

"""What people bring: the right outcome of every folder of fixtures/cases, whole messages and next steps included."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest

from converter import ConverterError, combine, pt2tf, tf2pt
from converter.errors import listed
from converter.names.families import families
from converter.names.rule_files import supported
from tests.tiny import FIXTURES, assert_same, load

CASES = FIXTURES / "cases"
# What is converted -> how many tensors, how their names are spelled, and what is left out.
CONVERTS: dict[str, tuple[int, dict[str, int], dict[str, str]]] = {
    "ckpt_wrapped_params": (81, {"v4": 17, "v4, _checkpoint_wrapped_module.": 64}, {}),
    "dict_model_state_dict": (81, {"v4": 81}, {}),
    "ema": (
        81,
        {"v4, module.": 81},
        {"n_averaged": "how many models torch's AveragedModel has averaged, no weight"},
    ),
    "ema_key/checkpoint.pth": (
        81,
        {"v4": 81},
        {"state_dict_ema": "lies beside state_dict, which was converted; save it alone to convert it"},
    ),
    "fsdp_prefix": (81, {"v4, _fsdp_wrapped_module.": 81}, {}),
    "lightning_weights/w.ckpt": (81, {"v4, model.": 81}, {}),
    "net_prefix": (81, {"v4, dual_encoder.": 81}, {}),
    "tf_ckpt": (81, {"TensorFlow": 81}, {}),
    "tf_save_weights_h5/my_weights.h5": (81, {"TensorFlow": 81}, {}),
    "tf_savedmodel_vars": (81, {"TensorFlow": 81}, {}),
    "variant_fp16/model.fp16.safetensors": (81, {"v4": 81}, {}),
}
ADAPTER = (
    "a PEFT adapter, not a model; merge it: PeftModel.from_pretrained(model, FOLDER)"
    ".merge_and_unload().save_pretrained(OTHER), then convert OTHER"
)
JOINS = "TFVisionTextDualEncoderModel.from_vision_text_pretrained joins two into a dual encoder"
TWO = f"/config.json: expected a model with two towers ({listed(tuple(families()))}), found a"
PICKLE = "which a state_dict of plain tensors does not need. None of it was run."
NAMED = ": holds no weights by a usual name; {0} is one by another name: convert {1} {case}/{0} OUT"
# What is refused -> the message behind the folder's name.
REFUSED = {
    "accelerate_state": "/config.json: not found; a checkpoint folder holds config.json beside its weights, as "
    "save_pretrained writes it; if it lies elsewhere, give it with --config FILE (in Python config=)",
    "dangling_weights": "/model.safetensors: the text of a link, not the file that it points to; copy the folder with "
    "`cp -rL`, or download it again",
    "dcp": "/pytorch_model_fsdp_0: a distributed checkpoint (.distcp), whose weights are split; merge them with "
    "`accelerate merge-weights {case}/pytorch_model_fsdp_0 OTHER`, or "
    "torch.distributed.checkpoint.format_utils.dcp_to_torch_save, and convert OTHER",
    "deepspeed": ": a DeepSpeed checkpoint, whose weights are split; run `python zero_to_fp32.py . .` in it and "
    "convert the pytorch_model.bin that it writes",
    "dict_args": f"/pytorch_model.bin: its pickle asks for argparse.Namespace, {PICKLE} Load it in its own "
    "environment and save the state_dict alone: torch.save(model.state_dict(), FILE)",
    "dynamic_quant": f"/pytorch_model.bin: its pickle asks for torch.qint8, {PICKLE} Its weights are quantised; save the "
    "model as it was before that, or dequantise them",
    "ema_key": NAMED.replace("{0}", "checkpoint.pth").replace("{1}", "pt2tf"),
    "extra_head": "/pytorch_model.bin: not the tensors that config.json describes; in it but not in the model that "
    "config.json describes (2): classifier.weight, classifier.bias; leave them out: pt2tf({n: t for n, t in "
    "state_dict.items() if n.split('.')[0] not in ['classifier']}, OUT, config=...)",
    "flax": "/flax_model.msgpack: a Flax checkpoint; in transformers 4.57 load it with "
    "load_flax_checkpoint_in_pytorch_model(VisionTextDualEncoderModel(config), FILE) of "
    "transformers.modeling_flax_pytorch_utils and write it with save_pretrained",
    "fp8": "/model.safetensors: tensor text_model.embeddings.position_embeddings.weight is F8_E4M3, which no "
    "transformers 4 model computes in; convert such tensors with .to(torch.float32), multiply them by their "
    "scales if any, and save again",
    "hand_names": "/pytorch_model.bin: not the tensors that config.json describes; missing from it (80): "
    "vision_model.vision_model.embeddings.class_embedding and 43 more, as rename_rules/towers/clip_vision.toml: "
    "vision_model.embeddings.class_embedding asks for; in it but not in the model that config.json describes (79): "
    "image_encoder.vision_model.embeddings.class_embedding and 42 more; most names are none of the model's (it holds "
    "tensors below image_encoder, image_projection, text_encoder): write the model with save_pretrained of its class",
    "int8_plain": "/model.safetensors: whole numbers where floats belong (31): "
    "vision_model.vision_model.embeddings.position_embedding.weight (int8), "
    "vision_model.vision_model.encoder.layers.{0...1}.self_attn.q_proj.weight (int8), "
    "vision_model.vision_model.encoder.layers.{0...1}.self_attn.k_proj.weight (int8) and 15 more; such weights are "
    "quantised: dequantise them with their scales and save again",
    "lightning_weights": NAMED.replace("{0}", "w.ckpt").replace("{1}", "pt2tf"),
    "openclip": ": an open_clip model, which uses other tensor names; take its transformers version from its page on "
    "the Hub, or make one with transformers' conversion script for CLIP",
    "peft": f": {ADAPTER}",
    "peft_full": "/model.safetensors: not the tensors that config.json describes; missing from it (18): "
    "vision_model.vision_model.encoder.layers.{0...1}.self_attn.q_proj.weight and 9 more, as "
    "rename_rules/towers/clip_vision.toml: vision_model.encoder.layers.{layer}.self_attn.q_proj asks for; in it but not in "
    "the model that config.json describes (36): text_model.encoder.layer.{0...1}.attention.self.query.base_layer.bias and "
    "19 more; these are PEFT's adapters beside the model: model.merge_and_unload().save_pretrained(OTHER), then convert "
    "OTHER",
    "peft_trainer": f"/checkpoint-1: {ADAPTER}",
    "tf_bert_mlm": f"{TWO} single bert tower; {JOINS}",
    "tf_save_weights_h5": NAMED.replace("{0}", "my_weights.h5").replace("{1}", "tf2pt"),
    "tied_save_model": f"{TWO} single roberta tower; {JOINS}",
    "timm_vit": f"{TWO} timm model, whose tensors have other names; take the same model in transformers' format",
    "torchscript": "/pytorch_model.bin: a TorchScript archive, which holds a program and not only weights; save the "
    "state_dict of the module with torch.save",
    "trainer": ": holds no weights, but its subfolders do; name one of them: {case}/checkpoint-2 (others: "
    "{case}/checkpoint-1)",
    "trainer_no_model": ": holds no weights (config.json, optimizer.pt); expected model.safetensors or "
    "model.safetensors.index.json or pytorch_model.bin or pytorch_model.bin.index.json",
    "variant_fp16": NAMED.replace("{0}", "model.fp16.safetensors").replace("{1}", "pt2tf"),
    "vit_cls": f"{TWO} single vit tower; {JOINS}",
}
NO_TYPE = "{side}_config has no model_type, which says what tower it is; add the one of the original, one of {types}"
NO_JSON = "not JSON: Expecting value: line 1 column 1 (char 0); restore it from the original"
# What a config.json beside sound weights leads to: the changes to it, or the message behind its path.
CONFIGS: dict[str, tuple[str, ...] | str] = {
    "automap": "auto_map asks for code of its own, which is never run; remove the field",
    "bom": (),
    "comment": NO_JSON,
    "crlf": (),
    "empty": NO_JSON,
    "hybrid_clip": ('config.json: model_type: "hybrid-clip" -> "vision-text-dual-encoder"',),
    "latin1": "not JSON: 'utf-8' codec can't decode byte 0xe8 in position 1009: invalid continuation byte; restore it from "
    "the original",
    "list": "expected a JSON object, found list; restore it from the original",
    "no_model_type_text": NO_TYPE.format(side="text", types=", ".join(supported("text"))),
    "no_model_type_top": (),
    "no_model_type_vision": NO_TYPE.format(side="vision", types=", ".join(supported("vision"))),
    "only_name_text": NO_TYPE.format(side="text", types=", ".join(supported("text"))),
    "utf16": (),
}
# Rows of text in a terminal of 240 columns, paths left aside.
LONGEST = 3 * 240


def convert(source: Path, out: Path, **options: Any) -> Any:
    """By the direction that a case is meant for."""
    return (tf2pt if "tf_" in str(source.relative_to(CASES)) else pt2tf)(source, out, **options)


def test_every_case_has_an_outcome() -> None:
    folders = {path.name for path in CASES.iterdir() if path.is_dir()}
    told = {name.split("/")[0] for name in (*CONVERTS, *REFUSED)}
    assert folders == told | {"base4", "config"}
    assert {path.name for path in (CASES / "config").iterdir()} == set(CONFIGS)
    assert sum(path.stat().st_size for path in CASES.rglob("*") if path.is_file()) < 3_000_000


@pytest.mark.parametrize("name", CONVERTS)
def test_what_is_converted(name: str, tmp_path: Path) -> None:
    done = convert(CASES / name, tmp_path / "out")
    assert done.checked
    assert (done.tensors, dict(done.dialects), {item.name: item.reason for item in done.dropped}) == CONVERTS[name]
    if "tf_" in name:  # made from the same weights
        assert_same(
            load(tmp_path / "out" / "model.safetensors"), load(CASES / "accelerate_state" / "model.safetensors")
        )


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConverterError) as caught:
        convert(CASES / name, tmp_path / "out")
    assert str(caught.value) == f"{CASES / name}{REFUSED[name].replace('{case}', str(CASES / name))}"
    assert len(REFUSED[name]) < LONGEST
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [name for name, said in REFUSED.items() if "by another name" in said])
def test_the_command_of_a_message_converts(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConverterError) as caught:
        convert(CASES / name, tmp_path / "out")
    _, direction, path, _ = shlex.split(str(caught.value).partition("another name: ")[2])
    assert {"pt2tf": pt2tf, "tf2pt": tf2pt}[direction](path, tmp_path / "out").tensors == 81


def test_the_config_of_a_message_converts(tmp_path: Path) -> None:
    assert pt2tf(CASES / "accelerate_state", tmp_path / "out", config=CASES / "base4" / "config.json").tensors == 81


@pytest.mark.parametrize("name", CONFIGS)
def test_configs(name: str, tmp_path: Path) -> None:
    said, path = CONFIGS[name], CASES / "config" / name / "config.json"
    (tmp_path / "pt").mkdir()
    shutil.copy(CASES / "accelerate_state" / "model.safetensors", tmp_path / "pt")
    if isinstance(said, tuple):
        assert pt2tf(tmp_path / "pt", tmp_path / "out", config=path).config_rewritten[: len(said)] == said
        return
    with pytest.raises(ConverterError) as caught:
        pt2tf(tmp_path / "pt", tmp_path / "out", config=path)
    assert str(caught.value) == f"{path}: {said}"


@pytest.mark.parametrize("text", ["tf_bert_mlm", "tied_save_model"])
def test_towers_with_tied_weights_are_joined(text: str, tmp_path: Path) -> None:
    done = combine(CASES / "vit_cls", CASES / text, tmp_path / "out")
    assert not any("word_embeddings" in name for name in done.made_new)
    assert done.tensors == 82

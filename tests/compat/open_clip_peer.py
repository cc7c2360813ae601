"""OpenCLIP as a server, as ``peer.py`` is one for transformers, whose requests it answers too; of both, one installation."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import AutoTokenizer, CLIPTokenizer, PreTrainedTokenizerFast

from tests.compat import peer


@contextmanager
def _without_operators() -> Iterator[None]:
    """Lets torchvision be imported without its compiled operators, which OpenCLIP never calls.

    Its wheel on the index is built for CUDA and cannot load them beside a torch for the CPU. It then fails when it registers
    their shapes.
    """
    register = torch.library.register_fake

    def unless_torchvisions(name: Any, *given: Any, **options: Any) -> Any:
        return (lambda shapes: shapes) if str(name).startswith("torchvision::") else register(name, *given, **options)

    torch.library.register_fake = unless_torchvisions
    try:
        yield
    finally:
        torch.library.register_fake = register


with _without_operators():
    import open_clip
    import timm

WEIGHTS = "open_clip_model.safetensors"


def make_open_clip(
    out: str, model_cfg: dict[str, Any], preprocess_cfg: dict[str, Any], ways: list[str]
) -> dict[str, Any]:
    """Makes a model with random weights and saves it in ways in which OpenCLIP or its trainer does.

    Each into a folder of ``out``: ``safetensors``, ``bin``, ``half`` (of ``precision="fp16"``, which leaves norms and embeddings
    in float32) and ``epoch``, what the trainer leaves.
    """
    model = _new(model_cfg)
    peer.randomise(model, 0, 2.0)
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    for way in ways:
        folder = Path(out) / way
        folder.mkdir(parents=True)
        config = {"model_cfg": model_cfg, "preprocess_cfg": preprocess_cfg}
        (folder / "open_clip_config.json").write_text(json.dumps(config), "utf-8")
        if way == "safetensors":
            save_file(state, folder / WEIGHTS)
        elif way == "bin":
            torch.save(state, folder / "open_clip_pytorch_model.bin")
        elif way == "epoch":
            trained = {
                "epoch": 3,
                "name": "x",
                "state_dict": {f"module.{name}": value for name, value in state.items()},
            }
            trained["optimizer"] = torch.optim.AdamW(model.parameters()).state_dict()
            torch.save(trained, folder / "epoch_3.pt")
        else:
            half = open_clip.create_model(f"local-dir:{out}/safetensors", precision="fp16").state_dict()
            save_file({name: tensor.contiguous() for name, tensor in half.items()}, folder / WEIGHTS)
    return {"tensors": {name: list(tensor.shape) for name, tensor in state.items()}}


def _new(model_cfg: dict[str, Any]) -> Any:
    given = {name: value for name, value in model_cfg.items() if name != "custom_text"}
    return (open_clip.CustomTextCLIP if model_cfg.get("custom_text") else open_clip.CLIP)(**given).eval()


def run_open_clip(source: str, inputs: str, out: str) -> dict[str, Any]:
    """Loads a folder by OpenCLIP's own loader, and writes the outputs under the names that transformers has for them."""
    model = open_clip.create_model(f"local-dir:{source}").eval()
    with np.load(inputs) as arrays, torch.no_grad():
        image, text = (torch.from_numpy(arrays[name]) for name in ("pixel_values", "input_ids"))
        images, texts = model.encode_image(image, normalize=True), model.encode_text(text, normalize=True)
        logits, _ = model.get_logits(image, text)
    found = {"logits_per_image": logits, "logits_per_text": logits.T, "image_embeds": images, "text_embeds": texts}
    np.savez(out, **{name: value.numpy() for name, value in found.items()})
    return {"class": type(model).__name__}


def save_tokenizer(out: str) -> dict[str, Any]:
    """Saves OpenCLIP's own BPE as transformers' CLIPTokenizer, from the vocabulary in its package."""
    simple = open_clip.SimpleTokenizer()
    special = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    folder = Path(out)
    vocabulary = {special.get(token, token): number for token, number in simple.encoder.items()}
    (folder / "vocab.json").write_text(json.dumps(vocabulary), "utf-8")
    merges = "\n".join(" ".join(pair) for pair in simple.bpe_ranks)
    (folder / "merges.txt").write_text(f"#version: 0.2\n{merges}\n", "utf-8")
    CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=77).save_pretrained(folder)
    return {}


def save_pieces(out: str, vocabulary: int) -> dict[str, Any]:
    """Saves a tokenizer of pieces, as SigLIP's and MetaCLIP 2's are, with a vocabulary of its own."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    letters = [chr(code) for code in range(ord("!"), ord("!") + vocabulary - 4)]
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -9.0), ("\u2581", -3.0), *((letter, -4.0) for letter in letters)]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=2))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", 1)])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")
    fast.save_pretrained(out)
    return {}


def tokenize(source: str, ours: str, texts: list[str]) -> dict[str, Any]:
    """Ids of texts by OpenCLIP's tokenizer of one folder, and by transformers' of another, up to the first end."""
    theirs = open_clip.get_tokenizer(f"local-dir:{source}")(texts).tolist()
    tokenizer = AutoTokenizer.from_pretrained(ours)
    found = tokenizer(texts, truncation=True, max_length=len(theirs[0])).input_ids
    shown = [ids[: ids.index(tokenizer.eos_token_id) + 1] for ids in theirs]
    return {"open_clip": shown, "transformers": found, "class": type(tokenizer).__name__}


def configs() -> dict[str, Any]:
    """Every model config in OpenCLIP's package, by its name."""
    return {name: open_clip.get_model_config(name) for name in open_clip.list_models()}


def shapes(names: list[str]) -> dict[str, Any]:
    """Shapes of the tensors of OpenCLIP's own models, which are made without memory."""
    found = {}
    for name in names:
        config = cast("dict[str, Any]", open_clip.get_model_config(name))
        with torch.device("meta"):
            found[name] = {key: list(tensor.shape) for key, tensor in _new(config).state_dict().items()}
    return found


def trunks(names: list[str]) -> dict[str, Any]:
    """Sizes of timm's vision towers, which their names do not say."""
    found = {}
    for name in names:
        with torch.device("meta"):
            made = timm.create_model(name, pretrained=False)
        block = made.blocks[0]
        found[name] = {
            "width": made.embed_dim,
            "layers": len(made.blocks),
            "heads": block.attn.num_heads,
            "mlp_width": block.mlp.fc1.out_features,
            "patch_size": made.patch_embed.patch_size[0],
            "image_size": made.patch_embed.img_size[0],
            "act": "gelu_pytorch_tanh" if "Tanh" in type(block.mlp.act).__name__ else "gelu",
        }
    return found


REQUESTS: dict[str, Callable[..., dict[str, Any]]] = {
    **peer.REQUESTS,
    "make_open_clip": make_open_clip,
    "run_open_clip": run_open_clip,
    "save_tokenizer": save_tokenizer,
    "save_pieces": save_pieces,
    "tokenize": tokenize,
    "configs": configs,
    "shapes": shapes,
    "trunks": trunks,
}

if __name__ == "__main__":
    peer.main(REQUESTS)

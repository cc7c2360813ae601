"""sentence-transformers as a server, as ``peer.py`` is one for transformers, whose requests it answers too."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import CLIPModel
from transformers import CLIPImageProcessor, CLIPTokenizer

from tests.compat import peer


def save_processor(out: str, size: int, length: int) -> dict[str, Any]:
    """Saves a CLIP tokenizer of single letters, 512 of them and two ends, and an image processor."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    letters = list(bytes_to_unicode().values())
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=length).save_pretrained(out)
    CLIPImageProcessor(size={"shortest_edge": size}, crop_size={"height": size, "width": size}).save_pretrained(out)
    return {"tokens": len(vocabulary)}


def save_sentence_model(source: str, out: str) -> dict[str, Any]:
    """Saves a folder as sentence-transformers lays out its own CLIP models: a module in a folder of its own."""
    SentenceTransformer(modules=[CLIPModel(source)], device="cpu").save_pretrained(out)
    return {"files": sorted(str(path.relative_to(out)) for path in Path(out).rglob("*") if path.is_file())}


def encode(source: str, texts: list[str], pictures: list[str], out: str, as_module: bool) -> dict[str, Any]:
    """Embeds texts and pictures, with the folder loaded by itself or into the module that is for CLIP."""
    modules = [CLIPModel(source)] if as_module else None
    model = SentenceTransformer(None if modules else source, modules=modules, device="cpu", local_files_only=True)
    images = [Image.open(path).convert("RGB") for path in pictures]
    np.savez(out, texts=model.encode(texts), images=model.encode(images))
    return {}


REQUESTS: dict[str, Callable[..., dict[str, Any]]] = {
    **peer.REQUESTS,
    "save_processor": save_processor,
    "save_sentence_model": save_sentence_model,
    "encode": encode,
}

if __name__ == "__main__":
    peer.main(REQUESTS)

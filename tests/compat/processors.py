"""Tokenizers and image processors as transformers 5.x saves them, small, one of each kind that its files differ in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import transformers

from tests.compat.towers import TEMPLATES

WORDS = ("un", "gatto", "nero", "mare")
LETTERS = "abcdefghilmnopqrstuvz"
BERT = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *LETTERS, *(f"##{letter}" for letter in LETTERS)]
PIECES = [*((f"▁{word}", -2.0 - n) for n, word in enumerate(WORDS)), ("▁", -9.0), *((c, -9.5) for c in LETTERS)]
XLM = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *PIECES, ("<mask>", 0.0)]
ALBERT = [("<pad>", 0.0), ("<unk>", 0.0), ("[CLS]", 0.0), ("[SEP]", 0.0), ("[MASK]", 0.0), *PIECES]
BPE = ["<s>", "<pad>", "</s>", "<unk>", *LETTERS, "Ġ", "un", "Ġn", "<mask>"]


def bert(**options: Any) -> Any:
    """WordPiece, cased."""
    return transformers.BertTokenizer(vocab=numbered(BERT), do_lower_case=False, model_max_length=41, **options)


def bert_with_extra_tokens() -> Any:
    """One more special token and one more word than the vocabulary has."""
    tokenizer = bert(extra_special_tokens=["<foto>"])
    tokenizer.add_tokens(["gelato"])
    return tokenizer


def bare() -> Any:
    """What is no class's own tokenizer, which 5.x calls TokenizersBackend."""
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=bert()._tokenizer,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )


def roberta() -> Any:
    """Byte-level BPE."""
    return transformers.RobertaTokenizer(vocab=numbered(BPE), merges=[("u", "n"), ("Ġ", "n")])


TOKENIZERS: dict[str, Callable[[], Any]] = {
    "bert": bert,
    "bert with extra tokens": bert_with_extra_tokens,
    "bare": bare,
    "roberta": roberta,
    "xlm-roberta": lambda: transformers.XLMRobertaTokenizer(vocab=XLM),
    "camembert": lambda: transformers.CamembertTokenizer(vocab=XLM),
    "albert": lambda: transformers.AlbertTokenizer(vocab=ALBERT),
}
IMAGE_PROCESSORS: dict[str, Callable[[int], Any]] = {
    "clip": lambda size: transformers.CLIPImageProcessor(
        size={"shortest_edge": size}, crop_size={"height": size, "width": size}
    ),
    "vit": lambda size: transformers.ViTImageProcessor(size={"height": size, "width": size}),
    "deit": lambda size: transformers.DeiTImageProcessor(
        size={"height": size + 4, "width": size + 4}, crop_size={"height": size, "width": size}
    ),
}


def numbered(tokens: list[str]) -> dict[str, int]:
    """A vocabulary in order of ids."""
    return {token: index for index, token in enumerate(tokens)}


def save(out: str, tokenizer: str, image: str, size: int, apart: bool) -> None:
    """Saves both into a folder, as one processor or, as people do too, each on its own.

    Args:
        out: the folder.
        tokenizer: which of TOKENIZERS.
        image: which of IMAGE_PROCESSORS.
        size: height and width of the pictures it makes, in pixels.
        apart: each on its own.
    """
    text, images = TOKENIZERS[tokenizer](), IMAGE_PROCESSORS[image](size)
    text.chat_template = TEMPLATES
    if apart:
        text.save_pretrained(out)
        images.save_pretrained(out)
    else:
        transformers.VisionTextDualEncoderProcessor(images, text).save_pretrained(out)

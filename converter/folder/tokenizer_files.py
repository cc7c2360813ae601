"""Which of the files beside weights are a tokenizer's or an image processor's, by their names."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from converter.errors import ConfigError
from converter.folder.chat_templates import chat_templates_in, is_chat_template
from converter.folder.files import read_json
from converter.specs import is_file_name

# As the classes of transformers 4 and 5 name them, except pickles.
SIDECARS = (
    "added_tokens.json", "bpe.codes", "byte_maps.json", "chat_template.jinja", "chat_template.json", "dict.txt",
    "emoji.json", "entity_vocab.json", "generation_config.json", "merges.txt", "normalizer.json",
    "preprocessor_config.json", "processor_config.json", "prophetnet.tokenizer", "sentencepiece.bpe.model",
    "sentencepiece.model", "source.spm", "special_tokens_map.json", "spiece.model", "spiece.vocab", "spm.model",
    "spm_char.model", "target.spm", "target_vocab.json", "tekken.json", "tokenizer.json", "tokenizer.model",
    "tokenizer_config.json", "vocab-src.json", "vocab-tgt.json", "vocab.json", "vocab.txt", "word_pronunciation.json",
    "word_shape.json",
)  # fmt: skip
OF_IMAGES = ("preprocessor_config.json", "processor_config.json")
TOKENIZER_CONFIG = "tokenizer_config.json"
# Files that identify the model in a folder: transformers' and OpenCLIP's.
CONFIGS = ("config.json", "open_clip_config.json")
# What this program writes beside the weights.
OURS = ("conversion.json", "parity.json")
# Of files that have a name of a tokenizer's own choice; Whisper has two.
MAX_OWN_NAMES = 32
_TIKTOKEN = ".tiktoken"
_NAMES_A_FILE = "_file"  # the end of such fields of tokenizer_config.json: vocab_file, merges_file
# Code, pickles, weights and cards are not a vocabulary, even if a tokenizer_config.json says so.
_NEVER = (
    ".py", ".pyc", ".so", ".pkl", ".pickle", ".bin", ".pt", ".pth", ".ckpt", ".safetensors", ".h5", ".keras", ".msgpack",
    ".onnx", ".md",
)  # fmt: skip


def sidecars_in(folder: Path) -> tuple[str, ...]:
    """Names of the tokenizer and processor files in a folder, in order.

    Of a folder that may not be listed, whose files can be read all the same, those that have a usual name.
    """
    try:
        present = [path.name for path in folder.iterdir()]
    except OSError:
        present = []
    names = {*SIDECARS, *of_own_name(present, folder / TOKENIZER_CONFIG)}
    return tuple(sorted((*(name for name in names if (folder / name).is_file()), *chat_templates_in(folder))))


def of_own_name(present: Collection[str], config: Path) -> tuple[str, ...]:
    """A tokenizer's files that have no usual name: tiktoken's, and those that its config names; ``MAX_OWN_NAMES`` at most.

    Args:
        present: names in the folder.
        config: its tokenizer_config.json, which need not be there.
    """
    named = _named(config)
    found = (name for name in present if name not in SIDECARS and (_is_tiktoken(name) or name in named))
    return tuple(sorted(found)[:MAX_OWN_NAMES])


def is_of_tokenizer(name: str) -> bool:
    """Whether a file is a tokenizer's, judged by its name."""
    return (name in SIDECARS and name not in OF_IMAGES) or _is_tiktoken(name) or is_chat_template(name)


def _is_tiktoken(name: str) -> bool:
    return name.endswith(_TIKTOKEN) and _is_visible(name)


def _named(config: Path) -> frozenset[str]:
    """The fields of a tokenizer_config.json that may name custom files."""
    if not config.is_file():
        return frozenset()
    try:
        fields = read_json(config)
    except ConfigError:  # the copying step reports it
        return frozenset()
    values = (value for field, value in fields.items() if field.endswith(_NAMES_A_FILE))
    return frozenset(value for value in values if _may_be_named(value))


def _may_be_named(value: object) -> bool:
    """Whether a file of this name is copied because a config says so, and replaces one in OUT."""
    if not isinstance(value, str) or not _is_visible(value) or "." not in value:
        return False
    plain = value.casefold()  # Macs and Windows take Config.json for config.json
    return plain not in (*CONFIGS, *OURS) and not plain.endswith((*_NEVER, ".index.json"))


def _is_visible(name: str) -> bool:
    """Whether a name is a file's in the folder itself, is not hidden and shows what it is."""
    return is_file_name(name) and name.isprintable() and not name.startswith(".")

"""The small files beside the weights: which are taken along, and what of config.json is rewritten."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from converter.checkpoints.detect import inside
from converter.errors import SourceError

# Tokenizer and processor files, as transformers names them. Nothing else is taken along: no code, no other weights.
_TAKEN = (
    "added_tokens.json", "chat_template.jinja", "chat_template.json", "generation_config.json", "merges.txt",
    "preprocessor_config.json", "processor_config.json", "sentencepiece.bpe.model", "special_tokens_map.json",
    "spiece.model", "spm.model", "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json", "vocab.txt",
)  # fmt: skip
MAX_SIDECAR_BYTES = 256 * 2**20


def copy_sidecars(source: Path, target: Path) -> tuple[str, ...]:
    """Copies the tokenizer and processor files of a checkpoint folder.

    Returns:
        Their names.

    Raises:
        SourceError: one of them is larger than any tokenizer is.
        CorruptCheckpoint: one of them is a link out of the folder.
    """
    copied = []
    for name in _TAKEN:
        path = source / name
        if not path.is_file():
            continue
        if path.stat().st_size > MAX_SIDECAR_BYTES:
            raise SourceError(f"{path}: larger than {MAX_SIDECAR_BYTES:,} bytes, which no such file is; remove it")
        shutil.copyfile(inside(path, source), target / name)
        copied.append(name)
    return tuple(copied)


def rewrite_config(
    raw: Mapping[str, Any], logit_scale: float, float_dtype: str | None
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Makes the config of the output.

    Args:
        raw: of the source.
        logit_scale: the trained value. transformers 4.x does not read it from ``tf_model.h5`` but takes
            ``logit_scale_init_value``, so that is set to it.
        float_dtype: what the floats of the output are; None where they are mixed.

    Returns:
        The config, and what was rewritten, in words.
    """
    config = dict(raw)
    rewritten = []

    def rewrite(field: str, value: Any) -> None:
        if config.get(field) != value:
            was = f"{field}: {json.dumps(config[field])}" if field in config else f"{field}: absent"
            rewritten.append(f"{was} -> {json.dumps(value)}")
            config[field] = value

    if math.isfinite(logit_scale):
        rewrite("logit_scale_init_value", logit_scale)
    for field in ("torch_dtype", "dtype"):
        if config.get(field) is not None and float_dtype is not None:
            rewrite(field, float_dtype)
    return config, tuple(rewritten)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Writes JSON as transformers does: two spaces, a newline at the end, its own order of keys."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", "utf-8")

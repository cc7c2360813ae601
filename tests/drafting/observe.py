"""What every config field of a tower does, seen in live models of the installed transformers.

    python observe.py effects < asked.json      every field changed alone: does it change names, outputs, only training, nothing?
    python observe.py tables  < asked.json      names, shapes and kinds of every tensor, for a list of configs
    python observe.py order   < asked.json      TensorFlow's variables, in order (transformers 4.x)

Reads ``{"side": ..., "config": {...}, "configs": [...], "head": ...}``, configs with their model type, and prints JSON. It
imports nothing of this project, so that it runs in the environment of any transformers. It builds only models that
transformers itself defines. It reads no checkpoint and runs no code of others.
"""

import importlib.util
import inspect
import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

_LOOK = Path(__file__).parents[1] / "names" / "reference_names.py"
STEPS = (1, 2, 3, 4, 5, 6, 8, 10, 12, -1, -2)
WORDS = {"act": ("relu", "gelu_new"), "position_embedding_type": ("relative_key",), "norm": ("layer_norm",)}
ENOUGH = 3  # values that a size is tried at
MULTIPLES_FROM = 8


def reference_names() -> Any:
    """tests/names/reference_names.py, by its path."""
    spec = importlib.util.spec_from_file_location("reference_names", _LOOK)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def other_values(name: str, value: Any, config: Mapping[str, Any]) -> list[Any]:
    """What to try instead of a value, the likeliest first; of names those that the config lists."""
    if isinstance(value, bool):
        return [not value]
    if name in ("image_size", "patch_size"):
        one = value[0] if isinstance(value, list) else value
        return (
            [2 * one, 3 * one, [2 * one, one], [2 * one, 3 * one]]
            if name == "image_size"
            else [one + 1, one * 2, [one, one + 1]]
        )
    if isinstance(value, int):  # a multiple is one of the number of heads, too, and one divides every width
        steps = [value + step for step in STEPS if value + step > 0]
        if value >= MULTIPLES_FROM:
            return [2 * value, 3 * value, *steps]
        return [*steps, 2 * value, 3 * value, *([1] if value > 1 else [])]
    if isinstance(value, float):
        return [2 * value + 0.125, *([0.0] if 0 < value < 1 else []), value / 2 + 0.0625]
    if isinstance(value, str):
        listing = (held for held in config.values() if isinstance(held, list) and value in held)
        named = [word for held in listing for word in held]
        return [word for part, words in WORDS.items() if part in name for word in words if word != value] + [
            word for word in named if word != value
        ]
    if isinstance(value, list) and value and all(type(each) is int for each in value):
        # All items at once, too: a model may read the first of them alone.
        last = [[*value[:-1], value[-1] + step] for step in (1, 2, 4)]
        return [last[0], [each + 2 for each in value], last[1], [2 * each for each in value], last[2]]
    if isinstance(value, list) and value and all(type(each) is bool for each in value):
        return [[not each for each in value]]
    if isinstance(value, list) and value and all(type(each) is str for each in value):
        return [[*value, f"{value[-1]}2"], [f"{value[0]}2", *value], value[:-1]]
    return [3, 0.5, 1.5, True] if value is None else []


def small_list(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def build(config: dict[str, Any]) -> Any:
    """The tower alone, every weight drawn from its name, so that models of one shape have the same."""
    import torch
    from transformers import AutoModel

    model = AutoModel.from_config(own_config(config)).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn(weight.shape, generator=torch.Generator().manual_seed(sum(map(ord, name))))
            one = ("norm" in name.lower() and name.endswith("weight")) or "lambda" in name or "layer_scale" in name
            weight.copy_(1 + 0.2 * noise if one else 0.15 * noise)
    return model


def known(config: dict[str, Any]) -> bool:
    """Whether this version of transformers has such a model."""
    from transformers import CONFIG_MAPPING

    return config["model_type"] in CONFIG_MAPPING


def own_config(config: dict[str, Any]) -> Any:
    """The config object of one of transformers' own classes.

    Raises:
        ValueError: the model type is not one of transformers' own, or the config asks for code.
    """
    from transformers import CONFIG_MAPPING

    model_type = config["model_type"]
    if model_type not in CONFIG_MAPPING or "auto_map" in config:
        raise ValueError(f"{model_type} is no model of transformers itself")
    found = CONFIG_MAPPING[model_type](**{name: value for name, value in config.items() if name != "model_type"})
    if not type(found).__module__.startswith("transformers.models."):
        raise ValueError(f"{model_type} is no model of transformers itself")
    return found


def given(side: str, config: Any, **more: Any) -> dict[str, Any]:
    """A batch of two."""
    import torch

    draw = torch.Generator().manual_seed(3)
    if side == "vision":
        size = getattr(config, "image_size", None) or 32
        height, width = size if isinstance(size, (list, tuple)) else (size, size)
        return {
            "pixel_values": torch.rand((2, getattr(config, "num_channels", 3), height, width), generator=draw),
            **more,
        }
    ids = torch.randint(10, 20, (2, 7), generator=draw)
    ids[:, 4] = config.vocab_size - 1  # where a tower may end a text
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    return {"input_ids": ids, "attention_mask": mask, **more}


def outputs(model: Any, side: str, training: bool = False, **more: Any) -> list[Any]:
    """The last hidden state and the pooled output."""
    import torch

    model.train(training)
    torch.manual_seed(5)
    taken, named = given(side, model.config, **more), inspect.signature(model.forward).parameters
    if all(parameter.kind is not parameter.VAR_KEYWORD for parameter in named.values()):
        taken = {name: value for name, value in taken.items() if name in named}
    with torch.no_grad():
        found = model(**taken)
    return [found[0], found[1]]


def differ(one: list[Any], other: list[Any]) -> bool:
    import torch

    return any(
        a.shape != b.shape or not torch.allclose(a, b, atol=1e-6, rtol=0, equal_nan=True)
        for a, b in zip(one, other, strict=True)
    )


def named_shapes(model: Any) -> dict[str, list[int]]:
    return {name: list(tensor.shape) for name, tensor in model.state_dict().items()}


def effect_of(config: dict[str, Any], side: str, model: Any) -> str:
    """What the model of a changed config does otherwise: ``shape``, ``eval``, ``train`` or ``none``."""
    changed = build(config)
    if named_shapes(changed) != named_shapes(model):
        outputs(changed, side)  # what cannot run is no value of the field
        return "shape"
    if differ(outputs(changed, side), outputs(model, side)):
        return "eval"
    return "train" if differ(outputs(changed, side, True), outputs(model, side, True)) else "none"


def effects(side: str, config: dict[str, Any], skip: Sequence[str] = (), **_: Any) -> dict[str, Any]:
    """By field but those to skip: what it does, and the values that it was tried at; or why it cannot be changed alone."""
    if not known(config):
        return {"fields": {}, "given": {}}
    defaults = reference_names().fields(config)
    model, found = build(config), {}
    usual = type(model.config)()  # a class may fill in a list where none is declared
    filled = {name: value for name in defaults if isinstance(value := getattr(usual, name, None), list)}
    defaults |= {name: value for name, value in filled.items() if defaults[name] is None}
    for name, default in ((name, default) for name, default in defaults.items() if name not in skip):
        value, tried, what, why = small_list(config.get(name, default)), [], "none", ""
        beside: list[str] = []
        for other in other_values(name, value, config):
            try:
                effect, beside = tried_at(config, name, other, side, model)
            except Exception as error:
                why = f"{type(error).__name__}: {error}".splitlines()[0][:100]
                continue
            tried.append(other)
            what = next(kind for kind in ("shape", "eval", "train", "none") if kind in (what, effect))
            if len(tried) == ENOUGH and name not in ("image_size", "patch_size"):
                break
        found[name] = {
            "default": small_list(default),
            "effect": what,
            "values": tried,
            **({"beside": beside} if tried and beside else {}),
            **({"why": why} if not tried else {}),
        }
    return {"fields": found, "given": behaviour(side, model)}


def tried_at(config: dict[str, Any], name: str, other: Any, side: str, model: Any) -> tuple[str, list[str]]:
    """What another value does, and which fields had to follow it."""
    try:
        return effect_of({**config, name: other}, side, model), []
    except Exception:
        lists = counted(config, name, other)
        if not lists:
            raise
    return effect_of({**config, name: other, **lists}, side, model), sorted(lists)


def counted(config: Mapping[str, Any], name: str, other: Any) -> dict[str, list[Any]]:
    """What has to follow another count: lists of as many items, cut, or their last item repeated; sizes that are the same."""
    if type(config.get(name)) is not int or type(other) is not int or other < 1:
        return {}
    if name.endswith("_size"):
        same = (key for key, held in config.items() if key.endswith("_size") and type(held) is int and key != name)
        return {key: other for key in same if config[key] == config[name]}
    lists = {key: held for key, held in config.items() if isinstance(held, list) and len(held) == config[name]}
    return {key: [*held, *held[-1:] * other][:other] for key, held in lists.items() if not key.endswith("_size")}


def behaviour(side: str, model: Any) -> dict[str, Any]:
    """What verification must know of a tower's inputs."""
    import torch

    usual, config = outputs(model, side), model.config
    if side == "vision":
        other = {"pixel_values": torch.rand(2, getattr(config, "num_channels", 3), 40, 64)}
        try:
            return {"any_size": bool(torch.isfinite(outputs(model, side, **other)[1]).all())}
        except Exception:
            return {"any_size": False}
    padding = []
    for pad in {config.pad_token_id or 0, 0, 1}:
        ids = given(side, config)["input_ids"]
        positions = torch.arange(ids.shape[1]).expand(ids.shape) + pad + 1
        same = not differ(outputs(model, side, position_ids=positions), usual)
        padding += [pad] if same else []
    return {"after_padding": padding, "pad_token_id": type(config)().pad_token_id}


def tables(configs: list[dict[str, Any]], **_: Any) -> dict[str, Any]:
    """By number of config: names and shapes; the base config's kinds, buffers, and what files and live models call them."""
    look, found = reference_names(), []
    for config in configs:
        try:
            own_config(config)
            found.append(table(look, config))
        except Exception as error:
            found.append({"error": f"{type(error).__name__}: {error}"[:100]})
    if not known(configs[0]):
        return {"tables": found}
    return {"tables": found, "prefix": prefix_of(configs[0]), "unpooled": unpooled(configs[0])}


def table(look: Any, config: dict[str, Any]) -> dict[str, Any]:
    import torch
    import transformers

    with torch.device("meta"):
        model, scope = look.pytorch_model(config)
    kinds = {
        f"{path}.{leaf}": type(module).__name__ for path, module in model.named_modules() for leaf in own_leaves(module)
    }
    weights = {name for name, _ in model.named_parameters()}
    names = {n: list(t.shape) for n, t in model.state_dict().items() if n.startswith(scope)}
    old = transformers.__version__.startswith("4.")
    live, saved = ({}, {}) if old else (look.same(config), look.saved(config))
    tower = build(config)
    values = {
        name: tensor.tolist()
        for name, tensor in tower.named_buffers()
        if not tensor.is_floating_point() and tensor.numel() < 5000
    }
    cut = len(scope)
    return {
        "names": {name[cut:]: [shape, kinds.get(name, ""), name in weights] for name, shape in names.items()},
        "saved": {name[cut:]: shape for name, shape in saved.items()},
        "live": {n[cut:]: w[cut:] if isinstance(w, str) else [w[0][cut:], w[1]] for n, w in live.items()},
        "buffers": values,
        "width": pooled_width(tower),
    }


def own_leaves(module: Any) -> Iterator[str]:
    yield from (name for name, _ in module.named_parameters(recurse=False))
    yield from (name for name, _ in module.named_buffers(recurse=False))


def pooled_width(tower: Any) -> int | None:
    side = "vision" if tower.main_input_name == "pixel_values" else "text"
    try:
        return int(outputs(tower, side)[1].shape[-1])
    except Exception:
        return None


def prefix_of(config: dict[str, Any]) -> str:
    """What a model with a head puts in front of the tower's names."""
    return str(build(config).base_model_prefix)


def unpooled(config: dict[str, Any]) -> list[str]:
    """Names that go when the tower is built without its pooling."""
    model = build(config)
    try:
        bare = type(model)(model.config, add_pooling_layer=False)
    except TypeError:
        return []
    return sorted(set(model.state_dict()) - set(bare.state_dict()))


def order(configs: list[dict[str, Any]], **_: Any) -> Any:
    """TensorFlow's variables of the first config, in the order of their creation; None where there is no class."""
    return {"order": reference_names().tensorflow(configs[0])}


QUESTIONS: dict[str, Callable[..., Any]] = {"effects": effects, "tables": tables, "order": order}


def main(question: str) -> None:
    """Answers one question."""
    warnings.simplefilter("ignore")
    os.environ.update(
        TRANSFORMERS_VERBOSITY="error", TF_CPP_MIN_LOG_LEVEL="3", CUDA_VISIBLE_DEVICES="", HF_HUB_OFFLINE="1"
    )
    import transformers

    transformers.logging.disable_progress_bar()
    asked = json.load(sys.stdin)
    json.dump({"transformers": transformers.__version__, **QUESTIONS[question](**asked)}, sys.stdout, default=str)


if __name__ == "__main__":
    main(*sys.argv[1:])

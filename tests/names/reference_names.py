"""Asks the installed transformers what it calls the tensors of single towers, pairs and whole families of models, and
which fields their configs have.

    python reference_names.py state_dict < odd.json     what a live PyTorch model calls its tensors, with shapes
    python reference_names.py saved      < odd.json     what save_pretrained of a new model writes
    python reference_names.py same       < odd.json     which tensor of the live model is which of the file, by value
    python reference_names.py tensorflow < odd.json     what TensorFlow calls its variables, in order (transformers 4.x)
    python reference_names.py fields     < odd.json     config fields and their defaults
    python reference_names.py swin_index < odd.json     the relative_position_index of every Swin window
    python reference_names.py sections   < read.json    how a family's config class reads the sections of its towers

Reads ``{case: {"config": {...}}}`` and prints ``{question: {case: {name: shape}}}``, for ``fields`` ``{question: {model
type: {field: default}}}``. Several questions may be asked at once. It imports nothing of this project, so that it runs
in the environment of any transformers; what it has to know of the towers is in fixtures/towers.toml.
"""

import dataclasses
import inspect
import json
import os
import sys
import tempfile
import tomllib
import warnings
from pathlib import Path
from typing import Any

# What is known of each tower: main layer, class in TensorFlow.
_TOWERS = tomllib.loads(Path(__file__).parents[2].joinpath("fixtures", "towers.toml").read_text("utf-8"))
SMALL_TEXT = {
    "model_type": "bert", "vocab_size": 29, "hidden_size": 6, "num_hidden_layers": 0, "num_attention_heads": 1,
    "intermediate_size": 10, "max_position_embeddings": 13,
}  # fmt: skip
SMALL_VISION = {
    "model_type": "vit", "hidden_size": 6, "num_hidden_layers": 0, "num_attention_heads": 1, "intermediate_size": 10,
    "image_size": 16, "patch_size": 8,
}  # fmt: skip


def dual_encoder(config: dict[str, Any]) -> tuple[Any, str]:
    """The tower in a dual encoder, beside a small one; returns the model class' config and the tower's scope.

    The config of a pair is taken as it is, and its scope is empty.
    """
    from transformers import AutoConfig, VisionTextDualEncoderConfig

    if "text_config" in config:
        towers = {
            f"{side}_config": AutoConfig.for_model(**config[f"{side}_config"]).to_dict() for side in ("vision", "text")
        }
        return VisionTextDualEncoderConfig(**towers, projection_dim=config["projection_dim"]), ""
    is_text = config["model_type"] in _TOWERS["text"]
    towers = {"vision_config": SMALL_VISION if is_text else config, "text_config": config if is_text else SMALL_TEXT}
    towers = {side: AutoConfig.for_model(**tower).to_dict() for side, tower in towers.items()}
    return VisionTextDualEncoderConfig(**towers, projection_dim=7), "text_model." if is_text else "vision_model."


def is_family(config: dict[str, Any]) -> bool:
    """Whether it is of a family whose towers are its own, not of a tower or a pair."""
    return "text_config" in config and config["model_type"] != "vision-text-dual-encoder"


def whole_config(config: dict[str, Any]) -> Any:
    """A family's config, as its class reads what config.json says."""
    from transformers import AutoConfig

    return AutoConfig.for_model(**config)


def pytorch_model(config: dict[str, Any]) -> tuple[Any, str]:
    """A new model, and the scope of the requested one: a tower's in a dual encoder, else empty."""
    from transformers import AutoModel, VisionTextDualEncoderModel

    if is_family(config):
        return AutoModel.from_config(whole_config(config)), ""
    whole, scope = dual_encoder(config)
    return VisionTextDualEncoderModel(whole), scope


def state_dict(config: dict[str, Any]) -> dict[str, list[int]] | str:
    import torch

    try:
        with torch.device("meta"):
            model, scope = pytorch_model(config)
    except (TypeError, ValueError) as error:  # an earlier version may not know a tower, or a value of a field
        return f"{config['model_type']} fails: {error}".partition("\n")[0].partition(". Should contain")[0]
    return {name: list(tensor.shape) for name, tensor in model.state_dict().items() if name.startswith(scope)}


def saved(config: dict[str, Any]) -> dict[str, list[int]]:
    return {name: list(tensor.shape) for name, tensor in live_and_saved(config)[1].items()}


def same(config: dict[str, Any]) -> dict[str, Any]:
    """Live name -> name in the file; where the file has several in one, ``[name, first row]``."""
    live, file = live_and_saved(config)
    found: dict[str, Any] = {}
    for name, tensor in live.items():
        if not tensor.is_floating_point() and name in file:  # such as an index, which is the same in many layers
            found[name] = name
            continue
        for other, whole in file.items():
            if not tensor.dim() or not whole.dim():
                if whole.equal(tensor):
                    found[name] = other
                continue
            for start in range(0, len(whole), len(tensor)):
                if whole[start : start + len(tensor)].equal(tensor):
                    assert name not in found, f"{name} is twice in the file"
                    found[name] = other if whole.shape == tensor.shape else [other, start]
        assert name in found, f"{name} is not in the file"
    return found


def live_and_saved(config: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Tensors of the tower in a live model with random weights, and in the file that it writes."""
    import torch
    from safetensors.torch import load_file

    model, scope = pytorch_model(config)
    torch.manual_seed(0)
    with torch.no_grad():
        for tensor in model.state_dict().values():  # what is stored beside the weights, too
            if tensor.is_floating_point():
                tensor.uniform_(-1.0, 1.0)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        file = load_file(Path(folder) / "model.safetensors")
    live, file = ({n: t for n, t in tensors.items() if n.startswith(scope)} for tensors in (model.state_dict(), file))
    return live, file


def tensorflow(config: dict[str, Any]) -> dict[str, list[int]] | str | None:
    import tensorflow as tf
    import transformers

    if is_family(config):
        return tensorflow_of_family(config)
    side = "text" if config["model_type"] in _TOWERS["text"] else "vision"
    known = _TOWERS[side][config["model_type"]]
    if "tensorflow" not in known:
        return None
    class_name, is_sister = known["tensorflow"]["class"], known["tensorflow"].get("sister", False)
    model_class = getattr(transformers, class_name)
    fields = {name: value for name, value in config.items() if name != "model_type"}
    options = {"add_pooling_layer": True} if is_sister else {}
    model_class.input_signature = property(lambda self: {})  # the original takes no (height, width)
    try:
        model = model_class(model_class.config_class(**fields), **options)
        with tf.name_scope(model.name):
            model.build(None)
    except (AttributeError, TypeError, ValueError) as error:  # Some configs are more than 4.x could build.
        return f"{class_name} fails: {error}"
    paths = [variable.name.split("/", 1)[1].removesuffix(":0").partition("/") for variable in model.weights]
    (main_layer,) = {path[0] for path in paths}
    scope = f"{side}_model/{known['main_layer'] if is_sister else main_layer}"
    names = [f"{scope}/{rest}" for _, _, rest in paths]
    return dict(zip(names, [list(variable.shape) for variable in model.weights], strict=True))


def tensorflow_of_family(config: dict[str, Any]) -> dict[str, list[int]] | None:
    """Full names, root scope included, in order of creation; None where there is no such class."""
    import tensorflow as tf
    import transformers

    whole = whole_config(config)
    if type(whole) not in transformers.TFAutoModel._model_mapping:
        return None
    model_class = transformers.TFAutoModel._model_mapping[type(whole)]
    model_class.input_signature = property(lambda self: {})
    model = model_class(whole)
    with tf.name_scope(model.name):
        model.build(None)
    return {variable.name: list(variable.shape) for variable in model.weights}


def sections(config: dict[str, Any]) -> dict[str, Any]:
    """What a family's config class makes of the sections of its towers."""
    whole = whole_config(config)
    return {name: getattr(whole, name).to_dict() for name in ("vision_config", "text_config")}


def fields(config: dict[str, Any]) -> dict[str, Any]:
    from transformers import AutoConfig

    try:
        instance = AutoConfig.for_model(config["model_type"])
    except ValueError:  # an earlier version may not know a tower
        return {}
    found = instance.to_dict()
    for parent in reversed(type(instance).__mro__):
        if not parent.__module__.startswith("transformers.models."):
            continue
        if dataclasses.is_dataclass(parent):
            declared = {field.name: field.default for field in dataclasses.fields(parent)}
        else:
            declared = {name: parameter.default for name, parameter in inspect.signature(parent).parameters.items()}
        found |= {name: default for name, default in declared.items() if default is not dataclasses.MISSING}
    return {name: default for name, default in found.items() if name not in ("kwargs", "transformers_version")}


def swin_index(config: dict[str, Any]) -> list[list[int]] | None:
    from transformers.models.swin.modeling_swin import SwinRelativePositionBias

    if config["model_type"] != "swin":
        return None
    window = config["window_size"]
    return SwinRelativePositionBias(1, (window, window)).relative_position_index.view(window**2, window**2).tolist()


def main(*questions: str) -> None:
    warnings.simplefilter("ignore")
    os.environ.update(TRANSFORMERS_VERBOSITY="error", TF_CPP_MIN_LOG_LEVEL="3", CUDA_VISIBLE_DEVICES="")
    functions = (state_dict, saved, same, tensorflow, fields, swin_index, sections)
    ask = {function.__name__: function for function in functions}
    configs = {case: content["config"] for case, content in json.load(sys.stdin).items()}
    types = {config["model_type"]: config for config in configs.values()}
    answers = {
        question: {case: ask[question](config) for case, config in (types if question == "fields" else configs).items()}
        for question in questions
    }
    import transformers

    json.dump({"transformers": transformers.__version__, "answers": answers}, sys.stdout, default=str)


if __name__ == "__main__":
    main(*sys.argv[1:])

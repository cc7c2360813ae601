"""Loads and runs the PyTorch model in the reference's process. Decides that one with a weight missing never runs."""

from __future__ import annotations

import contextlib
import json
import platform
import tempfile
from collections.abc import Collection, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers

from converter.errors import ParityError, WorkerError, listed, printable
from converter.folder.files import read_json
from converter.names.configs import family_of
from converter.names.families import Family
from converter.names.frameworks import CANONICAL
from converter.names.rule_files import SIDES, Side
from converter.names.spelling import branch_ends
from converter.names.towers import input_rules
from converter.parity.batches import Batch
from converter.parity.runners.golden import Recording, config_sha256, read_recording, write_recording
from converter.parity.runners.options import ReferenceOptions
from converter.parity.runners.torch_masks import hook_masks
from converter.parity.taps import INNER, Array, InnerTaps, attending, collect_taps, stage_depths
from converter.system.names import name_twice

# Buffers that follow from the config; some versions of transformers write them and others do not.
_DERIVED = (".position_ids", ".relative_position_index", ".relative_coords_table")
# The files that transformers looks for in a folder, by whether it is safetensors and whether it is an index of shards.
_WEIGHTS = {
    (True, False): "model.safetensors",
    (True, True): "model.safetensors.index.json",
    (False, False): "pytorch_model.bin",
    (False, True): "pytorch_model.bin.index.json",
}


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Runs one model: request and recording as ``asking.write_request`` has them."""
    options = ReferenceOptions(**request["options"])
    source = Path(request["source"])
    set_precision()
    device = choose_device(options.device)
    batches = read_recording(Path(request["inputs"]), taps=False).batches
    with _folder_of(source) as folder:
        model, left_out = load_model(
            folder, options, family_of(read_json(folder / "config.json"), str(folder / "config.json"))
        )
    model = model.to(device)
    ran = tuple(_run(model, batch, options, device) for batch in batches)
    metadata = {**describe_run(model, source, options, device), "left_out": json.dumps(sorted(left_out))}
    write_recording(Recording(metadata, ran), Path(request["out"]))
    return {"device": metadata["device"]}


def set_precision() -> None:
    """Full float32 everywhere and kernels that give the same result twice."""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = False
    torch.set_float32_matmul_precision("highest")
    # an operation without such a kernel is logged, not refused: its noise is below any tolerance in use
    torch.use_deterministic_algorithms(True, warn_only=True)


def choose_device(device: str) -> torch.device:
    """The requested device.

    Raises:
        WorkerError: it is a GPU that torch does not see.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    chosen = torch.device(device)
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise WorkerError(
            f"device {device} was requested, but torch {torch.__version__} sees {torch.cuda.device_count()} CUDA "
            "devices; choose cpu, or an environment whose torch has CUDA"
        )
    return chosen


@contextlib.contextmanager
def _folder_of(source: Path) -> Iterator[Path]:
    """The folder for transformers to load: for one weights file of any name, a folder without others."""
    if source.is_dir():
        yield source
        return
    with tempfile.TemporaryDirectory(prefix="parity-") as made:
        for file in source.parent.iterdir():
            if file.is_file() and file.name not in _WEIGHTS.values():
                name_twice(file.resolve(), Path(made, file.name))
        index = source.name.endswith(".index.json")
        with source.open("rb") as opened:
            safe = ".safetensors." in source.name if index else opened.read(9)[8:] == b"{"
        name_twice(source.resolve(), Path(made, _WEIGHTS[safe, index]))
        yield Path(made)


def load_model(source: Path, options: ReferenceOptions, family: Family) -> tuple[Any, set[str]]:
    """Loads a model with two towers from a folder, every weight from its files.

    Args:
        source: the folder.
        options: precision and attention count.
        family: which kind of model it is.

    Returns:
        The model on the CPU in evaluation mode, and the names of tensors in the files that were left out because they
        follow from the config.

    Raises:
        ParityError: a weight is missing, left over or of another shape, or transformers cannot load the folder.
    """
    model, info = _load_with_attention(source, options, family)
    derived = {name for name in info["unexpected_keys"] if name.endswith(_DERIVED)}
    wrong = {
        "missing from the files": [name for name in info["missing_keys"] if not name.endswith(_DERIVED)],
        "unexpected in the files": [name for name in info["unexpected_keys"] if name not in derived],
        "of another shape than config.json says": [_name_of(entry) for entry in info["mismatched_keys"]],
        "that failed to load": list(info.get("error_msgs") or ()),
    }
    if any(wrong.values()):
        # The weights matched the model before. So both together mean that this version does not read the names.
        unread = _version() < (5, 6) and wrong["missing from the files"] and wrong["unexpected in the files"]
        raise (WorkerError if unread else ParityError)(
            f"{source}: the files are not the model that config.json describes: {_counted(wrong)}. Check that they "
            f"belong together, and that transformers {transformers.__version__} reads their names: versions before 5.6 "
            "do not read the flat names that later ones write for CLIP-like towers"
        )
    return model.eval(), derived


def _load_with_attention(source: Path, options: ReferenceOptions, family: Family) -> tuple[Any, dict[str, Any]]:
    """Loads with the requested attention, only in the other tower if one has only eager (MPNet)."""
    # "dtype" was "torch_dtype" up to 4.55
    dtype = {"dtype" if _version() >= (4, 56) else "torch_dtype": getattr(torch, options.dtype)}
    asked, name = options.attention, family.classes[CANONICAL]
    kind = getattr(transformers, name, None)
    if kind is None:
        raise WorkerError(f"{source}: transformers {transformers.__version__} has no {name}; name a newer environment")
    _check_known(source, family)
    choices: list[Any] = [asked]
    if asked != "eager":
        choices += [{"": asked, "vision_config": asked, "text_config": "eager"}]
        choices += [{"": asked, "vision_config": "eager", "text_config": asked}, "eager"]
    for choice in choices:
        try:
            found: tuple[Any, dict[str, Any]] = kind.from_pretrained(
                str(source),
                local_files_only=True,
                trust_remote_code=False,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are in the loading info, by name, and refused there
                attn_implementation=choice,
                **dtype,
            )
            return found
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            refusal: Exception = error
            if not (isinstance(error, ValueError) and "scaled_dot_product_attention" in str(error)):
                break
    raise ParityError(
        f"{source}: transformers {transformers.__version__} cannot load it as {name}: {refusal}"
    ) from refusal


def _check_known(source: Path, family: Family) -> None:
    """Raises WorkerError where the transformers that is installed is too old for a tower, or too new.

    A family's own towers come with its class, whatever the sections say.
    """
    config = read_json(source / "config.json")
    for section in (f"{side}_config" for side in SIDES if family.default_tower(side) is None):
        named = (config.get(section) or {}).get("model_type")
        if isinstance(named, str) and named not in transformers.CONFIG_MAPPING:
            raise WorkerError(
                f"{source}: transformers {transformers.__version__} has no {section} of type {printable(named, 60)}; "
                "name an environment whose transformers has it (--reference-python)"
            )


def _version() -> tuple[int, ...]:
    return tuple(int(part) for part in transformers.__version__.split(".")[:2])


def _counted(wrong: Mapping[str, Collection[str]]) -> str:
    return "; ".join(f"{len(names)} {what}: {listed(sorted(names))}" for what, names in wrong.items() if names)


def _name_of(mismatch: Any) -> str:
    """4.x and 5.x differ in whether the shapes come along."""
    return str(mismatch if isinstance(mismatch, str) else mismatch[0])


def _run(model: Any, batch: Batch, options: ReferenceOptions, device: torch.device) -> Batch:
    inputs = {name: torch.from_numpy(array).to(device) for name, array in batch.inputs.items()}
    inputs["pixel_values"] = inputs["pixel_values"].to(getattr(torch, options.dtype))
    projected: dict[str, torch.Tensor] = {}
    pooled: dict[str, torch.Tensor] = {}
    inner = InnerTaps()
    hooks = [
        projection.register_forward_hook(partial(_keep_projection, pooled, projected, tower))
        for tower, name in (("vision", "visual"), ("text", "text"))
        if (projection := getattr(model, f"{name}_projection", None)) is not None
    ]
    hooks += [hook for tower in SIDES for hook in _hook_layers(model, tower, inner, batch)]
    hooks += hook_masks(model)
    try:
        with torch.inference_mode():
            output = model(
                **inputs,
                output_hidden_states=True,
                output_attentions=options.attentions,
                return_loss=options.loss and batch.is_square,
                return_dict=True,
            )
    finally:
        for hook in hooks:
            hook.remove()
    for tower in SIDES:
        if (
            getattr(output, f"{tower}_model_output").hidden_states is None
        ):  # of SigLIP in 4.57, whose towers collect none
            raise WorkerError(
                f"transformers {transformers.__version__} gives no hidden states of a {type(model).__name__}; name an "
                "environment with another version (--reference-python)"
            )
        # Of a family whose towers end in the common space.
        given = pooled.setdefault(tower, getattr(output, f"{tower}_model_output").pooler_output)
        projected.setdefault(tower, given)
    found = inner.named(stage_depths(model.config))
    taps = collect_taps(output, pooled, projected, attending(model.config, options.attentions), _to_numpy, found)
    return Batch(batch.title, batch.inputs, taps)


def _keep_projection(
    pooled: dict[str, torch.Tensor],
    projected: dict[str, torch.Tensor],
    tower: str,
    _module: Any,
    inputs: tuple[torch.Tensor, ...],
    result: torch.Tensor,
) -> None:
    """The input of a projection is the pooled output, which CLIP's output of transformers 5 no longer holds."""
    pooled[tower], projected[tower] = inputs[0], result


def _hook_layers(model: Any, tower: Side, inner: InnerTaps, batch: Batch) -> list[Any]:
    """Hooks on the dense layer that ends each branch of each layer, as the tower's rules have it."""
    held = getattr(model, f"{tower}_model")
    padded = input_rules(tower, held.config.model_type).get("padded_inside")
    length = batch.inputs["input_ids"].shape[1]

    def keep(kind: str, module: Any, _inputs: Any, result: Any) -> None:
        # A layer that could compute with integers gives their scale, too.
        value = result[0] if isinstance(result, tuple) else result
        # A convolution over texts has their tokens last.
        value = value.mT if isinstance(module, torch.nn.Conv1d) else value
        inner.keep(tower, kind, value[:, :length] if padded else value)

    return [
        module.register_forward_hook(partial(keep, kind))
        for name, module in held.named_modules()
        for kind, ending in branch_ends(tower, held.config.model_type).items()
        if ending.fullmatch(name)
    ]


def _to_numpy(tensor: torch.Tensor) -> Array:
    array: Array = tensor.detach().cpu().numpy()
    return array


def describe_run(model: Any, source: Path, options: ReferenceOptions, device: torch.device) -> dict[str, str]:
    """The metadata of a run: what ran, where, in which precision."""
    attention = {side: _attention_of(getattr(model, f"{side}_model")) for side in ("vision", "text")}
    versions = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        **({"cuda": str(torch.version.cuda)} if device.type == "cuda" else {}),
    }
    precision = {
        "tf32_matmul": torch.backends.cuda.matmul.allow_tf32,
        "tf32_cudnn": torch.backends.cudnn.allow_tf32,
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
    }
    name = f" ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else ""
    return {
        "framework": "PyTorch",
        "inner": " ".join(INNER),
        "source": source.name,
        "config_sha256": config_sha256(source),
        "versions": json.dumps(versions, sort_keys=True),
        "device": f"{device}{name}",
        "attention": json.dumps(attention, sort_keys=True),
        "dtype": options.dtype,
        "precision": json.dumps(precision, sort_keys=True),
    }


def _attention_of(tower: Any) -> str:
    return str(getattr(tower.config, "_attn_implementation", None) or "eager")

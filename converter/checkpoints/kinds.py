"""Says what a folder or a file is that holds no weights to read: every kind by its marks, each with a way out."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from converter.errors import SourceError, UnsupportedContainer, listed

# What trainers write beside the weights: never the weights themselves.
_STATES = re.compile(
    r"(optimizer|scheduler|rng_state|random_states|scaler|sampler|training_args|trainer_state|dl_state_dict"
    r"|custom_checkpoint)[\w.-]*|[\w.-]*optim_states\.pt"
)
_SHARD = re.compile(r"(.+)-\d{5}-of-\d{5}(\.\w+)")
MAX_FOLDERS = 1000
OF_KERAS = (
    "a whole Keras 3 model (.keras); import TFVisionTextDualEncoderModel from where it was made, load it with "
    "keras.saving.load_model and write it with save_pretrained, then convert the tf_model.h5"
)
OF_FLAX = (
    "a Flax checkpoint; in transformers 4.57 load it with load_flax_checkpoint_in_pytorch_model("
    "VisionTextDualEncoderModel(config), FILE) of transformers.modeling_flax_pytorch_utils and write it with "
    "save_pretrained"
)
OF_TF = (
    "not a TensorFlow checkpoint as version 2 writes it (a .index that ends as such tables do, and .data files beside it); "
    "load it where it was made and write it with save_pretrained"
)
OF_CKPT = (
    "no file that torch.save wrote, as Lightning's .ckpt are; of a TensorFlow checkpoint name the .index, which can "
    "lie beside its "
    ".data files"
)
SAVED_MODEL = "a TensorFlow SavedModel without its folder `variables`, which holds the weights; copy it whole"
_ADAPTER = (
    "a PEFT adapter, not a model; merge it: PeftModel.from_pretrained(model, FOLDER)"
    ".merge_and_unload().save_pretrained(OTHER), then convert OTHER"
)
_DEEPSPEED = (
    "a DeepSpeed checkpoint, whose weights are split; run `python zero_to_fp32.py . .` in it and convert the "
    "pytorch_model.bin that it writes"
)
_DISTRIBUTED = (
    "a distributed checkpoint (.distcp), whose weights are split; merge them with `accelerate merge-weights "
    "{folder} OTHER`, or torch.distributed.checkpoint.format_utils.dcp_to_torch_save, and convert OTHER"
)
_OPEN_CLIP = (
    "an open_clip model, which uses other tensor names; take its transformers version from its page on the "
    "Hub, or make one with transformers' conversion script for CLIP"
)


def is_state(name: str) -> bool:
    """Whether a file is what a trainer keeps beside the weights, by its name."""
    return _STATES.fullmatch(name) is not None


def refuse_state(path: Path) -> None:
    """Refuses a file that was named and can hold no weights, before its content is judged.

    Raises:
        UnsupportedContainer: an adapter, or what a trainer keeps for going on.
    """
    if path.name.startswith(("adapter_model.", "adapter_config.")):
        raise UnsupportedContainer(f"{path}: {_ADAPTER}")
    if path.name.endswith("optim_states.pt"):
        raise UnsupportedContainer(f"{path}: {_DEEPSPEED}")
    if path.name.endswith(".distcp"):
        raise UnsupportedContainer(f"{path}: {_DISTRIBUTED.format(folder=shlex.quote(str(path.parent)))}")
    if is_state(path.name):
        raise UnsupportedContainer(
            f"{path}: the state of a training run, not weights; name the folder, or the weights file beside it"
        )


def recognised(folder: Path, within: bool = True) -> UnsupportedContainer | None:
    """What a folder without weights is, if it is of a kind that is known by its marks.

    Args:
        folder: the folder.
        within: whether folders in it count as well, of which trainers make one per step.
    """
    present = {path.name for path in folder.iterdir()}
    what = _by_marks(folder, present)
    if what is not None:
        return UnsupportedContainer(f"{folder}: {what}")
    if within:
        for inner in _folders(folder):
            if (error := recognised(inner, within=False)) is not None:
                return error
    return None


def _by_marks(folder: Path, present: Collection[str]) -> str | None:
    if "adapter_config.json" in present:
        return _ADAPTER
    if "zero_to_fp32.py" in present or any(name.endswith(("_model_states.pt", "optim_states.pt")) for name in present):
        return _DEEPSPEED
    if any(name.endswith(".distcp") for name in present):
        return _DISTRIBUTED.format(folder=shlex.quote(str(folder)))
    if any(name in present for name in ("saved_model.pb", "keras_metadata.pb")):
        return SAVED_MODEL
    if any(name.endswith(".index") for name in present):
        return OF_TF
    if "open_clip_config.json" in present or "open_clip_pytorch_model.bin" in present:
        return _OPEN_CLIP
    return None


def with_weights(folder: Path, holds: Callable[[Path], bool]) -> SourceError | None:
    """The error of a folder whose folders hold the weights, that of the last training step named first."""
    inner = [path for path in _folders(folder) if holds(path)]
    if not inner:
        return None
    inner.sort(key=lambda path: [int(part) if part.isdigit() else -1 for part in re.split(r"(\d+)", path.name)])
    names = [shlex.quote(str(path)) for path in reversed(inner)]
    others = f" (others: {listed(names[1:], 3)})" if names[1:] else ""
    return SourceError(f"{folder}: holds no weights, but its subfolders do; name one of them: {names[0]}{others}")


def by_another_name(folder: Path, found: Mapping[str, str]) -> SourceError:
    """The error of a folder whose weights file has a name of its own.

    Args:
        folder: the folder.
        found: by name of every file that can be read, the command that converts it.
    """
    name, command = next(iter(found.items()))
    what = f"{name} is one by another name" if len(found) == 1 else f"{listed(list(found), 3)} have other names"
    return SourceError(
        f"{folder}: holds no weights by a usual name; {what}: convert {command} {shlex.quote(str(folder / name))} OUT"
    )


def lone_shards(folder: Path, present: Collection[str]) -> SourceError | None:
    """The error of shards without their index."""
    shards = [found for name in sorted(present) if (found := _SHARD.fullmatch(name))]
    if not shards:
        return None
    index = f"{shards[0][1]}{shards[0][2]}.index.json"
    return SourceError(
        f"{folder}: holds shards ({listed([shard[0] for shard in shards], 3)}) without their index; put "
        f"{index} beside them, which was saved with them"
    )


def is_shard(name: str) -> bool:
    """Whether a file is one of several, by its name."""
    return _SHARD.fullmatch(name) is not None


def page_or_text(head: bytes) -> str | None:
    """What a file is that holds text instead of weights; None for one that does not."""
    text = head.lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        return (
            "a web page, not the file; download the file itself (its address has /resolve/ where the page's has /blob/)"
        )
    if head.startswith(b"../"):  # what copying a link leaves where there are no links
        return "the text of a link, not the file that it points to; copy the folder with `cp -rL`, or download it again"
    if len(head) >= 8 and all(32 <= byte < 127 or byte in b"\t\r\n" for byte in head):
        shown = head.decode("ascii").strip().splitlines()
        return f"text ({(shown or [''])[0]!r} ...), not weights; download or copy the file itself"
    return None


def _folders(folder: Path) -> list[Path]:
    inner = (path for path in folder.iterdir() if not is_state(path.name))
    found = [path for path in inner if path.is_dir() and not path.is_symlink()]
    return sorted(found)[:MAX_FOLDERS]
